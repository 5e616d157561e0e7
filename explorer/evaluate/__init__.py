"""Evaluation with lm-evaluation-harness: what a model can do.

capability.py      evaluates a model on all tasks of a spec
task_plan.py       the tasks and documents, and the key of their answers
lm_eval_errors.py  names the task and document where lm-eval's code fails
refused_prompts.py  documents whose prompts an endpoint refused, left out of the scores
task_progress.py   progress over all tasks
task_output.py     a task's files on disk
task_scores.py     scores and answers from lm-eval's results
response_cache.py  the answers of an unfinished task
subset.py          the documents that a limit selects
contamination.py   overlap between corpus and test documents
backends/          what answers lm-eval's requests
"""

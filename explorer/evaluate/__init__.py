"""What a model can do, by lm-evaluation-harness.

capability.py      evaluates a model, one task at a time
backends/          the models that answer lm-eval's requests
subset.py          which documents a limit takes
task_scores.py     a task's scores and answers as rows
task_output.py     a finished task on disk, in lm-eval's formats
response_cache.py  answers of an unfinished task, so that a killed evaluation resumes
contamination.py   how much of a test the corpus gives away
"""

"""What a model can do, how fast it is and how much memory it takes.

capability.py     lm-evaluation-harness, one task at a time
lm_eval_files.py  what it leaves on disk
backends/         who answers lm-eval's requests
task_sets.py      the tasks behind names
task_index.py     all tasks there are
task_preview.py   a task's first prompts
task_scores.py    what came of a task
tasks/            the starter suite
contamination.py  what corpus and test items have in common
speed/            latency, load, memory, energy
runtimes/         what runs a model
device.py         the machine
"""

"""lm-eval tasks: what exists, what may run, where the data is, and custom tasks.

index.py            the index of all tasks, cached per lm-eval version and per folder
index_builder.py    builds the index from task files, in its own process
task_list.py        the index as a table, with filters and search
presets.py          small sets of tasks by purpose
dataset_cache.py    which datasets are on this machine, and which an offline run would miss
code_policy.py      decides whether a task file may run Python code, before any of it runs
safe_loading.py     lm-eval's task loader, restricted to allowed code and sandboxed templates
task_loading.py     loads the tasks that a spec names, with their documents
document_checks.py  refuses documents that lm-eval can't ask or score
preview.py          previews a task's first prompts, in a separate process
render_prompts.py   renders those prompts with lm-eval
custom.py           a task from the user's own question file
question_files.py   reads question files: JSON Lines and CSV
question_columns.py finds the role of each of their columns
answer_keys.py      finds which choice their answers mean
starter/            the included suite
"""

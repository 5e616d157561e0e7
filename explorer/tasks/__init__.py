"""lm-eval tasks: which there are, which may run, where their data are, custom ones.

index.py            the list of all tasks, cached per version of lm-eval and per folder
index_builder.py    builds that list from task files, in a process of its own
task_list.py        the list as a table, filters and search
presets.py          small sets of tasks by purpose
dataset_cache.py    which datasets are on this machine; what offline work would lack
code_policy.py      whether a task file may run Python code, decided before any of it runs
safe_loading.py     lm-eval's task loader, restricted to allowed code and sandboxed templates
task_loading.py     the tasks behind the names of a spec, with their documents
preview.py          the first prompts of a task, from a process of their own
render_prompts.py   the same prompts, rendered by lm-eval
custom.py           a task from the user's own JSONL or CSV file
user_config.py      the user's configuration: task folders, allowed code
starter/            the included suite
"""

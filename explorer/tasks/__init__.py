"""The tasks that a run can name, known without loading lm-evaluation-harness.

index.py           every task, group and tag, from a cached list
index_builder.py   reads the task files and writes that list
task_list.py       the index as a table, with a filter
presets.py         small sets of tasks by purpose
dataset_cache.py   which tasks have their data on this machine
preview.py         a task's prompts, from a process of its own
render_prompts.py  what that process does
task_loading.py    the tasks behind the names of a spec, with their documents
safe_loading.py    loads task files so that only allowed code runs
code_policy.py     whether a task file may run code
user_config.py     the user's configuration: task folders, allowed code
custom.py          custom tasks from JSONL or CSV
starter/           the starter suite
"""

"""The Tasks page: find a task, see its prompts, add your own, take some to a run.

tasks.py         the page
task_browser.py  the list, a task's facts and example prompts
custom_task.py   the form that adds a custom task
"""

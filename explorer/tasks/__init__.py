"""The tasks that a run can ask, known without loading lm-evaluation-harness.

index.py   the list of all, cached for each version of lm-eval and each folder
here.py    which data is on this machine; what offline work would lack
presets.py small sets of tasks by purpose
"""

"""Runs, tasks and differences as tables of text, for the shell and the pages.

comparison.py        the order, the best values and the finding of a comparison
difference_table.py  the cells and notes of a comparison of two runs
run_table.py         runs, published students, costs and device estimates
task_table.py        the list of tasks
"""

"""The Compare page: chosen runs side by side, or minus a reference.

compare.py         the page
results.py         a row per run with a box, the best of each column in bold
row_choice.py      which rows are listed, in which order, and which are ticked
differences.py     run minus reference, task by task
import_results.py  the form that imports lm-eval results
"""

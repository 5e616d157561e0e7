"""The Compare page: chosen runs side by side, or minus a reference.

compare.py         the page
differences.py     run minus reference, task by task
import_results.py  the form that imports lm-eval results
"""

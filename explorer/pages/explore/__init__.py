"""The Explore page: all runs on one chart, and the evidence for one of them.

explore.py     the page
filters.py     filters in the sidebar, and the line that says what they leave
evidence.py    the strip under the chart: facts, scores and times of a run
how_made.py    how a model was made, in one sentence
run_dialog.py  everything a run left behind, in a dialog
failures.py    runs that did not finish
"""

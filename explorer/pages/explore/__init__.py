"""The Explore page: all runs on one chart, and the evidence for one of them.

explore.py     the page
filters.py     filters in the sidebar, and the line that says what they leave
needs.py       the limits and the objective of the pick
pick_card.py   the pick beside the chart: why, how sure, how to use it
evidence.py    the strip under the chart: facts, scores and times of a run
how_made.py    how a model was made, in one sentence
run_dialog.py  everything a run left behind, in a dialog
failures.py    runs that did not finish
"""

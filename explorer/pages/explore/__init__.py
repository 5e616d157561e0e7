"""The Explore page: all runs on one chart, and the evidence for one of them.

explore.py     the page
filters.py     filters in the sidebar, and the line that says what they leave
axes.py        the axes of the chart and the task that counts
chart.py       the chart, with what stands under it
comparison.py  what the runs keep and cost, the pick and the finding, whatever the axes
overlays.py    published students and estimates over the chart
needs.py       the limits and the objective of the pick
pick_card.py   the pick beside the chart: why, how sure, how to use it
removed.py     what each limit removed, shown on the chart
views.py       three more views: ranking, by task, where the time goes
evidence_panel.py  the evidence for a run in short, beside the chart
evidence.py    the strip under the chart: facts, scores and times of a run
how_made.py    how a model was made, in one sentence
run_dialog.py  everything a run left behind, in a dialog
failures.py    runs that did not finish
"""

"""The Streamlit dashboard, one folder per page. A page script reads from top to bottom.

dashboard/  the frame: settings, theme and navigation
explore/    the chart of all runs and the evidence for one
run/        the study form, its preview, the queue and tournaments
tasks/      the tasks of lm-evaluation-harness and custom tasks
compare/    a table of chosen runs, and their differences
answers/    documents that a student lost or gained, one by one
published/  retention that others report, with sources
economics/  the cost of serving a given traffic
shared/     what several pages use
"""

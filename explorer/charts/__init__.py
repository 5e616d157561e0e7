"""Plotly figures from frames, and their export; no disk but the exported file, no page.

retention_chart.py  capability kept against time or cost
run_chart.py        the charts of one run: tasks, timings, training
cost_chart.py       cost by traffic, payback, rent
published_chart.py  what published students keep
labels.py           where a chart's labels go without overlap
thinning.py         as many points as the eye can read
theme.py            colours, axes and notes that all charts share
export.py           tables and figures as files
"""

"""Plotly figures, and tables and figures as files.

chart_axes.py       the axes of the retention chart, with its limits
cost_chart.py       cost by traffic, payback over time, estimated rents
export.py           tables and figures as the bytes of a file
draw_image.py       a figure as PNG or SVG, by Chromium in a process of its own
labels.py           names beside points, placed so that they never overlap
marks.py            the marks of the retention chart, and its legend
published_chart.py  what published students keep against size or price
published_overlay.py  own runs, and lines from student to teacher, over published points
ranking_chart.py    models in the order of what they keep, and brackets of those not told apart
retention_chart.py  retention against latency, cost, size or memory
run_chart.py        one run: tasks, timings, load, training
run_points.py       the points of the retention chart, with intervals and hover texts
task_heat_map.py    what each model keeps on each task
time_chart.py       prefill and decode of each model
theme.py            colours, symbols and axes that all figures share
thinning.py         which points a crowded chart draws
workbook.py         a table of runs as a spreadsheet with notes
"""

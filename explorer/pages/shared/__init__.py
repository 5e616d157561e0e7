"""What several pages use.

widgets.py        the store, errors, read-only mode, small HTML parts
glossary.py       what each term means; shown as help
text_format.py    times, counts and escaped Markdown
html_table.py     results tables as HTML
paging.py         one page of a long table, and what it shows
table_events.py   ticks and sorted headings of a results table
answer_card.py    documents with their answers as HTML cards
study_summary.py  the runs that a page starts with, and its footnote
pricing.py        device prices and the utilisation slider
downloads.py      tables, figures and runs as files
removal.py        hide, delete and restore runs
findings.py       what is wrong with an order, found by another process
consent.py        what a task or model would run, and the button that allows it
submitting.py     submit runs in the background and show progress
run_list.py         a list to choose a run from, by its name
retention_floor.py  how much of the capability to keep, and how surely
chart_element.py    a Plotly chart, changed in place
chart_width.py    the width of a chart in the browser
"""

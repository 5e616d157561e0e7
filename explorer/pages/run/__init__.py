"""The Run page: describe a study, see what it will take, start it and watch it.

run.py              the page
form.py             the study form: widgets in, a spec out
form_defaults.py    what the form opens with: the settings of the newest study
yaml_form.py        the order as YAML, to read, to download and to edit
students_form.py    its fields for teacher, kind and sizes
training_form.py    its fields for corpus, teacher signal and optimiser
evaluation_form.py  its fields for tasks
endpoint_form.py    its fields for a model behind an endpoint
latency_form.py     its fields for number formats and timing
run_spec.py         its logic without widgets: offers, parsing, the spec
preview.py          time, memory, dollars and detectable difference of a study
queue_panel.py      the queue, refreshed while a run is active
queue_groups.py     its three parts, grouped by study, with the time left
search_form.py      the tournament form: variants of one run
search_panel.py     the tournaments and their standings
disk_panel.py       disk use by study, and what can be removed
"""

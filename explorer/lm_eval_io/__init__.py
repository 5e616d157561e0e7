"""The files of lm-evaluation-harness, read and written without loading it.

metrics.py      chance level, headline metric and short names, decided here once
samples.py      samples_*.jsonl: a line per document, read a page at a time
results.py      an output folder of any version: scores, answers, what is damaged
evaluations.py  which results files of a folder make one run
import_run.py   an output folder as a record of the store
timings.py      result files of guidellm, AIPerf and vLLM's bench
upload.py       uploaded files as an output folder
export_run.py   a run as an output folder, or as YAML for the Hub
hub_card.py     the Hub's YAML
"""

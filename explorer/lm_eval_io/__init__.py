"""The files of lm-evaluation-harness, read and written without loading it.

samples.py   samples_*.jsonl: a line a document, read one page at a time
metrics.py   what is known of the metrics
results.py   an output folder of any version: scores, answers, what is damaged
bring.py     the same as a record of the store
unpack.py    files that were handed over as such a folder
give.py      a run as such a folder again
cards.py     a run's scores as the Hugging Face Hub wants them
"""

"""The files of lm-evaluation-harness, read and written without loading it.

samples.py   samples_*.jsonl: a line a document, read one page at a time
"""

"""The store: one folder per run, written once, and what the user hid or deleted in it.

disk.py            a run's folder: spec, record, status, answers, weights
columns.py         what each column of a table of runs means: the one list
inside.py          names and links in folders that somebody else may have made
frames.py          records as DataFrames
progress.py        how a long stage reports progress and hears that it should stop
heartbeat.py       whether a run lives, without trusting a clock
trash.py           hidden and deleted runs
students.py        finished students: weights, training, checksums
leftovers.py       what no run needs any more, and the disk space of each study
example_study.py   the study that an installed package brings
"""

"""The results folder on disk: runs, their records as frames, what was hidden or deleted.

disk.py           run folders, and every file in them
frames.py         records as frames: a row a run, a score, a timed request
progress.py       a run's live status, and the request to stop it
trash.py          hidden runs, deleted runs
example_study.py  the study that an installed package copies to a new store
"""

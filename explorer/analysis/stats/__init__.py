"""Retention, intervals and paired tests: how certain a difference is.

answer_flips.py   documents that a run lost or gained against its reference
bootstrap.py      means over resampled documents, and clustered covariances
control_pairs.py  a student against its control arm: did distillation help?
differences.py    two runs compared task by task, with verdicts
few_answers.py    what few answers, or answers that are all alike, can show
intervals.py      intervals by formula, without resampling
paired_tests.py   McNemar, paired t, Holm and the smallest detectable difference
pairing.py        two models' answers matched by document, or why they cannot be
retention.py      the share of the teacher's capability that a student keeps
"""

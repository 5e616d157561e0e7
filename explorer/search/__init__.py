"""A short tournament: which variant of a run brings its student closest to the teacher.

Every variant is trained a little; one in `keep` goes on and is trained `keep` times as
long, from the start, since the schedule of the learning rate depends on the budget. What
counts is the held-out KL. Each training is a run of the store, so how a tournament stands
is read from there, and one that was interrupted goes on where it stopped.

    explorer tune tune.yaml

| module | holds |
| --- | --- |
| tournament.py | how a tournament stands, and its rounds one after another |
| here.py | a round's trainings one after another in this process |
| queued.py | a round's trainings side by side in the queue; submit, cancel, resume |

The pages read the first and the last, so nothing is imported here: here.py loads torch.
"""

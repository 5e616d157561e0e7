"""Finds good training settings by successive halving: variants of one run, ever fewer, ever longer.

Each variant trains briefly. One in `keep` survives a round and trains `keep` times longer, from
the start, because the learning rate schedule depends on the budget. The lowest held-out KL wins.
Every training is a run of the store, so the state of a search is read from there, and an
interrupted search continues where it stopped. Pages and help call a search a tournament.

    explorer tune tune.yaml

successive_halving.py  the state of a search, and its rounds one after another
local.py               a round's trainings one after another in this process (loads torch)
queued.py              a round's trainings side by side in the queue; submit, cancel, resume
"""

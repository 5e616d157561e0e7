"""Which model to use under limits, why, and how sure that is; docs/pick.md has the rule.

candidates.py        which runs may be picked, and why the others may not
decide.py            the pick, the runner-up, the near misses and the confidence
limits.py            the limits and the objective
next_measurement.py  what to measure to settle the decision
sentences.py         the decision in words
use.py               how to serve the picked model, and how to measure it again
"""

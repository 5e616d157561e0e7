"""Runs one spec stage by stage, from its checks to its record.

A stage stores its output under a key of everything that decides it. A finished stage is never
repeated and an interrupted one continues from its checkpoint, so to resume is to run the same
spec again.

    explorer run spec.yaml

launch.py            the other processes of a run on several devices
stages.py            a run as the list of its stages
run_record.py        the record a run leaves, whether it finished, failed or was cancelled
context.py           what the stages of a run share: its models, folders, clock and record parts
preflight.py         everything that can be known to be wrong with an order before it computes
preflight_server.py  the preflight in a process of its own, for the dashboard
spec_checks.py       the single checks of the preflight
device_checks.py     the checks of a run's device: there, free, and able to do the work
forecast.py          how long a run takes, what it needs and what it costs
student_stage.py     the student: built, trained and stored once for all runs that need it
student_build.py     the untrained student, and the corpus in blocks of its tokens
corpus_stage.py      the training text, read or written by the teacher, packed into blocks
targets_stage.py     the teacher's cached targets, and the training data made from them
evaluation_stage.py  a model evaluated and timed here, in torch or in llama.cpp
served_stage.py      a model timed in a server that the run starts and stops
endpoint_stage.py    a model behind an endpoint, evaluated and timed
endpoint_check.py    one tiny request to an endpoint before a run
endpoint_teacher.py  a teacher behind an endpoint: its targets and what they cost
environment.py       the machine and the library versions a record names
run_guard.py         locks, the log file, and errors a user can act on
stopping.py          stops a run within seconds, also in a stage that does not ask
"""

import gc

# What modules create stays, and looking for garbage in it takes a fifth of the time until a run
# begins.
gc.disable()
try:
    from explorer.pipeline.stages import run
finally:
    gc.freeze()
    gc.enable()

__all__ = ["run"]

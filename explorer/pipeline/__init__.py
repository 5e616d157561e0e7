"""One run, stage by stage: prepare, text, targets, distil, capability, latency, record.

A stage's output is keyed by what decides it. A finished stage is never done twice and
an interrupted one continues from its checkpoint, so to resume is to run the same spec
again. A student's run first makes sure that its teacher's run is there.

    explorer run spec.yaml

| module | holds |
| --- | --- |
| doing.py | a run from its spec to its record, whatever happens on the way |
| making.py | the student: cut, taught and kept for all runs of the same one |
| teaching.py | the text, the teacher's targets, the training |
| measuring.py | a model asked and timed: in torch, in llama.cpp |
| serving.py | a model behind an endpoint asked and timed, and what its tokens cost |
| scoring.py | a teacher behind an endpoint: its targets, and what they cost |
| state.py | what the stages of a run share: its models, its clock, its folders |
"""

from explorer.pipeline.stages import do as run

__all__ = ["run"]

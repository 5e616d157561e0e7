"""What is asked: a run, or a sweep of runs, as one frozen value that YAML holds.

A spec decides its run completely, so the run's id carries the spec's hash: the same
spec is the same run, and running it again continues or does nothing.

    explorer schema            # the JSON Schema
    explorer run spec.yaml

| module | holds |
| --- | --- |
| runs.py | a run, a sweep, the studies that ship with us |
| students.py | the kinds of students |
| distill.py | how a student is taught |
| measure.py | what a model is asked, how it is timed |
| tune.py | a tournament of variants of a run |
| base.py | what every spec is, and its errors in words |
"""

from explorer.specs.base import Bits, Spec
from explorer.specs.distill import DistillSpec
from explorer.specs.evaluation import WORKLOADS, ApiSpec, CapabilitySpec, LatencySpec
from explorer.specs.runs import (
    ELSEWHERE,
    NAME_PATTERN,
    Conditions,
    GgufType,
    RunSpec,
    SweepSpec,
    demo_sweep,
    read,
    starter_sweep,
)
from explorer.specs.search import TuneSpec
from explorer.specs.students import (
    ONE_STEP,
    BothStudent,
    CheckpointStudent,
    DepthStudent,
    FreshStudent,
    Sizes,
    Student,
    StudentSpec,
    WidthStudent,
    rounded,
)

__all__ = [
    "ELSEWHERE",
    "NAME_PATTERN",
    "ONE_STEP",
    "WORKLOADS",
    "ApiSpec",
    "Bits",
    "BothStudent",
    "CapabilitySpec",
    "CheckpointStudent",
    "Conditions",
    "DepthStudent",
    "DistillSpec",
    "FreshStudent",
    "GgufType",
    "LatencySpec",
    "RunSpec",
    "Sizes",
    "Spec",
    "Student",
    "StudentSpec",
    "SweepSpec",
    "TuneSpec",
    "WidthStudent",
    "demo_sweep",
    "read",
    "rounded",
    "starter_sweep",
]

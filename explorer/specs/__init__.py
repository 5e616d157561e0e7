"""What to run: one run, a sweep or a search, as one frozen value that YAML holds.

A spec decides its run completely, and the run's id carries the spec's hash. So the same spec is
the same run, and running it again continues it or does nothing.

    explorer schema            # the JSON Schema
    explorer run spec.yaml

base.py         the base of every spec; its hash; its errors in words
runs.py         a run
sweeps.py       a sweep of runs; the included studies; reading a YAML file
students.py     the kinds of students
distill.py      how a student is trained
evaluation.py   what a model is evaluated on, how it is timed
serve.py        a server that is started for the timing
search.py       a search over variants of a run
model_size.py   the sizes of a model that decide what a run needs
"""

from explorer.specs.base import Bits, Spec
from explorer.specs.distill import DistillSpec
from explorer.specs.evaluation import WORKLOADS, ApiSpec, CapabilitySpec, LatencySpec
from explorer.specs.runs import (
    NAME_PATTERN,
    CommonSpec,
    GgufType,
    RunSpec,
    outside_torch,
    why_not_served,
)
from explorer.specs.search import TuneSpec
from explorer.specs.serve import FOLDER_ENGINES, GGUF_ENGINES, ServeSpec
from explorer.specs.students import (
    MAX_SHARE_PER_CUT,
    BothStudent,
    CheckpointStudent,
    DepthStudent,
    FreshStudent,
    Student,
    StudentSpec,
    Widths,
    WidthStudent,
    format_count,
)
from explorer.specs.sweeps import SweepSpec, demo_sweep, read_run_or_sweep, runs_in, starter_sweep

__all__ = [
    "FOLDER_ENGINES",
    "GGUF_ENGINES",
    "MAX_SHARE_PER_CUT",
    "NAME_PATTERN",
    "WORKLOADS",
    "ApiSpec",
    "Bits",
    "BothStudent",
    "CapabilitySpec",
    "CheckpointStudent",
    "CommonSpec",
    "DepthStudent",
    "DistillSpec",
    "FreshStudent",
    "GgufType",
    "LatencySpec",
    "RunSpec",
    "ServeSpec",
    "Spec",
    "Student",
    "StudentSpec",
    "SweepSpec",
    "TuneSpec",
    "WidthStudent",
    "Widths",
    "demo_sweep",
    "format_count",
    "outside_torch",
    "read_run_or_sweep",
    "runs_in",
    "starter_sweep",
    "why_not_served",
]

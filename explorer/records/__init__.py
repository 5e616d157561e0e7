"""What a run leaves behind: one versioned record, the contract between runners and readers.

base.py         the base class of a record's parts
record.py       the record; the environment, the model, the error, the source of an import
training.py     corpus, teacher targets, loss curve
capability.py   scores per task and metric; tokens counted by an API
latency.py      timed requests, levels of load, energy, interference, the GPU
migrations.py   old records become present ones, a step per schema version
quantiles.py    medians with intervals, percentiles
rows.py         a DataFrame's rows as plain dictionaries
"""

from explorer.records.base import RecordPart
from explorer.records.capability import Capability, RefusedPrompt, TaskScore, Usage
from explorer.records.latency import (
    Energy,
    GpuState,
    Interference,
    Latency,
    LoadPoint,
    RuntimeFacts,
    TimedRequest,
    Timing,
    TimingSummary,
)
from explorer.records.migrations import SCHEMA_VERSION, migrate
from explorer.records.record import (
    Environment,
    ErrorFacts,
    Imported,
    ImportedTiming,
    ModelFacts,
    RunRecord,
)
from explorer.records.training import (
    Compilation,
    CorpusFacts,
    CurvePoint,
    Distillation,
    TargetsFacts,
)

__all__ = [
    "SCHEMA_VERSION",
    "Capability",
    "Compilation",
    "CorpusFacts",
    "CurvePoint",
    "Distillation",
    "Energy",
    "Environment",
    "ErrorFacts",
    "GpuState",
    "Imported",
    "ImportedTiming",
    "Interference",
    "Latency",
    "LoadPoint",
    "ModelFacts",
    "RecordPart",
    "RefusedPrompt",
    "RunRecord",
    "RuntimeFacts",
    "TargetsFacts",
    "TaskScore",
    "TimedRequest",
    "Timing",
    "TimingSummary",
    "Usage",
    "migrate",
]

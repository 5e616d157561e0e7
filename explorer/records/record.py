"""A run's record: what it ran on, what it measured, why it failed.

Runners write a `RunRecord`; pages, charts and commands read it. None of them knows how it was
made. A missing value is None, never 0. Old records always load: see `migrations`.
"""

import json
import math
import re
from typing import Literal

import pydantic

from explorer.errors import DamagedStore
from explorer.files import durable_files
from explorer.files.text_files import has_half_character
from explorer.records.base import Amount, Count, Moment, Name, RecordPart
from explorer.records.capability import Capability
from explorer.records.latency import Latency
from explorer.records.migrations import SCHEMA_VERSION, migrate
from explorer.records.training import Distillation
from explorer.specs import RunSpec

HALF_CHARACTER = re.compile(r"\\u[dD][89a-fA-F]")
"""How JSON writes halves of characters, whose two halves make one."""


class Environment(RecordPart):
    """The machine and the software that made the run."""

    python: Name
    platform: Name
    hostname_hash: Name
    """First eight hex digits of the host name's SHA-256: tells machines apart, names none."""
    device: Name
    """The kind of device: cpu, or an accelerator's as torch names it."""
    device_name: Name
    """A GPU's name, or the processor and its number of cores: what a price is listed under."""
    num_cpus: Count
    threads: Count
    memory_bytes: Count
    num_processes: Count | None = None
    """Processes that trained and evaluated together; None in records older than this field."""
    driver: Name | None = None
    versions: dict[str, str] = {}
    """Versions of the libraries that decide numbers."""
    commit: Name | None = None
    """The explorer's own commit, with `+changes` if the tree was not clean."""


class ModelFacts(RecordPart):
    """The model that was measured."""

    name: Name
    commit: Name | None = None
    """The commit on the hub that its files come from; None for any other model."""
    fingerprint: Name
    """Sixteen hex digits over weights, tokenizer and dtype."""
    architecture: Name
    num_parameters: Count
    num_layers: Count
    hidden_size: Count
    vocab_size: Count
    context_tokens: Count | None = None
    dtype: Name
    weight_bytes: Count
    """Bytes of the weights in memory at this dtype."""
    kept_layers: list[Count] | None = None
    """The teacher's layers that the student keeps, counted from 0."""
    kept_widths: dict[str, tuple[Count, Count]] | None = None
    """For each width that was cut (hidden, channels, heads, groups): how many are kept, out of how
    many. The student's config says which ones."""


class ErrorFacts(RecordPart):
    """Why a run failed."""

    kind: Name
    message: str
    stage: Name
    traceback: str | None = None
    """Only for a bug: the message of an expected error says everything."""


class ImportedTiming(RecordPart):
    """Where imported times come from."""

    tool: Name
    """`guidellm`, `AIPerf` or `vLLM bench`, with its version if the file says it."""
    model: Name
    """The model's name at the server that was timed."""
    device_name: Name
    """What served the model, as the file or the person who imported it named it."""
    load: str
    """The load of the run's own timing, in words."""
    files: dict[str, str]
    """Name of each file, to its SHA-256."""


class Imported(RecordPart):
    """Where imported scores come from."""

    folder: Name
    """Name of lm-eval's output folder, without its path."""
    files: dict[str, str]
    """Name of each file that was read, to its SHA-256."""
    model: Name
    dtype: Name | None = None
    """Number format of the weights, if the files say it."""
    git_hash: Name | None = None
    """lm-eval's commit, if the files say it."""
    timing: ImportedTiming | None = None
    """None if only scores were imported."""
    system_prompt: Name | None = None
    """First eight hex digits of the SHA-256 of the system prompt before each question; None if
    there was none."""
    problems: list[str] = []
    """What was left out or does not fit together, one sentence each."""


class RunRecord(RecordPart):
    """One finished, failed or cancelled run."""

    schema_version: Literal[2] = SCHEMA_VERSION
    run_id: Name
    teacher_run_id: Name | None = None
    """The run that measures this student's teacher; None for a teacher."""
    spec: RunSpec
    status: Literal["finished", "failed", "cancelled"]
    started_at: Moment
    """UTC, ISO 8601."""
    finished_at: Moment
    environment: Environment | None = None
    """None for imported results: the files do not say where they were made."""
    imported: Imported | None = None
    teacher_licence: Name | None = None
    """Licence of the spec's teacher, as its files or the catalogue state it; None if unknown."""
    model: ModelFacts | None = None
    distillation: Distillation | None = None
    capability: Capability | None = None
    latency: Latency | None = None
    stage_seconds: dict[str, Amount] = {}
    """Wall-clock time of each stage that this run did itself."""
    error: ErrorFacts | None = None

    @property
    def device_name(self) -> str | None:
        """The device that was timed: what a price is listed under; None if it is not known."""
        if self.environment:
            return self.environment.device_name
        timing = self.imported.timing if self.imported else None
        return timing.device_name if timing else None

    @property
    def model_name(self) -> str:
        """The name of the model whose numbers these are, as far as the record knows it."""
        if self.model:
            return self.model.name
        return self.imported.model if self.imported else self.spec.teacher

    @property
    def endpoint_notes(self) -> list[str]:
        """What an endpoint refused: prompts that are in no score, and fields; a sentence each."""
        capability, latency = self.capability, self.latency
        prompts = capability.refused_in_words() if capability else []
        fields = [*(capability.request_changes if capability else [])]
        fields += latency.own.request_changes if latency else []
        return [*prompts, *dict.fromkeys(fields)]

    def to_json(self) -> str:
        """The record as indented JSON.

        Raises:
            ValueError: A number is infinite or NaN.
        """
        return json.dumps(self.model_dump(mode="json"), indent=1, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str, source: str = "record.json") -> "RunRecord":
        """Read a record of this or any past schema.

        Raises:
            DamagedStore: The text is not a record, or comes from a newer explorer.
        """
        try:
            data = durable_files.parse_json(
                text, parse_constant=_refuse_constant, parse_float=_finite
            )
        except ValueError as error:
            raise DamagedStore(f"{source} {error}.") from error
        if HALF_CHARACTER.search(text) and has_half_character(json.dumps(data, ensure_ascii=False)):
            raise DamagedStore(f"{source} holds half a character, which no file can hold.")
        try:
            return cls.model_validate(migrate(data, source))
        except pydantic.ValidationError as error:
            first = error.errors()[0]
            key = ".".join(str(part) for part in first["loc"])
            raise DamagedStore(f"{source} is not a run record: {key}: {first['msg']}") from error


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number that a record may hold")


def _finite(text: str) -> float:
    number = float(text)
    return number if math.isfinite(number) else _refuse_constant(text)

"""What the stages of one run share: its spec, its models, its folders and its clock."""

import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import pydantic
import torch
from transformers import PreTrainedTokenizerBase

from explorer.devices import accelerator
from explorer.distill import distributed
from explorer.files import durable_files
from explorer.models import endpoint
from explorer.models.endpoint import Endpoint
from explorer.models.facts import fingerprint
from explorer.models.loading import Loaded, load
from explorer.pipeline import environment
from explorer.records import RecordPart
from explorer.specs import Bits, RunSpec
from explorer.store import disk
from explorer.store.progress import Progress

log = logging.getLogger("explorer")

PartT = TypeVar("PartT", bound=RecordPart)


class RunContext:
    """A run in progress. Its models load on first use."""

    def __init__(self, spec: RunSpec, root: Path, progress: Progress) -> None:
        """Touches neither the device nor a model; `choose_device` comes first."""
        self.spec, self.root, self.progress = spec, root, progress
        self.folder = disk.output_folder(root, spec.run_id)
        """Where the run writes everything but its log and its record."""
        self.work = root / ".work"
        """Intermediate results that runs share, keyed by what decides them."""
        self.started_at = utc_now()
        self.stage = "prepare"
        self.stage_seconds: dict[str, float] = {}
        self.record_parts: dict[str, Any] = {}
        """Fields of the record whose values are known so far."""

    def choose_device(self) -> None:
        """Choose the device and describe it for the record.

        Raises:
            BadInput: This machine has no such device.
        """
        self.use_all_threads()
        threads = torch.get_num_threads()
        if accelerator.num_local_processes() > 1 and not self.spec.threads:
            torch.set_num_threads(environment.shared_threads())
        self.device = accelerator.pick_device(self.spec.device)
        accelerator.use(self.device)
        self.environment = environment.environment(self.device, threads)
        self.progress.device = accelerator.places(self.device, distributed.world_size())

    def use_all_threads(self) -> None:
        """Compute with the threads of a run that has this machine to itself.

        So does the first process of several, once the others have nothing left to do.
        """
        torch.set_num_threads(self.spec.threads or environment.num_cpus())

    def load(self, name: str, bits: Bits | None = None) -> Loaded:
        """Load a model onto the run's device; `bits` quantises its linear weights."""
        return load(
            name,
            device=self.device,
            dtype=self.spec.dtype,
            bits=bits,
            trust_remote_code=self.spec.trust_remote_code,
        )

    @property
    def teacher_endpoint(self) -> Endpoint | None:
        """The endpoint that serves the teacher; None if its weights are here."""
        is_served = self.spec.teacher.startswith(endpoint.PREFIX)
        return endpoint.parse_endpoint(self.spec.teacher) if is_served else None

    @cached_property
    def teacher(self) -> Loaded:
        """The teacher as it is, unquantised."""
        return self.load(self.spec.teacher)

    @cached_property
    def start(self) -> Loaded:
        """The model the student is made from: `student.start`, or else the teacher."""
        assert self.spec.student is not None, "only a student's run comes here"
        name = self.spec.student.start
        return self.teacher if name is None else self.load(name)

    @property
    def local_teacher(self) -> Loaded:
        """The teacher; for one behind an endpoint the start model, which has its tokens."""
        return self.start if self.teacher_endpoint else self.teacher

    @property
    def teacher_bits(self) -> Bits | None:
        """Bits of the teacher's linear weights during distillation; None leaves them as is."""
        return self.spec.distill.teacher_bits if self.spec.distill else None

    @cached_property
    def training_teacher(self) -> Loaded:
        """The teacher during distillation: `local_teacher`, quantised if `teacher_bits` is set."""
        if self.teacher_endpoint or not self.teacher_bits:
            return self.local_teacher
        return self.load(self.spec.teacher, self.teacher_bits)

    @cached_property
    def teacher_fingerprint(self) -> str:
        """Identifies the teacher's weights; for an endpoint its address and model name."""
        if self.teacher_endpoint:
            where = self.teacher_endpoint
            return stage_key({"endpoint": where.url, "model": where.model})
        return fingerprint(self.teacher)

    @cached_property
    def training_teacher_fingerprint(self) -> str:
        """Identifies the teacher during distillation; quantised weights differ from its own."""
        return fingerprint(self.training_teacher) if self.teacher_bits else self.teacher_fingerprint

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The teacher's tokenizer."""
        return self.local_teacher.tokenizer

    @property
    def vocab_size(self) -> int:
        """Rows of the teacher's output layer; for an endpoint its number of tokens."""
        if self.teacher_endpoint:
            return max(self.tokenizer.get_vocab().values()) + 1
        return int(self.training_teacher.model.config.get_text_config().vocab_size)

    def unload_models(self) -> None:
        """Drop the loaded models, to free memory or because their weights have changed."""
        for name in ("start", "training_teacher", "teacher"):
            self.__dict__.pop(name, None)

    def cached_stage(
        self,
        name: str,
        decides: dict[str, Any],
        kind: type[PartT],
        compute: Callable[[], PartT],
        alone: AbstractContextManager[None] | None = None,
    ) -> PartT:
        """Return a stage's stored output, or compute and store it.

        Args:
            name: The stage.
            decides: Everything that decides the output, as JSON; other values, other output.
            kind: The type of the output.
            compute: Computes the output.
            alone: Entered before it, where others have to wait; the wait does not count.
        """
        path = self.work / "stages" / self.spec.run_id / f"{name}.json"
        key = stage_key(decides)
        stored = durable_files.read_or_set_aside(path, dict[str, Any])
        if stored is not None and stored.get("key") == key:
            # An output that another version stored in another shape is computed again.
            with suppress(pydantic.ValidationError):
                return kind.model_validate(stored.get("output"))
        with alone or nullcontext(), self.timed(name):
            output = compute()
        durable_files.write_json(path, {"key": key, "output": output.model_dump(mode="json")})
        return output

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Put a stage's seconds into the record and the log."""
        began = time.monotonic()
        log.info("Stage %s begins.", name)
        yield
        self.stage_seconds[name] = round(time.monotonic() - began, 3)
        log.info("Stage %s took %.1f s.", name, self.stage_seconds[name])


def stage_key(decides: dict[str, Any]) -> str:
    """Sixteen hex digits that differ when anything that decides an output differs."""
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:16]


def utc_now() -> str:
    """The present moment in the format of records, such as `2026-11-28T11:54:07+00:00`."""
    return datetime.now(UTC).isoformat(timespec="seconds")

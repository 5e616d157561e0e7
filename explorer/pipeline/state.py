"""What the stages of one run share: its spec, its models, its folders and its clock."""

import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import pydantic
import torch
from transformers import PreTrainedTokenizerBase

from explorer.models import endpoint
from explorer.models.endpoint import Endpoint
from explorer.models.facts import fingerprint
from explorer.models.loading import Loaded, load, pick_device
from explorer.pipeline import environment
from explorer.records import RecordPart
from explorer.specs import Bits, RunSpec
from explorer.store import disk
from explorer.store.progress import Progress

log = logging.getLogger("explorer")

PartT = TypeVar("PartT", bound=RecordPart)


class Run:
    """A run under way; its models are loaded when they are first needed."""

    def __init__(self, spec: RunSpec, root: Path, progress: Progress) -> None:
        """Nothing is done yet, and no device is touched."""
        self.spec, self.root, self.progress = spec, root, progress
        self.folder = disk.output_folder(root, spec.run_id)
        """What the run writes, apart from its log and its record."""
        self.work = root / ".work"
        """What runs share, by the key of what decides it."""
        self.started_at = now()
        self.stage = "prepare"
        self.stage_seconds: dict[str, float] = {}
        self.parts: dict[str, Any] = {}
        """The record's parts, as far as they are known."""

    def take_device(self) -> None:
        """Choose the device and describe it.

        Raises:
            BadInput: This machine has no such device.
        """
        torch.set_num_threads(self.spec.threads or environment.num_cpus())
        self.device = pick_device(self.spec.device)
        self.environment = environment.environment(self.device, torch.get_num_threads())

    def load(self, name: str, bits: Bits | None = None) -> Loaded:
        """A model on the run's device, its linear weights rounded where bits are given."""
        return load(
            name,
            device=self.device,
            dtype=self.spec.dtype,
            bits=bits,
            trust_remote_code=self.spec.trust_remote_code,
        )

    @property
    def teacher_bits(self) -> Bits | None:
        """Bits of the teacher's linear weights while it teaches; None rounds nothing."""
        return self.spec.distill.teacher_bits if self.spec.distill else None

    @cached_property
    def teacher(self) -> Loaded:
        """The teacher."""
        return self.load(self.spec.teacher)

    @property
    def served(self) -> Endpoint | None:
        """The endpoint that the teacher is behind; None where its weights are at hand."""
        is_served = self.spec.teacher.startswith(endpoint.PREFIX)
        return endpoint.parse(self.spec.teacher) if is_served else None

    @cached_property
    def lecturer(self) -> Loaded:
        """The teacher as it teaches: as it is or rounded to `distill.teacher_bits`.

        A served one's stand-in has its tokens.
        """
        if self.served:
            return self.original
        bits = self.teacher_bits
        return self.load(self.spec.teacher, bits) if bits else self.teacher

    @cached_property
    def start(self) -> Loaded:
        """The model that becomes the student: the teacher, or the one that the student names."""
        assert self.spec.student is not None, "only a student's run comes here"
        name = self.spec.student.start
        return self.teacher if name is None else self.load(name)

    @cached_property
    def teacher_fingerprint(self) -> str:
        """What tells this teacher apart; a server says nothing but its name."""
        if self.served:
            return key({"endpoint": self.served.url, "model": self.served.model})
        return fingerprint(self.teacher)

    @property
    def original(self) -> Loaded:
        """What students are cut from and mapped to: the teacher, or a served one's stand-in."""
        return self.start if self.served else self.teacher

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The teacher's tokenizer; a served one has the student's, or the first reply tells."""
        return self.original.tokenizer

    @property
    def vocab_size(self) -> int:
        """Rows of the teacher's vocabulary; tokens of a served one's."""
        if self.served:
            return max(self.tokenizer.get_vocab().values()) + 1
        return int(self.lecturer.model.config.vocab_size)

    @cached_property
    def lecturer_fingerprint(self) -> str:
        """What tells apart the teacher as it teaches: other bits, other lessons."""
        return fingerprint(self.lecturer) if self.teacher_bits else self.teacher_fingerprint

    def forget_models(self) -> None:
        """Load them anew when they are needed again: to make room, or since they have changed."""
        for name in ("start", "lecturer", "teacher"):
            self.__dict__.pop(name, None)

    def keyed(
        self, name: str, decides: dict[str, Any], kind: type[PartT], make: Callable[[], PartT]
    ) -> PartT:
        """A stage's output from disk when the same was asked before, else made and kept."""
        path = self.work / "stages" / self.spec.run_id / f"{name}.json"
        wanted = key(decides)
        if path.exists():
            kept = json.loads(path.read_text(encoding="utf-8"))
            if kept["key"] == wanted:
                # An output that another version wrote in another shape is made again.
                with suppress(pydantic.ValidationError):
                    return kind.model_validate(kept["output"])
        with self.timed(name):
            made = make()
        disk.write_text(path, json.dumps({"key": wanted, "output": made.model_dump(mode="json")}))
        return made

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Put the seconds of a stage into the record and the log."""
        began = time.monotonic()
        log.info("Stage %s begins.", name)
        yield
        self.stage_seconds[name] = round(time.monotonic() - began, 3)
        log.info("Stage %s took %.1f s.", name, self.stage_seconds[name])


def key(decides: dict[str, Any]) -> str:
    """Sixteen hex digits that differ when anything that decides an output does."""
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:16]


def now() -> str:
    """This moment, as records write it."""
    return datetime.now(UTC).isoformat(timespec="seconds")

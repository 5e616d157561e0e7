"""A sweep of runs, and the two that are included."""

from pathlib import Path
from typing import Any, Self

import pydantic
from pydantic import Field

from explorer.files import yaml_files
from explorer.files.yaml_files import Document
from explorer.specs.base import Added, Bits
from explorer.specs.distill import DistillSpec
from explorer.specs.evaluation import CapabilitySpec, LatencySpec
from explorer.specs.runs import (
    NAME_PATTERN,
    CommonSpec,
    GgufType,
    RunSpec,
    outside_torch,
    refuse_without_weights,
)
from explorer.specs.search import TuneSpec
from explorer.specs.students import DepthStudent, Student


class SweepSpec(CommonSpec):
    """Several students of one teacher under the same conditions, the teacher included."""

    name: str = Field("sweep", pattern=NAME_PATTERN)
    """The beginning of every run's id."""
    students: tuple[Student, ...]
    """One run each. Empty to measure only the teacher, as it is and in other formats."""
    control: Added[bool] = False
    """Also train each student on the text alone, to see what distillation adds."""
    gguf: Added[tuple[GgufType, ...]] = ()
    """Number formats in which to evaluate and time the teacher and every student again, as GGUF in
    llama.cpp."""
    torch_bits: Added[tuple[Bits, ...]] = ()
    """Bits to which to quantise the linear weights of the teacher and of every student, to evaluate
    and time them again in torch: 8, and 4 on NVIDIA GPUs."""

    @pydantic.model_validator(mode="after")
    def _refuse_no_or_equal_students(self) -> Self:
        if not (self.students or self.gguf or self.torch_bits):
            raise ValueError(
                "students is empty; name at least one, or formats in gguf or torch_bits"
            )
        if len(set(self.students)) != len(self.students):
            raise ValueError("students holds the same student twice; remove one of them")
        return self

    @pydantic.model_validator(mode="after")
    def _refuse_what_needs_the_teachers_weights(self) -> Self:
        if outside_torch(self.teacher):
            converts = bool(self.gguf or self.torch_bits)
            students = list(self.students)
            refuse_without_weights(self.teacher, students, self.distill, converts=converts)
        return self

    @pydantic.model_validator(mode="after")
    def _refuse_control_without_distributions(self) -> Self:
        if self.control and (self.distill is None or not self.distill.uses_distributions):
            raise ValueError(
                "control compares with a teacher's distributions; write distill: {method: cached} "
                "or live, or remove control"
            )
        return self

    def runs(self) -> list[RunSpec]:
        """The teacher, the students (largest first if known), their controls, other formats."""
        shared = {name: getattr(self, name) for name in CommonSpec.model_fields}
        students = [
            RunSpec(**shared, name=f"{self.name}-{student.slug()}", student=student)
            for student in _largest_first(self.students)
        ]
        # Whichever run is asked, its teacher is the same.
        of_teacher = students[0] if students else RunSpec(**shared | {"distill": None}, gguf="f16")
        teacher = of_teacher.teacher_run()
        assert teacher is not None, "a student and a run in another format have a teacher's run"
        controls = []
        if self.control:
            assert self.distill is not None, "checked by the validator"
            plain = self.distill.control().model_dump()
            controls = [run.with_(name=f"{run.name}-labels", distill=plain) for run in students]
        formats: list[dict[str, Any]] = [
            *({"gguf": kind} for kind in self.gguf),
            *({"torch_bits": bits} for bits in self.torch_bits),
        ]
        converted = [run.in_format(**format) for format in formats for run in (teacher, *students)]
        return [teacher, *students, *controls, *converted]


def starter_sweep() -> SweepSpec:
    """The study in results/: the starter teacher and students of 24 to 6 layers.

    The recipe that did best in docs/log.md: layers by greedy search, four times the default budget,
    and a sampled vocabulary in bfloat16, which trains it in the time of half that budget.
    """
    students = tuple(
        DepthStudent(num_layers=n, choice="greedy", sample_blocks=4) for n in (24, 20, 15, 10, 6)
    )
    distill = DistillSpec(max_tokens=240_000, vocab_sample=4096, precision="bfloat16")
    return SweepSpec(name="starter", students=students, distill=distill)


def demo_sweep() -> SweepSpec:
    """Minutes on two cores: the starter teacher, two students, little data."""
    return SweepSpec(
        name="demo",
        students=(DepthStudent(num_layers=20), DepthStudent(num_layers=10)),
        distill=DistillSpec(max_tokens=10_240, heldout_blocks=8, eval_every_steps=5),
        capability=CapabilitySpec(limit=40),
        latency=LatencySpec(repeats=5, warmup=1),
    )


def read_run_or_sweep(path: Path) -> RunSpec | SweepSpec:
    """Read a YAML file that holds a run or, if it has `students`, a sweep.

    Raises:
        BadInput: No such file, or no valid spec in it.
    """
    document = yaml_files.read(path, "the spec")
    kind = SweepSpec if _has_key(document, "students") else RunSpec
    return kind.from_document(document, str(path))


def runs_in(path: Path) -> list[RunSpec]:
    """The runs of a YAML file: of a run, of a sweep, or the longest ones of a tournament.

    Raises:
        BadInput: No such file, or no valid spec in it.
    """
    if _has_key(yaml_files.read(path, "the spec"), "variants"):
        return TuneSpec.read(path).last_round()
    spec = read_run_or_sweep(path)
    return spec.runs() if isinstance(spec, SweepSpec) else [spec]


def _has_key(document: Document, key: str) -> bool:
    return isinstance(document.data, dict) and key in document.data


def _largest_first(students: tuple[Student, ...]) -> list[Student]:
    """By layers or by parameters if every student names them, else in the given order."""
    for size in ("num_layers", "num_parameters"):
        sizes = [getattr(student, size, None) for student in students]
        comparable = size == "num_parameters" or {s.kind for s in students} == {"depth"}
        if comparable and all(sizes):
            return sorted(students, key=lambda student: -getattr(student, size))
    return list(students)

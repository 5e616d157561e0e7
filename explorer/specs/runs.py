"""A run, a sweep of runs, the two studies that ship with us, and the file that holds one."""

import re
from pathlib import Path
from typing import Any, Literal, Self

import pydantic
import yaml
from pydantic import Field, PositiveInt

from explorer.specs.base import Bits, Spec, text_of
from explorer.specs.distill import DistillSpec
from explorer.specs.evaluation import CapabilitySpec, LatencySpec
from explorer.specs.students import DepthStudent, Student

NAME_PATTERN = r"^[a-z0-9][a-z0-9._-]{0,79}$"
"""What a run's name may be: it becomes a folder and part of a URL."""


GgufType = Literal["f16", "q8_0", "q4_k_m"]
"""Number formats of the GGUF files that we write; q4_k_m needs llama.cpp."""


ELSEWHERE = ("endpoint", "llamacpp")
"""Beginnings of the names of models that torch does not run: those can only be measured."""


class Conditions(Spec):
    """What a run and a sweep have in common."""

    teacher: str = Field("starter", min_length=1)
    """A model: `starter`, a hub id, a folder, gguf:FILE, run:RUN_ID, llamacpp:FILE (a GGUF in
    llama.cpp) or endpoint:URL#MODEL."""
    distill: DistillSpec | None = None
    """How students are taught; None leaves them as they were cut."""
    capability: CapabilitySpec | None = CapabilitySpec()
    """What models are asked; None skips the step."""
    latency: LatencySpec | None = LatencySpec()
    """How models are timed; None skips the step."""
    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    """auto, cpu, cuda or cuda:N."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """auto is float32 on a CPU and bfloat16 on CUDA."""
    threads: PositiveInt | None = None
    """CPU threads; None takes all cores."""
    trust_remote_code: bool = False
    """Whether code from the model's repository may run. Leave it off for models you do not know."""


class RunSpec(Conditions):
    """One run: make a student (or take a model as it is), teach, test and time it."""

    added = {"gguf": None, "torch_bits": None}

    name: str = Field("run", pattern=NAME_PATTERN)
    """The beginning of the run's id: small letters, digits, dot, dash, underscore."""
    student: Student | None = None
    """The student; None benchmarks the teacher as it is."""
    gguf: GgufType | None = None
    """Write the model as GGUF in this number format, then test and time that file in llama.cpp.
    None runs the model in torch."""
    torch_bits: Bits | None = None
    """Round the model's linear weights to 8 bits, or to 4 on CUDA, then test and time it in torch;
    needs torchao. None rounds nothing."""

    @pydantic.model_validator(mode="after")
    def _distilled_is_a_student(self) -> Self:
        if self.distill is not None and self.student is None:
            raise ValueError("distill needs a student; write student: {num_layers: N} or remove it")
        return self

    @pydantic.model_validator(mode="after")
    def _weights_are_here(self) -> Self:
        place, _, address = self.teacher.partition(":")
        if place not in ELSEWHERE:
            return self
        url = address.partition("#")[0]
        if place == "endpoint" and ("@" in url or "?" in url):
            # Specs are kept; this one is refused before anything writes it down.
            raise ValueError(
                "the endpoint's address carries a user, a password or a query; put the key "
                "into EXPLORER_ENDPOINT_KEY"
            )
        if not self.is_teacher and (place != "endpoint" or self.student is None):
            raise ValueError(
                f"a {place} teacher can be timed, but not cut or converted; remove student, gguf "
                "and torch_bits"
            )
        if self.student is not None:
            _check_served(self.student, self.distill)
        return self

    @pydantic.model_validator(mode="after")
    def _one_format(self) -> Self:
        if self.gguf and self.torch_bits:
            raise ValueError(
                f"gguf {self.gguf} and torch_bits {self.torch_bits} are two number formats; write "
                "a run of each"
            )
        return self

    @property
    def run_id(self) -> str:
        """Name and hash of the spec: the same spec is the same run."""
        return f"{self.name}-{self.digest()}"

    @property
    def is_teacher(self) -> bool:
        """Whether the teacher is benchmarked as it is: no student, no other number format."""
        return self.student is None and self.format is None

    @property
    def format(self) -> str | None:
        """The number format that the model is brought into before it is measured: `q8_0`, `int8`.

        None measures it as it is.
        """
        return self.gguf or (f"int{self.torch_bits}" if self.torch_bits else None)

    def in_format(self, **format: Any) -> "RunSpec":
        """The run of the same model in a number format, which its name ends in."""
        run = self.with_(**format)
        return run.with_(name=f"{run.name}-{run.format}")

    def recipe(self) -> str | None:
        """Hash of student, teaching and test; equal for runs that differ only by the seed.

        None for a run that teaches nothing.
        """
        return self._without_seed(self.distill)

    def arm(self) -> str | None:
        """The recipe of this run's control arm; its own where it is one."""
        return self._without_seed(self.distill.control() if self.distill else None)

    def _without_seed(self, distill: DistillSpec | None) -> str | None:
        if distill is None:
            return None
        return self.with_(
            name="recipe",
            distill=distill.with_(seed=0, checkpoint_every_s=60.0).model_dump(),
            latency=None,
        ).digest()

    def teacher_run(self) -> "RunSpec | None":
        """The run that benchmarks this student's teacher under the same conditions."""
        if self.is_teacher:
            return None
        name = re.sub(r"[^a-z0-9._-]+", "-", self.teacher.lower()).strip("-._") or "model"
        return self.with_(
            name=f"teacher-{name[-60:]}", student=None, distill=None, gguf=None, torch_bits=None
        )


class SweepSpec(Conditions):
    """Several students of one teacher under the same conditions, the teacher included."""

    added = {"control": False, "gguf": (), "torch_bits": ()}

    name: str = Field("sweep", pattern=NAME_PATTERN)
    """The beginning of every run's id."""
    students: tuple[Student, ...]
    """One run each; none where only the teacher is measured, as it is and in other formats."""
    control: bool = False
    """Whether each student is also taught by the text alone, to see what distillation adds."""
    gguf: tuple[GgufType, ...] = ()
    """Number formats in which the teacher and every student are tested and timed as well, as GGUF
    in llama.cpp."""
    torch_bits: tuple[Bits, ...] = ()
    """Bits to which the linear weights of the teacher and of every student are rounded, to test and
    time them so in torch as well: 8, and 4 on CUDA."""

    @pydantic.model_validator(mode="after")
    def _students_differ(self) -> Self:
        if not (self.students or self.gguf or self.torch_bits):
            raise ValueError(
                "students is empty; name at least one, or formats in gguf or torch_bits"
            )
        if len(set(self.students)) != len(self.students):
            raise ValueError("students holds the same student twice; remove one of them")
        return self

    @pydantic.model_validator(mode="after")
    def _weights_are_here(self) -> Self:
        place, colon, _ = self.teacher.partition(":")
        if not colon or place not in ELSEWHERE:
            return self
        if place != "endpoint" or self.gguf or self.torch_bits or not self.students:
            raise ValueError(
                f"a {place} teacher can be timed, but not cut or converted; write a run of it "
                "without students, gguf and torch_bits"
            )
        for student in self.students:
            _check_served(student, self.distill)
        return self

    @pydantic.model_validator(mode="after")
    def _control_has_something_to_control(self) -> Self:
        if self.control and (self.distill is None or not self.distill.uses_distributions):
            raise ValueError(
                "control compares with a teacher's distributions; write distill: {method: cached} "
                "or live, or leave control out"
            )
        return self

    def runs(self) -> list[RunSpec]:
        """The teacher's run, one a student (largest first where known), controls, other formats."""
        shared = {name: getattr(self, name) for name in Conditions.model_fields}
        specs = [
            RunSpec(**shared, name=f"{self.name}-{student.slug()}", student=student)
            for student in _largest_first(self.students)
        ]
        # Any student's or format's teacher is the teacher of all.
        one = specs[0] if specs else RunSpec(**shared | {"distill": None}, gguf="f16")
        teacher = one.teacher_run()
        assert teacher is not None, "a student and a run in another format have a teacher's run"
        controls = []
        if self.control:
            assert self.distill is not None, "checked when the sweep was made"
            plain = self.distill.control().model_dump()
            controls = [one.with_(name=f"{one.name}-labels", distill=plain) for one in specs]
        formats: list[dict[str, Any]] = [
            *({"gguf": kind} for kind in self.gguf),
            *({"torch_bits": bits} for bits in self.torch_bits),
        ]
        converted = [one.in_format(**format) for format in formats for one in (teacher, *specs)]
        return [teacher, *specs, *controls, *converted]


def _check_served(student: Student, distill: DistillSpec | None) -> None:
    """Refuse what needs the weights of a teacher that an endpoint holds.

    Raises:
        ValueError: What it is, and what to write instead.
    """
    if student.start is None:
        raise ValueError(
            "an endpoint gives no weights to cut, so the student needs a model of its own that has "
            "the teacher's tokenizer: write student.start_from (a hub id, a folder, run:RUN_ID), "
            "or kind: checkpoint and model"
        )
    if getattr(student, "choice", None) == "greedy":
        raise ValueError(
            "student.choice greedy compares with the teacher's weights, and an endpoint gives "
            "none; write block_influence or uniform"
        )
    if distill is None:
        return
    if distill.method == "live":
        raise ValueError(
            "distill.method live needs the teacher's weights; an endpoint's targets are cached: "
            "write method: cached"
        )
    if distill.teacher_bits:
        raise ValueError(
            "distill.teacher_bits rounds weights that are here; an endpoint's are what its server "
            "loaded: leave it out"
        )
    if distill.corpus == "teacher":
        raise ValueError(
            "distill.corpus teacher needs the teacher's weights; let the endpoint write a text "
            "before, and give its file (.txt, .jsonl or .parquet)"
        )
    if distill.temperature != 1 and distill.method != "text":
        raise ValueError(
            "distill.temperature must be 1 with an endpoint: it names the likeliest tokens at "
            f"temperature 1 and no others, so nothing else can be made of them; got "
            f"{distill.temperature:g}"
        )


def starter_sweep() -> SweepSpec:
    """The study in results/: the starter teacher and students of 24 to 6 layers.

    The recipe that did best in docs/log.md: layers by greedy search, four times the usual budget,
    and both shortcuts, which let it be taught in the time of half of it.
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


def read(path: Path) -> RunSpec | SweepSpec:
    """Read a YAML file that holds a run or, when it has `students`, a sweep.

    Raises:
        BadInput: No such file, or no valid spec in it.
    """
    text = text_of(path)
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError:
        data = None
    kind = SweepSpec if isinstance(data, dict) and "students" in data else RunSpec
    return kind.from_yaml(text, str(path))


def _largest_first(students: tuple[Student, ...]) -> list[Student]:
    """By layers or by parameters where every student names them, else in the given order."""
    for size in ("num_layers", "num_parameters"):
        sizes = [getattr(student, size, None) for student in students]
        comparable = size == "num_parameters" or {s.kind for s in students} == {"depth"}
        if comparable and all(sizes):
            return sorted(students, key=lambda student: -getattr(student, size))
    return list(students)

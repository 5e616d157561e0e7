"""One run: make a student or take a model as it is, train, evaluate and time it."""

import re
from typing import Any, Literal, Self

import pydantic
from pydantic import Field, PositiveInt

from explorer.specs.base import Added, Bits, Spec
from explorer.specs.distill import DistillSpec
from explorer.specs.evaluation import CapabilitySpec, LatencySpec
from explorer.specs.serve import FOLDER_ENGINES, GGUF_ENGINES, ServeSpec
from explorer.specs.students import Student

NAME_PATTERN = r"^[a-z0-9][a-z0-9._-]{0,79}$"
"""What a run's name may be: it becomes a folder and part of a URL."""

GgufType = Literal["f16", "q8_0", "q4_k_m"]
"""Number formats of the GGUF files that we write; q4_k_m needs llama.cpp."""

OUTSIDE_TORCH = ("endpoint", "llamacpp")
"""Before the colon in a model's name: torch does not run it, so it can only be measured."""


def outside_torch(model: str) -> str | None:
    """`endpoint` or `llamacpp` if the model's name begins so and a colon follows, else None."""
    prefix, colon, _ = model.partition(":")
    return prefix if colon and prefix in OUTSIDE_TORCH else None


class CommonSpec(Spec):
    """What a run and a sweep have in common."""

    teacher: str = Field("starter", min_length=1)
    """A model: `starter`, a hub id, a folder, gguf:FILE, run:RUN_ID, llamacpp:FILE (a GGUF in
    llama.cpp) or endpoint:URL#MODEL."""
    distill: DistillSpec | None = None
    """How students are trained. None leaves them as they were cut."""
    capability: CapabilitySpec | None = CapabilitySpec()
    """What models are evaluated on. None skips the evaluation."""
    latency: LatencySpec | None = LatencySpec()
    """How models are timed. None skips the timing."""
    device: str = Field("auto", pattern=r"^[a-z]+(:\d+)?$")
    """auto, cpu, or an accelerator as torch names it: cuda, cuda:1, mps, xpu. auto takes the
    accelerator with the most free memory, or the CPU where there is none."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Number format of the weights. auto is float32 on a CPU, and on an accelerator bfloat16 if it
    computes in it."""
    threads: PositiveInt | None = None
    """CPU threads of a process. None uses all cores, shared among the processes of the run."""
    num_devices: Added[PositiveInt] = 1
    """Accelerators of one machine that train and evaluate one run together, a process each. On a
    CPU, the number of processes."""
    trust_remote_code: bool = False
    """Run code from the model's repository, if you allowed it on this machine: explorer trust."""

    @pydantic.model_validator(mode="after")
    def _refuse_one_device_for_several(self) -> Self:
        kind, _, number = self.device.partition(":")
        if self.num_devices > 1 and number:
            raise ValueError(
                f"num_devices {self.num_devices} takes several devices, and device {self.device} "
                f"names one of them; write device: {kind}"
            )
        return self


class RunSpec(CommonSpec):
    """One run: make a student (or take a model as it is), train, evaluate and time it."""

    name: str = Field("run", pattern=NAME_PATTERN)
    """The beginning of the run's id: small letters, digits, dot, dash, underscore."""
    student: Student | None = None
    """The student. None measures the teacher as it is."""
    gguf: Added[GgufType | None] = None
    """Write the model as GGUF in this number format, then evaluate and time that file in llama.cpp.
    None runs the model in torch."""
    torch_bits: Added[Bits | None] = None
    """Quantise the model's linear weights to 8 bits, or to 4 on NVIDIA GPUs, then evaluate and time
    it in torch. Requires torchao. None quantises nothing."""

    @pydantic.model_validator(mode="after")
    def _refuse_training_without_a_student(self) -> Self:
        if self.distill is not None and self.student is None:
            raise ValueError("distill needs a student; write student: {num_layers: N} or remove it")
        return self

    @pydantic.model_validator(mode="after")
    def _refuse_what_needs_the_teachers_weights(self) -> Self:
        if outside_torch(self.teacher):
            students = [] if self.student is None else [self.student]
            # A student has weights here, which can be converted.
            converts = self.format is not None and not students
            refuse_without_weights(self.teacher, students, self.distill, converts=converts)
        return self

    @pydantic.model_validator(mode="after")
    def _refuse_two_formats(self) -> Self:
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
        """Whether the run measures the teacher as it is: no student, no other number format."""
        return self.student is None and self.format is None

    @property
    def format(self) -> str | None:
        """The number format that the model is converted to first, as in `q8_0` or `int8`.

        None measures the model as it is.
        """
        return self.gguf or (f"int{self.torch_bits}" if self.torch_bits else None)

    @property
    def reads_gguf(self) -> bool:
        """Whether the model is measured as a GGUF file in llama.cpp."""
        is_file = self.student is None and outside_torch(self.teacher) == "llamacpp"
        return self.gguf is not None or is_file

    @property
    def server(self) -> ServeSpec | None:
        """The server that times the model, if the spec names one that can read it; else None."""
        serve = self.latency.serve if self.latency else None
        if serve is None or why_not_served(self) is not None:
            return None
        return serve

    def in_format(self, **format: Any) -> "RunSpec":
        """The run of the same model in a number format, which is appended to its name."""
        run = self.with_(**format)
        return run.with_(name=f"{run.name}-{run.format}")

    def recipe(self) -> str | None:
        """Hash of student, training and evaluation: equal for runs that differ only by the seed.

        None if the run trains nothing.
        """
        return self._hash_without_seed(self.distill)

    def arm(self) -> str | None:
        """The recipe of this run's control arm. A control arm's own recipe."""
        return self._hash_without_seed(self.distill.control() if self.distill else None)

    def _hash_without_seed(self, distill: DistillSpec | None) -> str | None:
        if distill is None:
            return None
        others = ("seed", "checkpoint_every_s", "prefetch")
        irrelevant = {name: distill.default(name) for name in others}
        plain = distill.with_(**irrelevant).model_dump()
        return self.with_(name="recipe", distill=plain, latency=None).digest()

    def teacher_run(self) -> "RunSpec | None":
        """The run that measures this student's teacher in the same way; None for a teacher."""
        if self.is_teacher:
            return None
        name = re.sub(r"[^a-z0-9._-]+", "-", self.teacher.lower()).strip("-._") or "model"
        # One process gives the same results, so students on any number of devices share the run.
        alone = {"student": None, "distill": None, "gguf": None, "torch_bits": None}
        return self.with_(name=f"teacher-{name[-60:]}", **alone, num_devices=1)


def why_not_served(run: RunSpec) -> str | None:
    """Why `latency.serve` does not apply to a run's model; None if it does.

    A sweep has one `serve` for runs in several formats, so the others are timed without it.
    """
    serve = run.latency.serve if run.latency else None
    if serve is None:
        return "the spec has no latency.serve"
    if run.student is None and outside_torch(run.teacher) == "endpoint":
        return "an endpoint has a server already"
    if run.torch_bits:
        return "torchao quantises weights in memory, and a server reads files"
    if run.student is None and run.gguf is None and run.teacher.startswith("gguf:"):
        return "torch reads this GGUF file; write llamacpp: instead of gguf: to serve it"
    engines = GGUF_ENGINES if run.reads_gguf else FOLDER_ENGINES
    if serve.engine == "auto" or serve.engine in engines:
        return None
    kind = "a GGUF file" if run.reads_gguf else "not a GGUF file"
    reads = "GGUF files" if serve.engine in GGUF_ENGINES else "safetensors"
    return f"{serve.engine} serves {reads}, and this model is {kind}"


def refuse_without_weights(
    teacher: str, students: list[Student], distill: DistillSpec | None, *, converts: bool
) -> None:
    """Refuse what needs the weights of a teacher that torch does not run.

    Args:
        teacher: A model of `outside_torch`.
        students: The students that it would teach.
        distill: How.
        converts: Whether the teacher would be converted to another number format.

    Raises:
        ValueError: What needs the weights, and what to write instead.
    """
    prefix, _, address = teacher.partition(":")
    url = address.partition("#")[0]
    if prefix == "endpoint" and ("@" in url or "?" in url):
        # Specs are stored, so this one is refused before anything writes it down.
        raise ValueError(
            "the endpoint's address carries a user, a password or a query; put the key "
            "into EXPLORER_ENDPOINT_KEY"
        )
    if converts or (students and prefix != "endpoint"):
        raise ValueError(
            f"a {prefix} teacher can be timed, but not cut or converted; remove students, gguf "
            "and torch_bits"
        )
    for student in students:
        _refuse_without_local_start(student)
    if students and distill is not None:
        _refuse_training_without_weights(distill)


def _refuse_without_local_start(student: Student) -> None:
    if student.start is None:
        raise ValueError(
            "an endpoint gives no weights to cut, so the student needs a model of its own with "
            "the teacher's tokenizer: write student.start_from (a hub id, a folder, run:RUN_ID), "
            "or kind: checkpoint and model"
        )
    if getattr(student, "choice", None) == "greedy":
        raise ValueError(
            "student.choice greedy compares with the teacher's weights, and an endpoint gives "
            "none; write block_influence or uniform"
        )


def _refuse_training_without_weights(distill: DistillSpec) -> None:
    if distill.method == "live":
        raise ValueError(
            "distill.method live needs the teacher's weights, and an endpoint gives none; write "
            "method: cached"
        )
    if distill.teacher_bits:
        raise ValueError(
            "distill.teacher_bits quantises weights on this machine, and an endpoint's are "
            "elsewhere; remove it"
        )
    if distill.corpus == "teacher":
        raise ValueError(
            "distill.corpus teacher needs the teacher's weights; let the endpoint write the text "
            "first, and name its file (.txt, .jsonl or .parquet)"
        )
    if distill.temperature != 1 and distill.method != "text":
        raise ValueError(
            "distill.temperature must be 1 with an endpoint, which returns only its most likely "
            f"tokens at temperature 1; got {distill.temperature:g}"
        )

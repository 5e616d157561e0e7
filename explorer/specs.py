"""What is asked: a run, or a sweep of runs, as one frozen value that YAML holds.

A spec decides its run completely, so the run's id carries the spec's hash: the same
spec is the same run, and running it again continues or does nothing.

    explorer schema            # the JSON Schema
    explorer run spec.yaml
"""

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import pydantic
import yaml
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveFloat, PositiveInt

from explorer.errors import BadInput

NAME_PATTERN = r"^[a-z0-9][a-z0-9._-]{0,79}$"
"""What a run's name may be: it becomes a folder and part of a URL."""


class Spec(BaseModel):
    """The base of every spec: frozen, and a key it does not know is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    added: ClassVar[Mapping[str, Any]] = {}
    """Fields younger than the first records, each with the value that changes nothing: a spec
    that leaves them so is the same run as before they came."""

    @classmethod
    def parse(cls, data: Any, source: str = "the spec") -> Self:
        """Build a spec from plain data; say in words what is wrong with it.

        Raises:
            BadInput: A key is unknown or a value impossible. The message names every one.
        """
        try:
            return cls.model_validate(data)
        except pydantic.ValidationError as error:
            raise BadInput(f"{source}: " + " ".join(_in_words(error, cls))) from error

    @classmethod
    def from_yaml(cls, text: str, source: str = "the spec") -> Self:
        """Read a spec from YAML text.

        Raises:
            BadInput: The text is no YAML mapping, or no valid spec.
        """
        try:
            data = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise BadInput(f"{source} is not YAML: {str(error).splitlines()[0]}") from error
        if not isinstance(data, dict):
            raise BadInput(f"{source} should be a mapping of keys, got {type(data).__name__}.")
        return cls.parse(data, source)

    def to_yaml(self) -> str:
        """The whole spec, defaults included, so that a later default changes nothing."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)

    def with_(self, **changes: Any) -> Self:
        """A copy with these fields changed, validated again."""
        return type(self).parse({**self.model_dump(), **changes})

    def decisive(self) -> dict[str, Any]:
        """Every field that makes this spec another run than one without it."""
        values = self.model_dump(mode="json")
        for name in type(self).model_fields:
            value = getattr(self, name)
            if name in self.added and value == self.added[name]:
                del values[name]
            elif isinstance(value, Spec):
                values[name] = value.decisive()
        return values

    def digest(self) -> str:
        """Eight hex digits that differ when any field does."""
        text = json.dumps(self.decisive(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:8]


class DepthStudent(Spec):
    """The teacher with fewer layers; everything else is kept."""

    kind: Literal["depth"] = "depth"
    num_layers: PositiveInt
    """Layers kept of the teacher's."""
    choice: Literal["block_influence", "uniform"] = "block_influence"
    """Which layers stay: the ones that change the hidden state most, or evenly spaced ones."""
    sample_blocks: PositiveInt = 16
    """Blocks of the corpus on which the importance is measured."""


class DistillSpec(Spec):
    """Everything that decides a distillation. Same spec, same losses."""

    corpus: str = "starter"
    """`starter` (ships with us), or a .txt, .jsonl or .parquet file."""
    max_tokens: PositiveInt = 60_000
    """Budget, in scored tokens; a corpus that is shorter is read again."""
    block_tokens: int = Field(256, ge=8, le=131_072)
    """Tokens of a packed block."""
    blocks_per_step: PositiveInt = 4
    """Blocks of one optimiser step."""
    heldout_blocks: PositiveInt = 24
    """Blocks kept aside to measure the KL to the teacher; never trained on."""
    top_k: PositiveInt = 32
    """Teacher log-probabilities kept per position; the rest is one tail bucket."""
    kd_weight: float = Field(1.0, ge=0, le=1)
    """Share of the KD term; cross-entropy on the labels gets the rest."""
    temperature: PositiveFloat = 1.0
    """Softmax temperature of both models in the KD term."""
    learning_rate: PositiveFloat = 6e-4
    """Peak rate of AdamW, after the warm-up and before the cosine decay."""
    warmup_fraction: float = Field(0.05, ge=0, lt=1)
    """Share of the steps in which the rate rises."""
    weight_decay: float = Field(0.01, ge=0)
    """Decoupled weight decay of AdamW."""
    train_embeddings: bool = False
    """Whether the shared embedding is trained; frozen is faster and forgets less."""
    eval_every_steps: PositiveInt = 25
    """Steps between two measurements on the held-out blocks."""
    checkpoint_every_s: PositiveFloat = 60.0
    """Seconds between two checkpoints."""
    seed: NonNegativeInt = 0
    """Order of the blocks."""


class CapabilitySpec(Spec):
    """What lm-evaluation-harness is asked."""

    tasks: tuple[str, ...] = Field(("starter",), min_length=1)
    """Names of lm-eval tasks or groups; `starter` is the suite that ships with us."""
    include_path: str | None = None
    """A folder with more lm-eval tasks."""
    limit: PositiveInt | None = None
    """Documents per task: a seeded sample, the same for every model. None takes all."""
    num_fewshot: NonNegativeInt | None = None
    """Examples before each question; None leaves it to the task."""
    apply_chat_template: bool = False
    """Whether prompts go through the model's chat template."""
    batch_size: PositiveInt = 16
    """Requests in one forward pass."""
    seed: NonNegativeInt = 0
    """Which documents a limit picks."""


SHAPES = {"chat": (512, 128), "summarise": (2048, 256), "autocomplete": (256, 32)}
"""Workloads by name: tokens of the prompt and of the answer."""


class LatencySpec(Spec):
    """How a model is timed: alone, student and teacher in turns."""

    added = {
        "workload": None, "runtime": "eager", "concurrency": (), "request_rates": (),
        "requests": 30, "timeout_s": 60.0,
    }  # fmt: skip

    prompt_tokens: PositiveInt = 128
    """Length of the prompt."""
    output_tokens: int = Field(64, ge=2)
    """Length of the answer; always this long."""
    batch_size: PositiveInt = 1
    """Sequences answered together."""
    warmup: NonNegativeInt = 2
    """Turns that are not counted."""
    repeats: int = Field(10, ge=2)
    """Counted turns of each model."""
    seed: NonNegativeInt = 0
    """The prompt's tokens."""
    workload: Literal["chat", "summarise", "autocomplete"] | None = None
    """A named shape that sets both lengths: chat 512 + 128 tokens, summarise 2048 + 256,
    autocomplete 256 + 32. None takes the lengths as they are written."""
    runtime: Literal["eager", "compiled"] = "eager"
    """How transformers runs a model: as it is, or compiled with a static cache. GGUF files run in
    llama.cpp and endpoints run themselves, whatever is written here."""
    concurrency: tuple[PositiveInt, ...] = ()
    """Levels of a closed loop, ascending: sequences in one batch on this machine's device, clients
    that each wait for their answer at an endpoint. A sweep ends early where the device is full."""
    request_rates: tuple[PositiveFloat, ...] = ()
    """Levels of an open loop, in requests a second that arrive at random (Poisson), ascending.
    Endpoints only."""
    requests: int = Field(30, ge=3)
    """Counted requests at each level of an endpoint; at least three a client are made."""
    timeout_s: PositiveFloat = 60.0
    """An endpoint that is silent for so long has failed the request."""

    @pydantic.model_validator(mode="before")
    @classmethod
    def _lengths_of_the_workload(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("workload") in SHAPES:
            prompt_tokens, output_tokens = SHAPES[data["workload"]]
            return {"prompt_tokens": prompt_tokens, "output_tokens": output_tokens, **data}
        return data

    @pydantic.model_validator(mode="after")
    def _fits_together(self) -> Self:
        lengths = (self.prompt_tokens, self.output_tokens)
        if self.workload is not None and lengths != SHAPES[self.workload]:
            wanted = " + ".join(str(length) for length in SHAPES[self.workload])
            raise ValueError(
                f"workload {self.workload} has {wanted} tokens, got {lengths[0]} + {lengths[1]}; "
                "leave prompt_tokens and output_tokens out, or leave workload out"
            )
        for name in ("concurrency", "request_rates"):
            levels = getattr(self, name)
            if list(levels) != sorted(set(levels)):
                raise ValueError(f"{name} should rise from level to level, got {list(levels)}")
        return self


GgufType = Literal["f16", "q8_0", "q4_k_m"]
"""Number formats of the GGUF files that we write; q4_k_m needs llama.cpp."""


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

    added = {"gguf": None}

    name: str = Field("run", pattern=NAME_PATTERN)
    """The beginning of the run's id: small letters, digits, dot, dash, underscore."""
    student: DepthStudent | None = None
    """The student; None benchmarks the teacher as it is."""
    gguf: GgufType | None = None
    """Write the model as GGUF in this number format, then test and time that file in llama.cpp.
    None runs the model in torch."""

    @pydantic.model_validator(mode="after")
    def _distilled_is_a_student(self) -> Self:
        if self.distill is not None and self.student is None:
            raise ValueError("distill needs a student; write student: {num_layers: N} or remove it")
        return self

    @pydantic.model_validator(mode="after")
    def _weights_are_here(self) -> Self:
        place, _, address = self.teacher.partition(":")
        if place not in {"endpoint", "llamacpp"}:
            return self
        if not self.is_teacher:
            raise ValueError(
                f"a {place} teacher can be timed, but not cut or converted; remove student and gguf"
            )
        if place == "endpoint":
            if "@" in address.partition("#")[0] or "?" in address.partition("#")[0]:
                # Specs are kept; this one is refused before anything writes it down.
                raise ValueError(
                    "the endpoint's address carries a user, a password or a query; put the key "
                    "into EXPLORER_ENDPOINT_KEY"
                )
            if self.capability is not None:
                raise ValueError("an endpoint is timed, not tested; write capability: null")
        return self

    @property
    def run_id(self) -> str:
        """Name and hash of the spec: the same spec is the same run."""
        return f"{self.name}-{self.digest()}"

    @property
    def is_teacher(self) -> bool:
        """Whether the teacher is benchmarked as it is: no student, no other number format."""
        return self.student is None and self.gguf is None

    def teacher_run(self) -> "RunSpec | None":
        """The run that benchmarks this student's teacher under the same conditions."""
        if self.is_teacher:
            return None
        name = re.sub(r"[^a-z0-9._-]+", "-", self.teacher.lower()).strip("-._") or "model"
        return self.with_(name=f"teacher-{name[-60:]}", student=None, distill=None, gguf=None)


class SweepSpec(Conditions):
    """Several students of one teacher under the same conditions, the teacher included."""

    name: str = Field("sweep", pattern=NAME_PATTERN)
    """The beginning of every run's id."""
    students: tuple[DepthStudent, ...] = Field(min_length=1)
    """One run each."""
    gguf: tuple[GgufType, ...] = ()
    """Number formats in which the teacher and every student are tested and timed as well, as GGUF
    in llama.cpp."""

    @pydantic.model_validator(mode="after")
    def _students_differ(self) -> Self:
        if len(set(self.students)) != len(self.students):
            raise ValueError("students holds the same student twice; remove one of them")
        return self

    def runs(self) -> list[RunSpec]:
        """The teacher's run, one a student, largest first, then all of them again as GGUF."""
        shared = {name: getattr(self, name) for name in Conditions.model_fields}
        ordered = sorted(self.students, key=lambda student: -student.num_layers)
        specs = [
            RunSpec(**shared, name=f"{self.name}-{student.num_layers}l", student=student)
            for student in ordered
        ]
        teacher = specs[0].teacher_run()
        assert teacher is not None, "a run with a student has a teacher's run"
        plain = [teacher, *specs]
        converted = [
            one.with_(name=f"{one.name}-{kind}", gguf=kind) for kind in self.gguf for one in plain
        ]
        return [*plain, *converted]


def starter_sweep() -> SweepSpec:
    """The study in results/: the starter teacher and students of 24 to 6 layers."""
    students = tuple(DepthStudent(num_layers=n) for n in (24, 20, 15, 10, 6))
    return SweepSpec(name="starter", students=students, distill=DistillSpec())


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
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"Could not read the spec {path}: {error}") from error
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError:
        data = None
    kind = SweepSpec if isinstance(data, dict) and "students" in data else RunSpec
    return kind.from_yaml(text, str(path))


def _in_words(error: pydantic.ValidationError, cls: type[BaseModel]) -> list[str]:
    """One sentence an error: the key, what it should be, what came."""
    sentences = []
    for problem in error.errors():
        loc = problem["loc"]
        key = ".".join(str(part) for part in loc)
        shown = repr(problem["input"])
        got = f", got {shown}" if len(shown) < 80 else ""
        said = problem["msg"].removeprefix("Value error, ").removeprefix("Input ")
        if problem["type"] == "extra_forbidden":
            known = ", ".join(_spec_at(cls, loc[:-1]).model_fields)
            sentences.append(f"unknown key {key}; known here: {known}.")
        elif problem["type"] == "missing":
            sentences.append(f"{key} is missing; write a value for it.")
        elif problem["type"] == "string_pattern_mismatch":
            field = _spec_at(cls, loc[:-1]).model_fields[str(loc[-1])]
            meaning = (field.description or said).rstrip(".")
            sentences.append(f"{key} is not possible{got}. It is: {meaning}.")
        elif key:
            sentences.append(f"{key} {said}{got}.")
        else:
            sentences.append(f"{said}.")
    return sentences


def _spec_at(cls: type[BaseModel], loc: tuple[Any, ...]) -> type[BaseModel]:
    """The spec that lies at this place."""
    here = cls
    for part in loc:
        if isinstance(part, int):
            continue
        annotation = here.model_fields[part].annotation
        options = [annotation, *getattr(annotation, "__args__", ())]
        found = [o for o in options if isinstance(o, type) and issubclass(o, BaseModel)]
        if not found:
            break
        here = found[0]
    return here

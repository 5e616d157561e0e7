"""What is asked: a run, or a sweep of runs, as one frozen value that YAML holds.

A spec decides its run completely, so the run's id carries the spec's hash: the same
spec is the same run, and running it again continues or does nothing.

    explorer schema            # the JSON Schema
    explorer run spec.yaml
"""

import abc
import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, get_args

import pydantic
import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Tag,
)

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


ONE_STEP = 0.5
"""The largest share of the parameters that one cut should take; more goes better in two."""


class StudentSpec(Spec):
    """What all kinds of students have in common: a kind, a size, a name for people."""

    kind: str

    @property
    def start(self) -> str | None:
        """The model that becomes the student; None is the teacher."""
        return None

    @abc.abstractmethod
    def slug(self) -> str:
        """Kind and size in a run's name, without a dash: `10l`, `60m_wide`."""

    @abc.abstractmethod
    def label(self, num_parameters: int | None = None) -> str:
        """Kind and size for people: `10 layers`, `60M wide`; the measured size where known."""


class DepthStudent(StudentSpec):
    """The teacher with fewer layers; everything else is kept."""

    added = {"start_from": None}

    kind: Literal["depth"] = "depth"
    num_layers: PositiveInt
    """Layers kept of the teacher's."""
    choice: Literal["block_influence", "uniform", "greedy"] = "block_influence"
    """Which layers stay: the ones that change the hidden state most, evenly spaced ones, or what
    is left after the layer whose loss raises the KL to the teacher least was dropped, again and
    again (slow)."""
    sample_blocks: PositiveInt = 16
    """Blocks of the corpus on which the importance is measured."""
    start_from: str | None = None
    """A smaller model to cut from, as in run:RUN_ID: the second of two steps. None is the
    teacher."""

    @property
    def start(self) -> str | None:
        """The model that is cut; None is the teacher."""
        return self.start_from

    def slug(self) -> str:
        """`10l`."""
        return f"{self.num_layers}l"

    def label(self, num_parameters: int | None = None) -> str:
        """`10 layers`."""
        return f"{self.num_layers} layers"


class Sizes(Spec):
    """Widths of a student; what is left out stays as the teacher has it."""

    hidden_size: PositiveInt | None = None
    """Width of the hidden state."""
    intermediate_size: PositiveInt | None = None
    """Channels of the MLP."""
    num_attention_heads: PositiveInt | None = None
    """Query heads."""
    num_key_value_heads: PositiveInt | None = None
    """Key-value heads of grouped-query attention; None keeps whole groups where that is possible,
    else as many query heads in every group."""

    def asked(self) -> dict[str, int]:
        """The sizes that are named."""
        named = {name: getattr(self, name) for name in Sizes.model_fields}
        return {name: size for name, size in named.items() if size is not None}

    def _short(self) -> str:
        letters = {"hidden_size": "h", "intermediate_size": "f",
                   "num_attention_heads": "a", "num_key_value_heads": "k"}  # fmt: skip
        return "".join(f"{letters[name]}{size}" for name, size in self.asked().items())


class WidthStudent(StudentSpec, Sizes):
    """The teacher with all its layers, each narrower: by sizes, or to a number of parameters."""

    kind: Literal["width"]
    num_parameters: PositiveInt | None = None
    """The size to come close to in place of widths: hidden size and MLP channels are chosen."""
    min_width: float = Field(0.5, gt=0, le=1)
    """With num_parameters: the least share that stays of the hidden size and of the channels."""
    sample_blocks: PositiveInt = 16
    """Blocks of the corpus on which the importance is measured."""
    start_from: str | None = None
    """A smaller model to cut from, as in run:RUN_ID: the second of two steps. None is the
    teacher."""

    @pydantic.model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.num_parameters is None) == (not self.asked()):
            raise ValueError(
                "takes either num_parameters or widths "
                f"({', '.join(Sizes.model_fields)}); write one of the two"
            )
        return self

    @property
    def start(self) -> str | None:
        """The model that is cut; None is the teacher."""
        return self.start_from

    def slug(self) -> str:
        """`60m_wide`, or the widths: `h384f960_wide`."""
        size = rounded(self.num_parameters).lower() if self.num_parameters else self._short()
        return f"{size}_wide"

    def label(self, num_parameters: int | None = None) -> str:
        """`60M wide`."""
        known = self.num_parameters or num_parameters
        return f"{rounded(known) if known else self._short()} wide"


class BothStudent(StudentSpec):
    """The teacher with fewer and narrower layers, to a number of parameters."""

    kind: Literal["both"]
    num_parameters: PositiveInt
    """The size to come close to; layers, hidden size and MLP channels keep about equal shares."""
    min_depth: float = Field(0.5, gt=0, le=1)
    """The least share of the layers that stays."""
    min_width: float = Field(0.5, gt=0, le=1)
    """The least share that stays of the hidden size and of the MLP channels."""
    choice: Literal["block_influence", "uniform", "greedy"] = "block_influence"
    """Which layers stay; as for a depth student."""
    sample_blocks: PositiveInt = 16
    """Blocks of the corpus on which the importance is measured."""
    start_from: str | None = None
    """A smaller model to cut from, as in run:RUN_ID: the second of two steps. None is the
    teacher."""

    @property
    def start(self) -> str | None:
        """The model that is cut; None is the teacher."""
        return self.start_from

    def slug(self) -> str:
        """`60m`."""
        return rounded(self.num_parameters).lower()

    def label(self, num_parameters: int | None = None) -> str:
        """`60M both ways`."""
        return f"{rounded(self.num_parameters)} both ways"


class CheckpointStudent(StudentSpec):
    """A smaller model that exists already; nothing is cut."""

    kind: Literal["checkpoint"]
    model: str = Field(min_length=1)
    """The model: a hub id, a folder, gguf:FILE or run:RUN_ID, with the teacher's tokenizer."""

    @property
    def start(self) -> str | None:
        """The model itself."""
        return self.model

    def slug(self) -> str:
        """The end of the model's name, as in `smollm2_360m`."""
        return re.sub(r"[^a-z0-9._]+", "_", self._end().lower()).strip("._")[:40] or "model"

    def label(self, num_parameters: int | None = None) -> str:
        """The end of the model's name, as in `SmolLM2-360M`."""
        return self._end()

    def _end(self) -> str:
        return self.model.rstrip("/").rpartition("/")[2].removeprefix("run:")


class FreshStudent(StudentSpec, Sizes):
    """The teacher's architecture at other sizes, with random weights."""

    kind: Literal["fresh"]
    num_layers: PositiveInt | None = None
    """Layers; None is as many as the teacher has."""
    num_parameters: PositiveInt | None = None
    """The size to come close to in place of sizes, shared out as for `both`."""
    seed: NonNegativeInt = 0
    """Start of the random weights."""

    @pydantic.model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.num_parameters is not None and (self.asked() or self.num_layers is not None):
            raise ValueError("takes either num_parameters or sizes; write one of the two")
        return self

    def slug(self) -> str:
        """`60m_fresh`, or the sizes: `10lh384_fresh`."""
        layers = f"{self.num_layers}l" if self.num_layers else ""
        sizes = rounded(self.num_parameters).lower() if self.num_parameters else self._short()
        return f"{layers}{sizes}_fresh".removeprefix("_")

    def label(self, num_parameters: int | None = None) -> str:
        """`60M fresh`."""
        known = self.num_parameters or num_parameters
        return f"{rounded(known)} fresh" if known else "fresh"


def rounded(num_parameters: int) -> str:
    """A number of parameters in three digits at most: `60M`, `1.5B`, `61.4k`."""
    for factor, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if num_parameters >= 0.9995 * factor:
            return f"{float(f'{num_parameters / factor:.3g}'):g}{unit}"
    return str(num_parameters)


def _kind_of(student: Any) -> str:
    """A student without a kind is a depth student, as all were before there were kinds."""
    found = student.get("kind", "depth") if isinstance(student, Mapping) else None
    return str(found or getattr(student, "kind", "depth"))


Student = Annotated[
    Annotated[DepthStudent, Tag("depth")]
    | Annotated[WidthStudent, Tag("width")]
    | Annotated[BothStudent, Tag("both")]
    | Annotated[CheckpointStudent, Tag("checkpoint")]
    | Annotated[FreshStudent, Tag("fresh")],
    Discriminator(_kind_of),
]
"""A student of any kind; `kind` says which."""


class DistillSpec(Spec):
    """Everything that decides a distillation. Same spec, same losses."""

    added = {
        "loss": "forward_kl",
        "beta": 0.5,
        "skew": 0.1,
        "hidden_weight": 0.0,
        "hidden_loss": "mse",
        "method": "cached",
        "on_policy_fraction": 0.0,
        "prompt_tokens": 32,
        "micro_blocks": None,
        "gradient_checkpointing": False,
    }

    method: Literal["cached", "live", "text", "labels"] = "cached"
    """How the teacher teaches: by distributions that are cached once for all students, by
    distributions computed live, by text that it wrote, or not at all (the control arm)."""
    corpus: str = "starter"
    """`starter` (ships with us), `teacher` (it writes the text first), or a .txt, .jsonl or
    .parquet file."""
    max_tokens: PositiveInt = 60_000
    """Budget, in scored tokens; a corpus that is shorter is read again."""
    block_tokens: int = Field(256, ge=8, le=131_072)
    """Tokens of a packed block."""
    blocks_per_step: PositiveInt = 4
    """Blocks of one optimiser step."""
    micro_blocks: PositiveInt | None = None
    """Blocks of one forward and backward pass, to save memory; None takes a step's at once."""
    gradient_checkpointing: bool = False
    """Whether layers are computed again on the way back, slower and with less memory."""
    heldout_blocks: PositiveInt = 24
    """Blocks kept aside to measure the KL to the teacher; never trained on."""
    top_k: PositiveInt = 32
    """Teacher log-probabilities kept per position; the rest is one tail bucket."""
    kd_weight: float = Field(1.0, ge=0, le=1)
    """Share of the KD term; cross-entropy on the labels gets the rest."""
    temperature: PositiveFloat = 1.0
    """Softmax temperature of both models in the KD term."""
    loss: Literal[
        "forward_kl",
        "reverse_kl",
        "jsd",
        "skew_forward_kl",
        "skew_reverse_kl",
        "adaptive_kl",
        "total_variation",
    ] = "forward_kl"
    """The KD term: how the student's distribution is compared with the teacher's."""
    beta: float = Field(0.5, ge=0, le=1)
    """Of `jsd`: 0 is the forward KL, 1 the reverse KL."""
    skew: float = Field(0.1, ge=0, lt=1)
    """Of the skewed KLs: the share of the first distribution that is mixed into the second."""
    hidden_weight: float = Field(0.0, ge=0)
    """Weight of the hidden-state term, added to the others; needs a live teacher."""
    hidden_loss: Literal["mse", "cosine"] = "mse"
    """The hidden-state term: relative squared difference, or 1 - cosine."""
    on_policy_fraction: float = Field(0.0, ge=0, le=1)
    """Share of the steps whose text the student writes and the teacher scores; needs a live
    teacher."""
    prompt_tokens: PositiveInt = 32
    """Tokens of each block that the student's own text begins with."""
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

    @pydantic.model_validator(mode="after")
    def _terms_have_their_teacher(self) -> Self:
        for name, value in (
            ("on_policy_fraction", self.on_policy_fraction),
            ("hidden_weight", self.hidden_weight),
        ):
            if value > 0 and self.method != "live":
                raise ValueError(f"{name} {value:g} needs a live teacher; write method: live")
        if self.on_policy_fraction > 0 and self.kd_weight == 0:
            raise ValueError("on_policy_fraction needs kd_weight above 0: the teacher scores it")
        if self.on_policy_fraction > 0 and self.prompt_tokens >= self.block_tokens:
            raise ValueError(
                f"prompt_tokens {self.prompt_tokens} leaves nothing of block_tokens "
                f"{self.block_tokens} for the student to write; lower it"
            )
        return self

    @property
    def uses_distributions(self) -> bool:
        """Whether the student learns from the teacher's distributions, not from text alone."""
        return self.method in ("cached", "live")

    def control(self) -> "DistillSpec":
        """The same corpus, budget, steps and seed without the teacher: all that it adds is gone."""
        teachers = (
            "kd_weight", "temperature", "loss", "beta", "skew", "hidden_weight", "hidden_loss",
            "on_policy_fraction", "prompt_tokens",
        )  # fmt: skip
        plain = {name: type(self).model_fields[name].default for name in teachers}
        return self.with_(method="labels", **plain)


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


class LatencySpec(Spec):
    """How a model is timed: alone, student and teacher in turns."""

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


class Conditions(Spec):
    """What a run and a sweep have in common."""

    teacher: str = Field("starter", min_length=1)
    """A model: `starter`, a hub id, a folder, gguf:FILE or run:RUN_ID."""
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

    name: str = Field("run", pattern=NAME_PATTERN)
    """The beginning of the run's id: small letters, digits, dot, dash, underscore."""
    student: Student | None = None
    """The student; None benchmarks the teacher as it is."""

    @pydantic.model_validator(mode="after")
    def _distilled_is_a_student(self) -> Self:
        if self.distill is not None and self.student is None:
            raise ValueError("distill needs a student; write student: {num_layers: N} or remove it")
        return self

    @property
    def run_id(self) -> str:
        """Name and hash of the spec: the same spec is the same run."""
        return f"{self.name}-{self.digest()}"

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
        if self.student is None:
            return None
        name = re.sub(r"[^a-z0-9._-]+", "-", self.teacher.lower()).strip("-._") or "model"
        return self.with_(name=f"teacher-{name[-60:]}", student=None, distill=None)


class SweepSpec(Conditions):
    """Several students of one teacher under the same conditions, the teacher included."""

    added = {"control": False}

    name: str = Field("sweep", pattern=NAME_PATTERN)
    """The beginning of every run's id."""
    students: tuple[Student, ...] = Field(min_length=1)
    """One run each."""
    control: bool = False
    """Whether each student is also taught by the text alone, to see what distillation adds."""

    @pydantic.model_validator(mode="after")
    def _students_differ(self) -> Self:
        if len(set(self.students)) != len(self.students):
            raise ValueError("students holds the same student twice; remove one of them")
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
        """The teacher's run, one a student (largest first where known), then the control arm's."""
        shared = {name: getattr(self, name) for name in Conditions.model_fields}
        specs = [
            RunSpec(**shared, name=f"{self.name}-{student.slug()}", student=student)
            for student in _largest_first(self.students)
        ]
        teacher = specs[0].teacher_run()
        assert teacher is not None, "a run with a student has a teacher's run"
        controls = []
        if self.control:
            assert self.distill is not None, "checked when the sweep was made"
            plain = self.distill.control().model_dump()
            controls = [one.with_(name=f"{one.name}-labels", distill=plain) for one in specs]
        return [teacher, *specs, *controls]


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


def _largest_first(students: tuple[Student, ...]) -> list[Student]:
    """By layers or by parameters where every student names them, else in the given order."""
    for size in ("num_layers", "num_parameters"):
        sizes = [getattr(student, size, None) for student in students]
        comparable = size == "num_parameters" or {s.kind for s in students} == {"depth"}
        if comparable and all(sizes):
            return sorted(students, key=lambda student: -getattr(student, size))
    return list(students)


def _in_words(error: pydantic.ValidationError, cls: type[BaseModel]) -> list[str]:
    """One sentence an error: the key, what it should be, what came."""
    sentences = []
    for problem in error.errors():
        parts, owner = _place(cls, problem["loc"])
        key = ".".join(parts)
        shown = repr(problem["input"])
        got = f", got {shown}" if len(shown) < 80 else ""
        said = problem["msg"].removeprefix("Value error, ").removeprefix("Input ")
        if problem["type"] == "extra_forbidden":
            sentences.append(f"unknown key {key}; known here: {', '.join(owner.model_fields)}.")
        elif problem["type"] == "missing":
            sentences.append(f"{key} is missing; write a value for it.")
        elif problem["type"] == "union_tag_invalid":
            kinds = problem["ctx"]["expected_tags"].replace("'", "")
            sentences.append(f"{key}.kind should be one of {kinds}, got {problem['ctx']['tag']!r}.")
        elif problem["type"] == "string_pattern_mismatch":
            field = owner.model_fields[parts[-1]]
            meaning = (field.description or said).rstrip(".")
            sentences.append(f"{key} is not possible{got}. It is: {meaning}.")
        elif key:
            sentences.append(f"{key} {said}{got}.")
        else:
            sentences.append(f"{said}.")
    return sentences


def _place(cls: type[BaseModel], loc: tuple[Any, ...]) -> tuple[list[str], type[BaseModel]]:
    """An error's key as people write it, and the spec that owns the key.

    pydantic names the kind of a student as a step of its own; a file has no such step.
    """
    parts: list[str] = []
    owner, within = cls, [cls]
    for part in loc:
        kinds = {_default_kind(spec): spec for spec in within} if len(within) > 1 else {}
        if part in kinds:
            within = [kinds[part]]
            continue
        parts.append(str(part))
        if isinstance(part, int) or not within:
            continue
        owner = within[0]
        within = (
            _specs_in(owner.model_fields[part].annotation) if part in owner.model_fields else []
        )
    return parts, owner


def _default_kind(spec: type[BaseModel]) -> str:
    """The one value that this spec's `kind` may have."""
    return str(get_args(spec.model_fields["kind"].annotation)[0])


def _specs_in(annotation: Any) -> list[type[BaseModel]]:
    """The specs that a field may hold, wherever its annotation names them."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [spec for one in get_args(annotation) for spec in _specs_in(one)]

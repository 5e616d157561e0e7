"""What a run leaves: one versioned value, the contract between runners and readers.

Runners write a `RunRecord`; pages, charts and commands read it, and none knows how it
was made. A missing value is None, never 0. Old records always load: `migrate` lifts
each past schema to the present one.
"""

import json
import statistics
from typing import Any, Final, Literal

import pydantic
from pydantic import BaseModel, ConfigDict

from explorer.errors import DamagedStore
from explorer.specs import RunSpec

SCHEMA_VERSION: Final = 1


class Part(BaseModel):
    """The base of a record's parts: frozen; keys of a later version are kept out with an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Environment(Part):
    """Where and with what the run was made."""

    python: str
    platform: str
    hostname_hash: str
    """First eight hex digits of the host name's SHA-256: tells machines apart, names none."""
    device: str
    """cpu or cuda."""
    device_name: str
    """As the price book knows it: a GPU's name, or the processor and its number of cores."""
    num_cpus: int
    threads: int
    memory_bytes: int
    driver: str | None = None
    versions: dict[str, str] = {}
    """Versions of the libraries that decide numbers."""
    commit: str | None = None
    """The explorer's own commit, with `+changes` when the tree was not clean."""


class ModelFacts(Part):
    """The model that was measured."""

    name: str
    fingerprint: str
    """Sixteen hex digits over weights, tokenizer and dtype."""
    architecture: str
    num_parameters: int
    num_layers: int
    hidden_size: int
    vocab_size: int
    context_tokens: int | None = None
    dtype: str
    weight_bytes: int
    """Bytes of the weights in memory at this dtype."""
    kept_layers: list[int] | None = None
    """The teacher's layers that the student keeps, counted from 0."""
    kept_widths: dict[str, tuple[int, int]] | None = None
    """Of each width that a cut student has (hidden, channels, heads, groups): how much it keeps,
    and of how many. Which ones is in its config."""


class CurvePoint(Part):
    """One moment of a training."""

    step: int
    scored_tokens: int
    seconds: float
    loss: float
    """Mean over the scored tokens since the point before, in nats."""
    learning_rate: float
    heldout_kl: float | None = None
    """Held-out KL(teacher || student), in nats per token, over the kept top-k and the tail; None
    where the two have different tokenizers."""
    heldout_top1: float | None = None
    """Share of held-out positions where both models' most likely token is the same."""
    heldout_label_loss: float | None = None
    """Held-out cross-entropy on the text, in nats per token."""
    kd_loss: float | None = None
    """The divergence alone, without weight and temperature; None where it plays no part."""
    label_loss: float | None = None
    """The cross-entropy on the labels alone; None where it plays no part."""
    hidden_loss: float | None = None
    """The hidden-state term alone; None where it plays no part."""


class CorpusFacts(Part):
    """The text that the student was taught with."""

    name: str
    digest: str
    num_documents: int
    num_tokens: int
    overlap_13grams: dict[str, int] | None = None
    """Task to number of its documents that share a run of 13 words with the corpus."""


class Usage(Part):
    """What an API counted."""

    num_replies: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    """Of the output: what was thought and not said, where the API tells."""
    num_uncounted: int = 0
    """Replies that did not say what they cost."""

    def __add__(self, other: "Usage") -> "Usage":
        """Both together."""
        theirs = other.model_dump()
        return Usage(**{name: value + theirs[name] for name, value in self.model_dump().items()})


class TargetsFacts(Part):
    """The teacher's cached distributions."""

    key: str
    top_k: int
    num_positions: int
    bytes_per_token: float
    mean_mass: float
    """Mean probability that the kept top-k hold."""
    seconds: float
    """Time of the teacher's pass; one pass serves all students."""
    id_bits: int | None = None
    """Bits of a token's number on disk."""
    truncation_kl: float | None = None
    """KL of the teacher from the best guess that can be made of what is kept (the tail spread
    evenly), on the held-out blocks, in nats per token: what truncation costs. None where a server
    gave no more than what is kept."""
    usage: Usage | None = None
    """What the API counted in all for these targets, whichever run asked; None for weights."""
    num_unknown: int | None = None
    """Tokens that a server named and the tokenizer does not know; their mass is in the tail."""


class Distillation(Part):
    """How the student was taught and what it took."""

    corpus: CorpusFacts
    targets: TargetsFacts | None
    """None where the student and the teacher have different tokenizers."""
    scored_tokens: int
    steps: int
    seconds: float
    """Training only, without waiting and without the time lost by interruptions."""
    device_hours: float
    """Hours of the device for training and this run's share of nothing else."""
    num_trained_parameters: int
    num_untrained_layers: int = 0
    """Layers of the student that the training left as they were."""
    kl_before: float | None
    kl_after: float | None
    top1_before: float | None
    top1_after: float | None
    curve: list[CurvePoint]
    num_resumes: int = 0


class TaskScore(Part):
    """One metric of one lm-eval task."""

    task: str
    metric: str
    """lm-eval's key without the filter, as in `acc_norm`."""
    score: float
    stderr: float | None = None
    chance: float | None = None
    """Score of a guesser; None where it is not known."""
    higher_is_better: bool = True
    headline: bool = True
    """Whether this metric stands for the task in the suite's mean."""
    num_documents: int
    num_documents_total: int
    num_fewshot: int
    task_version: str | None = None
    task_hash: str | None = None
    seconds: float | None = None


class Capability(Part):
    """All scores of the run, and what made them comparable."""

    lm_eval_version: str | None
    """None where an imported file does not say it."""
    scores: list[TaskScore]
    seconds: float | None
    """Of the whole evaluation; None where imported results do not say."""
    usage: Usage | None = None
    """What the API counted in all, questions that had to be asked again too; None for weights."""


class Turn(Part):
    """One timed answer."""

    ttft_ms: float
    """From the request to the first token."""
    latency_ms: float
    """From the request to the last token."""
    num_output_tokens: int
    num_prompt_tokens: int | None = None
    """As an endpoint counted it; None where the prompt was made of token ids."""
    began_s: float | None = None
    """When the request began, counted from the beginning of its level."""

    @property
    def tpot_ms(self) -> float | None:
        """Time per output token after the first, in ms; None below two tokens."""
        if self.num_output_tokens < 2:
            return None
        return (self.latency_ms - self.ttft_ms) / (self.num_output_tokens - 1)


class RuntimeFacts(Part):
    """What ran the model, and what it took to start."""

    name: str
    """`transformers eager`, `transformers compiled`, `llama.cpp` or `endpoint`."""
    version: str | None = None
    """Of the library; of an endpoint what it says of itself."""
    load_s: float | None = None
    """From the files to a model on its device; None where an endpoint did it."""
    disk_bytes: int | None = None
    """Size of the files with the weights."""


class Energy(Part):
    """Energy of the device while it answered, above what it takes when idle."""

    source: str | None = None
    """`NVML` (the whole GPU) or `RAPL` (the processor's packages); None where neither is."""
    joules_per_token: float | None = None
    """Per output token, the prompt's share included, idle subtracted."""
    idle_watts: float | None = None
    reason: str | None = None
    """Why there is no number."""


class LoadPoint(Part):
    """One level of load: a batch, so many clients at once, or so many arrivals a second."""

    kind: Literal["batch", "clients", "poisson"]
    """batch: sequences of one batch on one device. clients: each sends its next request when it
    has its answer. poisson: requests arrive at random, however many are under way."""
    level: float
    """Sequences, clients, or requests a second."""
    turns: list[Turn]
    """The requests that were answered, without the warm-up."""
    num_failed: int = 0
    failures: dict[str, int] = {}
    """What was wrong, and how often; these requests are in no time."""
    seconds: float
    """From the first counted request to the last answer."""
    output_tokens_per_s: float | None = None
    """All output tokens of the level by its seconds; of a batch the median over its turns."""


class Timing(Part):
    """All counted turns of one model; percentiles are derived when reading."""

    batch_size: int
    prompt_tokens: int
    turns: list[Turn]
    peak_memory_bytes: int | None = None
    """Highest memory of the process (CPU) or of the device (CUDA) while it was timed."""
    runtime: RuntimeFacts | None = None
    """None in records of before the runtimes: transformers, eager."""
    energy: Energy | None = None
    num_failed: int = 0
    """Requests that an endpoint failed; they are in no time."""
    failures: dict[str, int] = {}
    """What was wrong with them, and how often."""
    curve: list[LoadPoint] = []
    """Levels of load, rising."""
    curve_note: str | None = None
    """Why the sweep of levels ended before its last one."""

    @property
    def output_tokens(self) -> int | None:
        """Length of an answer; None where no request was answered."""
        return self.turns[0].num_output_tokens if self.turns else None

    @property
    def output_tokens_per_s(self) -> float | None:
        """Median over the turns of the batch's output tokens per second of latency.

        The latency includes the time to the first token. None where no request was answered.
        """
        rates = [
            1e3 * self.batch_size * turn.num_output_tokens / turn.latency_ms
            for turn in self.turns
            if turn.latency_ms > 0
        ]
        return statistics.median(rates) if rates else None


class Interference(Part):
    """What other processes took of the machine around a timing; None where nothing counts it."""

    cpu_threshold: float
    """Share of all processors' time above which the machine was busy."""
    cpu_share_before: float | None = None
    """Share that others took just before the timing, in [0, 1]."""
    cpu_share_during: float | None = None
    """The same while it was timed. None for a server on this machine: its own work would count."""
    gpu_threshold: float | None = None
    """Share of a GPU's time above which it was busy; None where no GPU was timed."""
    gpu_share_before: float | None = None
    """Share of the time in which the GPU computed just before the timing."""
    num_other_gpu_processes: int | None = None
    """Other processes that hold the same GPU; one is enough to make it busy."""

    @property
    def warning(self) -> str | None:
        """A sentence when others took more than a threshold; None on an idle machine."""
        taken = []
        if _above(self.cpu_share_before, self.cpu_threshold):
            taken.append(f"{self.cpu_share_before:.0%} of the processor just before this was timed")
        if _above(self.cpu_share_during, self.cpu_threshold):
            taken.append(f"{self.cpu_share_during:.0%} of it while this was timed")
        if _above(self.gpu_share_before, self.gpu_threshold):
            taken.append(f"{self.gpu_share_before:.0%} of the GPU just before")
        if self.num_other_gpu_processes:
            taken.append(f"the same GPU ({self.num_other_gpu_processes} of them)")
        if not taken:
            return None
        return (
            f"Other processes used {' and '.join(taken)}; the times are longer and noisier than "
            "on an idle machine."
        )


def _above(share: float | None, threshold: float | None) -> bool:
    return share is not None and threshold is not None and share > threshold


class Latency(Part):
    """The model's timing and, taken in turns with it, its teacher's."""

    own: Timing
    teacher: Timing | None = None
    """None when the run measures a teacher."""
    seconds: float
    warning: str | None = None
    """Said when the machine was busy with something else."""
    interference: Interference | None = None
    """What others took of the machine; None in records that are older than this field."""

    @property
    def was_busy(self) -> bool:
        """Whether others used the machine while it was timed: no conclusion may rest on its times.

        Older records have only the warning, which is why it decides.
        """
        return self.warning is not None


class ErrorFacts(Part):
    """Why a run failed."""

    kind: str
    message: str
    stage: str
    traceback: str | None = None
    """Only for a bug; an expected error says all in its message."""


class Imported(Part):
    """Where the scores of a run come from that was not made here."""

    folder: str
    """Name of lm-eval's output folder, without the way to it."""
    files: dict[str, str]
    """Name of each file that was read to its SHA-256."""
    model: str
    dtype: str | None = None
    """Number format of the weights, where the files say it."""
    git_hash: str | None = None
    """lm-eval's commit, where the files say it."""
    problems: list[str] = []
    """What was left out, a sentence each."""


class RunRecord(Part):
    """One finished, failed or cancelled run."""

    schema_version: Literal[1] = SCHEMA_VERSION
    run_id: str
    teacher_run_id: str | None = None
    """The run that benchmarks this student's teacher; None for a teacher."""
    spec: RunSpec
    status: Literal["finished", "failed", "cancelled"]
    started_at: str
    """UTC, ISO 8601."""
    finished_at: str
    environment: Environment | None = None
    """None for an imported run: nobody knows where it was made."""
    imported: Imported | None = None
    model: ModelFacts | None = None
    distillation: Distillation | None = None
    capability: Capability | None = None
    latency: Latency | None = None
    stage_seconds: dict[str, float] = {}
    """Wall-clock of each stage that this run did itself."""
    error: ErrorFacts | None = None

    def to_json(self) -> str:
        """The record as indented JSON; numbers that are not finite are refused.

        Raises:
            ValueError: A number is infinite or not a number.
        """
        return json.dumps(self.model_dump(mode="json"), indent=1, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str, source: str = "record.json") -> "RunRecord":
        """Read a record of this or any past schema.

        Raises:
            DamagedStore: The text is no record, or one of a later version.
        """
        try:
            data = json.loads(text, parse_constant=_no_constant)
        except ValueError as error:
            raise DamagedStore(f"{source} is not JSON: {error}") from error
        try:
            return cls.model_validate(migrate(data, source))
        except pydantic.ValidationError as error:
            first = error.errors()[0]
            key = ".".join(str(part) for part in first["loc"])
            raise DamagedStore(f"{source} is no run record: {key}: {first['msg']}") from error


def migrate(data: Any, source: str = "record.json") -> dict[str, Any]:
    """Lift plain data of any past schema to the present one.

    Raises:
        DamagedStore: Not a mapping, no version, or a version from the future.
    """
    if not isinstance(data, dict) or not isinstance(data.get("schema_version"), int):
        raise DamagedStore(f"{source} has no schema_version, so it is no run record.")
    if data["schema_version"] > SCHEMA_VERSION:
        raise DamagedStore(
            f"{source} has schema_version {data['schema_version']}; this explorer reads up to "
            f"{SCHEMA_VERSION}. Update the explorer to read it."
        )
    return data


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no number a record may hold")

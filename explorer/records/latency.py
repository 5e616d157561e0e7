"""What a record says about latency: every timed request, levels of load, energy, other load."""

import statistics
from typing import Literal

from explorer.records.base import Amount, Count, Name, Number, Positive, RecordPart


class TimedRequest(RecordPart):
    """One timed request."""

    ttft_ms: Amount
    """From the request to the first token."""
    latency_ms: Amount
    """From the request to the last token."""
    num_output_tokens: Count
    num_prompt_tokens: Count | None = None
    """As an endpoint counted it. None if the prompt was made of token ids here."""
    began_s: Number | None = None
    """When the request began, in seconds since its level of load began."""

    @property
    def tpot_ms(self) -> float | None:
        """Time per output token after the first, in ms; None below two tokens."""
        if self.num_output_tokens < 2:
            return None
        return (self.latency_ms - self.ttft_ms) / (self.num_output_tokens - 1)


class RuntimeFacts(RecordPart):
    """What ran the model, and what it took to start."""

    name: Name
    """`transformers eager`, `transformers compiled`, `llama.cpp` or `endpoint`; of a server that
    the run started, `vLLM server`, `SGLang server`, `llama.cpp server` or `transformers server`."""
    version: Name | None = None
    """Version of the library or the server; for an endpoint, what its server calls itself."""
    load_s: Amount | None = None
    """From the files to a model on its device; of a server, from its start until it was healthy.
    None for an endpoint, which loaded it earlier."""
    disk_bytes: Count | None = None
    """Size of the weight files."""
    command: list[str] = []
    """The command of a server that the run started, with all arguments."""


class Energy(RecordPart):
    """Energy of the device while it answered, above its idle power."""

    source: Name | None = None
    """`NVML` (the whole GPU) or `RAPL` (the CPU packages); None if the machine has neither."""
    joules_per_token: Number | None = None
    """Per output token, including the prompt's share, with idle power subtracted."""
    idle_watts: Amount | None = None
    reason: str | None = None
    """Why there is no number."""


class LoadPoint(RecordPart):
    """One level of load: a batch size, a number of clients, or a request rate."""

    kind: Literal["batch", "clients", "poisson"]
    """batch: sequences of one batch on one device. clients: each client sends its next request
    when the previous answer is complete. poisson: requests arrive at random, however many are in
    flight."""
    level: Amount
    """Sequences, clients, or requests per second."""
    turns: list[TimedRequest]
    """Requests that were answered, without the warm-up."""
    num_failed: Count = 0
    failures: dict[str, Count] = {}
    """Kind of failure to number of requests. Failed requests are in no timing."""
    seconds: Amount
    """From the first counted request to the last answer."""
    output_tokens_per_s: Amount | None = None
    """All output tokens of the level divided by its seconds; for a batch, the median over its
    turns."""


class TimingSummary(RecordPart):
    """Medians that another tool computed over its requests; None where its file does not say."""

    ttft_ms: Amount
    tpot_ms: Amount
    """Without the first token."""
    latency_ms: Amount
    ttft_p95_ms: Amount | None = None
    tpot_p95_ms: Amount | None = None
    latency_p95_ms: Amount | None = None
    num_requests: Count
    prompt_tokens: Count | None = None
    output_tokens: Count | None = None
    output_tokens_per_s: Amount | None = None
    """All output tokens divided by the time that they took together."""


class Timing(RecordPart):
    """All counted requests to one model. Percentiles are derived when reading."""

    batch_size: Positive
    prompt_tokens: Count | None
    """Tokens of the prompt; for an endpoint, the median of what it counted. None if it does not
    count."""
    turns: list[TimedRequest]
    peak_memory_bytes: Count | None = None
    """Peak memory of the process (CPU) or of the device (accelerator) during the timing."""
    runtime: RuntimeFacts | None = None
    """None only in hand-made records: schema 1 left it out for eager transformers."""
    energy: Energy | None = None
    num_failed: Count = 0
    """Requests that failed at an endpoint. They are in no timing."""
    failures: dict[str, Count] = {}
    """Kind of failure to number of requests."""
    summary: TimingSummary | None = None
    """Only of imported timings, whose files need not have the requests themselves."""
    curve: list[LoadPoint] = []
    """Levels of load, ascending."""
    curve_note: str | None = None
    """Why the sweep stopped before its last level."""
    request_changes: list[str] = []
    """Fields that the endpoint did not take, and what was sent instead, a sentence each."""

    @property
    def num_answered(self) -> int:
        """Counted requests; of an imported timing those that its tool counted."""
        return self.summary.num_requests if self.summary else len(self.turns)

    @property
    def output_tokens(self) -> int | None:
        """Length of an answer; None if no request was answered."""
        if self.summary:
            return self.summary.output_tokens
        return self.turns[0].num_output_tokens if self.turns else None

    @property
    def output_tokens_per_s(self) -> float | None:
        """Median over the requests of the batch's output tokens per second of latency.

        The latency includes the time to the first token. None if no request was answered. An
        imported timing has the throughput that its tool measured.
        """
        if self.summary and self.summary.output_tokens_per_s is not None:
            return self.summary.output_tokens_per_s
        rates = [
            1e3 * self.batch_size * turn.num_output_tokens / turn.latency_ms
            for turn in self.turns
            if turn.latency_ms > 0
        ]
        return statistics.median(rates) if rates else None


class Interference(RecordPart):
    """What other processes used of the machine around a timing; None if nothing counts it."""

    cpu_threshold: Amount
    """Share of all CPU time above which the machine counts as busy."""
    cpu_share_before: Number | None = None
    """Share that other processes used just before the timing, in [0, 1]."""
    cpu_share_during: Number | None = None
    """The same during the timing. None for a server on this machine: its own work would count."""
    gpu_threshold: Amount | None = None
    """Share of GPU time above which the GPU counts as busy; None if no GPU was timed."""
    gpu_share_before: Number | None = None
    """Share of time in which the GPU computed just before the timing."""
    num_other_gpu_processes: Count | None = None
    """Other processes on the same GPU. One is enough to make it busy."""

    @property
    def warning(self) -> str | None:
        """A sentence if other processes used more than a threshold; None on an idle machine."""
        used = []
        if _above(self.cpu_share_before, self.cpu_threshold):
            used.append(f"{self.cpu_share_before:.0%} of the processor just before this was timed")
        if _above(self.cpu_share_during, self.cpu_threshold):
            used.append(f"{self.cpu_share_during:.0%} of it while this was timed")
        if _above(self.gpu_share_before, self.gpu_threshold):
            used.append(f"{self.gpu_share_before:.0%} of the GPU just before")
        if self.num_other_gpu_processes:
            used.append(f"the same GPU ({self.num_other_gpu_processes} of them)")
        if not used:
            return None
        return (
            f"Other processes used {' and '.join(used)}; the times are longer and noisier than "
            "on an idle machine."
        )


def _above(share: float | None, threshold: float | None) -> bool:
    return share is not None and threshold is not None and share > threshold


POWER_LIMIT = "its power limit"
"""What lowers a GPU's clocks under every full load; other reasons mean that something is wrong."""


class GpuState(RecordPart):
    """What the driver said of the GPU around a timing; None where it does not say."""

    is_slice: bool | None = None
    """Whether the device is a MIG slice rather than a whole GPU."""
    power_limit_watts: Amount | None = None
    max_clock_mhz: Count | None = None
    """The highest clock that its multiprocessors can have."""
    lowest_clock_mhz: Count | None = None
    """The lowest clock read right after an answer."""
    highest_clock_mhz: Count | None = None
    slowed_by: list[Name] = []
    """What lowered the clocks after an answer, as in `heat` or `its power limit`."""
    drives_display: bool | None = None
    """Whether it also drew the picture of a display."""
    num_other_gpus_busy: Count | None = None
    """The most other GPUs of the machine that computed right after an answer, such as for runs of
    the queue. They do not mark the timing, which had its own GPU to itself."""
    num_memory_errors: Count | None = None
    """Errors that its memory could not correct during the timing."""

    @property
    def warning(self) -> str | None:
        """A sentence if the GPU was not in order; None if it was or nobody says."""
        causes = [cause for cause in self.slowed_by if cause != POWER_LIMIT]
        problems = [f"was slowed down by {' and '.join(causes)}"] if causes else []
        if self.num_memory_errors:
            problems.append(f"had {self.num_memory_errors:,} memory errors")
        if not problems:
            return None
        return f"The GPU {' and '.join(problems)} during the timing, so its times are unreliable."


class Latency(RecordPart):
    """The model's timing and, interleaved with it, its teacher's."""

    own: Timing
    teacher: Timing | None = None
    """None if the run measures a teacher."""
    seconds: Amount
    warning: str | None = None
    """Set if the machine was busy with something else, or its GPU not in order."""
    interference: Interference | None = None
    """What other processes used; None in records older than this field."""
    gpu: GpuState | None = None
    """None on other devices, and in records older than this field."""

    @property
    def was_busy(self) -> bool:
        """Whether other processes used the machine: no conclusion may rest on these times.

        Decided by the warning, because older records have nothing else.
        """
        return self.warning is not None

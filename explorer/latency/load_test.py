"""Timing an endpoint: one request at a time, with many clients, and with random arrivals.

Closed loop: each of C clients sends its next request when its answer is complete, so C requests
are always in progress. Open loop: requests arrive at random times at a given rate, whether or
not the server keeps up. Prompts are random words and never repeat, so that no prefix cache
answers in place of the model. The number of words is calibrated to the server's token count.

    explorer run spec.yaml     # with teacher: endpoint:http://127.0.0.1:8000/v1#model
"""

import asyncio
import gc
import random
import statistics
import time
from collections import Counter
from collections.abc import Callable
from typing import Literal

import torch

from explorer.errors import BadInput, RunFailed
from explorer.latency.interference import InterferenceWatch
from explorer.latency.runtimes.endpoint_client import RequestFailed
from explorer.latency.runtimes.endpoint_stream import StreamingClient
from explorer.latency.timing import saturation_note, warn_if_busy
from explorer.models.endpoint import Endpoint
from explorer.records import Energy, Latency, LoadPoint, RuntimeFacts, TimedRequest, Timing
from explorer.specs import LatencySpec
from explorer.store.progress import Progress

FREQUENT_WORDS = (
    "area back body book business car case child city company country day door end eye face "
    "fact family father friend game group hand head health home hour house idea issue job "
    "kind law level life line lot man member minute money month mother name night office part "
    "people place point power problem program question right room school service side state "
    "story student study system"
)
"""About one token each in most tokenizers."""
WORDS = FREQUENT_WORDS.split()
QUEUE_GROWTH = 1.5
"""In an open loop, a last third slower than the first by this factor means that requests queue."""


def time_endpoint(
    endpoint: Endpoint, spec: LatencySpec, progress: Progress, *, key_variable: str | None = None
) -> Latency:
    """Time a model behind an endpoint: one request at a time, then at each level of load.

    The API key is read from the environment variable `key_variable`; None is `key_for`'s default.

    Returns:
        The turns are the answered requests; failed ones are counted by kind. If a level fails,
        the levels before it are kept, and `curve_note` says why the sweep ended.

    Raises:
        BadInput: As `check_endpoint_timing`, or the key is missing.
        RunFailed: The endpoint answers no request at all; the message says what it did.
        RunCancelled: Passed through from `progress`.
    """
    check_endpoint_timing(endpoint, spec)
    began = time.monotonic()
    watch = InterferenceWatch(torch.device("cpu"), only_before=endpoint.is_local)
    client = StreamingClient(endpoint, timeout_s=spec.timeout_s, key_variable=key_variable)
    timing = time_requests(client, spec, progress, flags=warn_if_busy(watch))
    interference = watch.interference()
    return Latency(
        own=timing,
        seconds=time.monotonic() - began,
        warning=interference.warning,
        interference=interference,
    )


def time_requests(
    client: StreamingClient,
    spec: LatencySpec,
    progress: Callable[..., None],
    *,
    flags: dict[str, bool],
) -> Timing:
    """Send the requests of `time_endpoint`, and time them.

    Args:
        client: Sends them; it is opened and closed here.
        spec: Lengths, warm-up, repeats and levels of load.
        progress: Called several times a second, as stage "latency"; may raise to stop.
        flags: For every progress update.

    Raises:
        RunFailed: The endpoint answers no request at all; the message says what it did.
    """
    # A garbage collection scans every library's objects and would be timed with an answer.
    gc.collect()
    gc.freeze()
    try:
        return asyncio.run(_LoadTest(client.endpoint, spec, progress, flags).run(client))
    finally:
        gc.unfreeze()


def check_endpoint_timing(endpoint: Endpoint, spec: LatencySpec) -> None:
    """Refuse a timing that an endpoint does not allow.

    Raises:
        BadInput: The API cannot be timed, or the spec sets a batch size.
    """
    if endpoint.is_anthropic:
        raise BadInput(
            "Anthropic's messages API can be evaluated but not timed. Write latency: null, or "
            "name the provider's endpoint for chat completions."
        )
    if spec.batch_size != 1:
        raise BadInput(
            "latency.batch_size has to be 1 for an endpoint, which makes its own batches. Set "
            "concurrency to send several requests at a time."
        )


class _LoadTest:
    """All requests of one endpoint's timing."""

    def __init__(
        self,
        endpoint: Endpoint,
        spec: LatencySpec,
        progress: Callable[..., None],
        flags: dict[str, bool],
    ) -> None:
        self._endpoint, self._spec = endpoint, spec
        self._progress, self._flags = progress, flags
        self._random = random.Random(spec.seed)
        self._num_words = spec.prompt_tokens
        self._num_done = 0
        num_at_levels = sum(self._num_counted(level) for level in spec.concurrency)
        num_at_levels += len(spec.request_rates) * spec.requests
        self._num_total = spec.warmup + spec.repeats + num_at_levels

    async def run(self, unopened: StreamingClient) -> Timing:
        async with unopened as client:
            await self._calibrate_prompt(client)
            alone = await self._closed_loop(client, 1, self._spec.repeats, self._spec.warmup)
            if not alone.turns:
                raise RunFailed(
                    f"The endpoint {self._endpoint.url} failed all {alone.num_failed} requests: "
                    f"{_failure_counts(alone)}. Look at the server's log."
                )
            curve, note = await self._sweep(client)
            facts = RuntimeFacts(name="endpoint", version=client.server)
        counts = [turn.num_prompt_tokens for turn in alone.turns if turn.num_prompt_tokens]
        return Timing(
            batch_size=1,
            prompt_tokens=round(statistics.median(counts)) if counts else None,
            turns=alone.turns,
            runtime=facts,
            energy=Energy(reason="The device of an endpoint cannot be read from here."),
            num_failed=alone.num_failed,
            failures=alone.failures,
            curve=curve,
            curve_note=note,
            request_changes=client.fields.sentences(),
        )

    async def _calibrate_prompt(self, client: StreamingClient) -> None:
        """Choose the number of words that the server counts as `prompt_tokens`."""
        wanted = self._spec.prompt_tokens
        small, large = max(1, wanted // 4), max(2, wanted // 2)
        counts = []
        for num_words in (small, large):
            turn = await client.negotiate(self._prompt(num_words), 2)
            counts.append(turn.num_prompt_tokens or num_words)
        per_word = max((counts[1] - counts[0]) / (large - small), 0.1)
        fixed = counts[0] - per_word * small
        self._num_words = max(1, round((wanted - fixed) / per_word))

    async def _sweep(self, client: StreamingClient) -> tuple[list[LoadPoint], str | None]:
        """Each level of concurrency, then each request rate, until one fails or saturates."""
        curve: list[LoadPoint] = []
        notes = []
        for num_clients in self._spec.concurrency:
            curve.append(
                await self._closed_loop(client, num_clients, self._num_counted(num_clients), 1)
            )
            note = _failure_note(curve[-1]) or saturation_note(curve)
            if note:
                notes.append(note)
                break
        for rate in self._spec.request_rates:
            curve.append(await self._open_loop(client, rate))
            note = _failure_note(curve[-1]) or _queue_note(curve[-1])
            if note:
                notes.append(note)
                break
        return curve, " ".join(notes) or None

    async def _closed_loop(
        self, client: StreamingClient, num_clients: int, num_counted: int, warmup: int
    ) -> LoadPoint:
        """Keep `num_clients` requests in progress until enough were answered.

        Counting begins when every client has finished its warm-up, and ends with the answer
        that completes the number. Requests still in progress then are not counted.
        """
        level = _LoadLevel()
        is_full = asyncio.Event()
        num_warm = 0

        async def run_client() -> None:
            nonlocal num_warm
            for number in range(warmup + num_counted + 1):
                if is_full.is_set():
                    return
                result = await self._send(client, level)
                if number < warmup:
                    num_warm += number == warmup - 1
                    if num_warm == num_clients:
                        level.start_counting()
                elif level.is_counting and not is_full.is_set():
                    level.add(result)
                    if level.num_results >= num_counted or level.is_hopeless(num_counted):
                        is_full.set()

        if warmup == 0:
            level.start_counting()
        clients = [asyncio.create_task(run_client()) for _ in range(num_clients)]
        await self._wait_for(clients, is_full)
        return level.point("clients", num_clients)

    async def _open_loop(self, client: StreamingClient, rate: float) -> LoadPoint:
        """Send requests at random times, `rate` per second on average."""
        level = _LoadLevel()
        level.start_counting()
        num_requests = self._spec.requests

        async def send() -> None:
            level.add(await self._send(client, level))

        requests = []
        for _ in range(num_requests):
            await asyncio.sleep(self._random.expovariate(rate))
            requests.append(asyncio.create_task(send()))
            if level.is_hopeless(num_requests):
                break
        await self._wait_for(requests, None)
        return level.point("poisson", rate)

    async def _wait_for(
        self, tasks: list["asyncio.Task[None]"], is_full: asyncio.Event | None
    ) -> None:
        """Wait for the tasks and report progress; cancel the rest once the level is full."""
        try:
            while pending := [task for task in tasks if not task.done()]:
                await asyncio.wait(pending, timeout=0.2, return_when=asyncio.FIRST_COMPLETED)
                num_done = min(self._num_done, self._num_total)
                self._progress("latency", num_done, self._num_total, "requests", **self._flags)
                if is_full is not None and is_full.is_set():
                    break
        finally:
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
        for result in results:
            if isinstance(result, Exception):
                raise result

    async def _send(
        self, client: StreamingClient, level: "_LoadLevel"
    ) -> TimedRequest | RequestFailed:
        began = time.monotonic()
        try:
            turn = await client.time_request(
                self._prompt(self._num_words), self._spec.output_tokens
            )
        except RequestFailed as failed:
            return failed
        finally:
            self._num_done += 1
        return turn.model_copy(update={"began_s": round(began - level.began, 6)})

    def _prompt(self, num_words: int) -> str:
        return " ".join(self._random.choices(WORDS, k=num_words))

    def _num_counted(self, num_clients: int) -> int:
        """Requests that a level of concurrency counts: at least three per client."""
        return max(self._spec.requests, 3 * num_clients)


class _LoadLevel:
    """The results of one level of load."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.began = self._ended = clock()
        self.is_counting = False
        self.turns: list[TimedRequest] = []
        self.failures: Counter[str] = Counter()

    @property
    def num_results(self) -> int:
        return len(self.turns) + self.failures.total()

    def start_counting(self) -> None:
        self.is_counting = True
        self.began = self._ended = self._clock()

    def add(self, result: TimedRequest | RequestFailed) -> None:
        self._ended = self._clock()
        if isinstance(result, RequestFailed):
            self.failures[result.kind] += 1
        else:
            self.turns.append(result)

    def is_hopeless(self, num_counted: int) -> bool:
        """Whether half of the level has failed, so that the other half need not be awaited."""
        return self.failures.total() >= max(3, num_counted / 2)

    def point(self, kind: Literal["clients", "poisson"], level: float) -> LoadPoint:
        seconds = self._ended - self.began
        num_tokens = sum(turn.num_output_tokens for turn in self.turns)
        return LoadPoint(
            kind=kind,
            level=level,
            turns=self.turns,
            num_failed=self.failures.total(),
            failures=dict(self.failures),
            seconds=seconds,
            output_tokens_per_s=num_tokens / seconds if num_tokens and seconds > 0 else None,
        )


def _failure_counts(point: LoadPoint) -> str:
    return ", ".join(f"{kind} ({count})" for kind, count in point.failures.items())


def _failure_note(point: LoadPoint) -> str | None:
    """Why the sweep ends, if at least half of a level's requests failed; else None."""
    if point.num_failed < max(len(point.turns), 1):
        return None
    num_requests = point.num_failed + len(point.turns)
    return (
        f"The sweep ended at {point.level:g}, where {point.num_failed} of {num_requests} requests "
        f"failed: {_failure_counts(point)}."
    )


def _queue_note(point: LoadPoint) -> str | None:
    """Why the sweep ends, if requests wait longer and longer; else None."""
    ordered = sorted(point.turns, key=lambda turn: turn.began_s or 0.0)
    third = len(ordered) // 3
    if third < 3:
        return None
    first_ms, last_ms = (
        statistics.median(turn.latency_ms for turn in part)
        for part in (ordered[:third], ordered[-third:])
    )
    if last_ms <= QUEUE_GROWTH * first_ms:
        return None
    return (
        f"Saturated: at {point.level:g} requests/s the last third took {last_ms:.3g} ms, the first "
        f"{first_ms:.3g} ms, so requests queue. Higher rates would only add waiting time."
    )

"""An endpoint under load: alone, with many clients (closed loop), with arrivals (open loop).

Closed loop: each of C clients sends its next request when it has its answer, so the server
always has C under way. Open loop: requests arrive at random at a rate, whether the server
keeps up or not. Prompts are random words, never the same twice, so that no cache of
prefixes answers in place of the model; their number is fitted to the server's own count.

    explorer run spec.yaml     # with teacher: endpoint:http://127.0.0.1:8000/v1#model
"""

import asyncio
import gc
import random
import statistics
import time
from collections import Counter
from collections.abc import Callable

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

WORDS = (
    "area",
    "back",
    "body",
    "book",
    "business",
    "car",
    "case",
    "child",
    "city",
    "company",
    "country",
    "day",
    "door",
    "end",
    "eye",
    "face",
    "fact",
    "family",
    "father",
    "friend",
    "game",
    "group",
    "hand",
    "head",
    "health",
    "home",
    "hour",
    "house",
    "idea",
    "issue",
    "job",
    "kind",
    "law",
    "level",
    "life",
    "line",
    "lot",
    "man",
    "member",
    "minute",
    "money",
    "month",
    "mother",
    "name",
    "night",
    "office",
    "part",
    "people",
    "place",
    "point",
    "power",
    "problem",
    "program",
    "question",
    "right",
    "room",
    "school",
    "service",
    "side",
    "state",
    "story",
    "student",
    "study",
    "system",
)
"""Frequent words, about a token each for most tokenizers."""
QUEUE_GROWTH = 1.5
"""In an open loop, times that grow by so much from the first to the last third mean a queue."""


def time_endpoint(endpoint: Endpoint, spec: LatencySpec, progress: Progress) -> Latency:
    """Time a model behind an endpoint: one request at a time, then under each level of load.

    Returns:
        Answered requests only; failed ones are counted by their kind. What was measured before
        a level failed is kept, and `curve_note` says why the sweep ended.

    Raises:
        BadInput: The spec asks for batches, which are the server's business.
        RunFailed: The endpoint answers no request at all; the message says what it did.
        RunCancelled: Passed through from `progress`.
    """
    if spec.batch_size != 1:
        raise BadInput(
            "latency.batch_size has to be 1 for an endpoint, which makes its own batches. Use "
            "concurrency for requests at the same time."
        )
    began = time.monotonic()
    watch = InterferenceWatch(torch.device("cpu"), only_before=endpoint.is_local)
    # A collection passes over all that libraries have made, and would be timed with an answer.
    gc.collect()
    gc.freeze()
    try:
        timing = asyncio.run(_Load(endpoint, spec, progress, warn_if_busy(watch)).timing())
    finally:
        gc.unfreeze()
    interference = watch.interference()
    return Latency(
        own=timing,
        seconds=time.monotonic() - began,
        warning=interference.warning,
        interference=interference,
    )


class _Load:
    """All requests of one timing."""

    def __init__(
        self, endpoint: Endpoint, spec: LatencySpec, progress: Progress, said: dict[str, bool]
    ) -> None:
        self._endpoint, self._spec, self._progress, self._said = endpoint, spec, progress, said
        self._random = random.Random(spec.seed)
        self._num_words = spec.prompt_tokens
        self._done = 0
        levels = sum(self._wanted(level) for level in spec.concurrency)
        levels += len(spec.request_rates) * spec.requests
        self._total = spec.warmup + spec.repeats + levels

    async def timing(self) -> Timing:
        async with StreamingClient(self._endpoint, timeout_s=self._spec.timeout_s) as client:
            await self._fit_prompt(client)
            alone = await self._closed(client, 1, self._spec.repeats, self._spec.warmup)
            if not alone.turns:
                worst = ", ".join(f"{kind} ({count})" for kind, count in alone.failures.items())
                raise RunFailed(
                    f"The endpoint {self._endpoint.url} failed all {alone.num_failed} requests: "
                    f"{worst}. Look at the server's log."
                )
            curve, note = await self._sweep(client)
            facts = RuntimeFacts(name="endpoint", version=client.server)
        counted = [turn.num_prompt_tokens for turn in alone.turns if turn.num_prompt_tokens]
        return Timing(
            batch_size=1,
            prompt_tokens=round(statistics.median(counted)) if counted else None,
            turns=alone.turns,
            runtime=facts,
            energy=Energy(reason="The device of an endpoint cannot be read from here."),
            num_failed=alone.num_failed,
            failures=alone.failures,
            curve=curve,
            curve_note=note,
        )

    async def _fit_prompt(self, client: StreamingClient) -> None:
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
        curve: list[LoadPoint] = []
        notes = []
        for num_clients in self._spec.concurrency:
            curve.append(await self._closed(client, num_clients, self._wanted(num_clients), 1))
            note = _why_failed(curve[-1]) or saturation_note(curve)
            if note:
                notes.append(note)
                break
        for rate in self._spec.request_rates:
            curve.append(await self._open(client, rate))
            note = _why_failed(curve[-1]) or _why_growing(curve[-1])
            if note:
                notes.append(note)
                break
        return curve, " ".join(notes) or None

    async def _closed(
        self, client: StreamingClient, num_clients: int, num_counted: int, warmup: int
    ) -> LoadPoint:
        """Keep `num_clients` requests under way until enough were answered.

        Counting begins when every client has its warm-up behind it, and ends with the answer
        that makes the number full; what is still under way then is not counted.
        """
        level = _Level()
        is_full = asyncio.Event()
        num_warm = 0

        async def work() -> None:
            nonlocal num_warm
            for number in range(warmup + num_counted + 1):
                if is_full.is_set():
                    return
                result = await self._ask(client, level)
                if number < warmup:
                    num_warm += number == warmup - 1
                    if num_warm == num_clients:
                        level.counts_from_now()
                elif level.counting and not is_full.is_set():
                    level.add(result)
                    if level.num_seen >= num_counted or level.is_hopeless(num_counted):
                        is_full.set()

        if warmup == 0:
            level.counts_from_now()
        workers = [asyncio.create_task(work()) for _ in range(num_clients)]
        await self._finished(workers, is_full)
        return level.point("clients", num_clients)

    async def _open(self, client: StreamingClient, rate: float) -> LoadPoint:
        """Send requests at random moments, `rate` a second on average."""
        level = _Level()
        level.counts_from_now()
        total = self._spec.requests

        async def one() -> None:
            level.add(await self._ask(client, level))

        requests = []
        for _ in range(total):
            await asyncio.sleep(self._random.expovariate(rate))
            requests.append(asyncio.create_task(one()))
            if level.is_hopeless(total):
                break
        await self._finished(requests, None)
        return level.point("poisson", rate)

    async def _finished(
        self, tasks: list["asyncio.Task[None]"], is_full: asyncio.Event | None
    ) -> None:
        """Wait for the tasks, telling the progress; end the rest when the level is full."""
        try:
            while pending := [task for task in tasks if not task.done()]:
                await asyncio.wait(pending, timeout=0.2, return_when=asyncio.FIRST_COMPLETED)
                done = min(self._done, self._total)
                self._progress("latency", done, self._total, "requests", **self._said)
                if is_full is not None and is_full.is_set():
                    break
        finally:
            for task in tasks:
                task.cancel()
            ended = await asyncio.gather(*tasks, return_exceptions=True)
        for error in ended:
            if isinstance(error, Exception):
                raise error

    async def _ask(self, client: StreamingClient, level: "_Level") -> TimedRequest | RequestFailed:
        began = time.monotonic()
        try:
            turn = await client.time_request(
                self._prompt(self._num_words), self._spec.output_tokens
            )
        except RequestFailed as failed:
            return failed
        finally:
            self._done += 1
        return turn.model_copy(update={"began_s": round(began - level.began, 6)})

    def _prompt(self, num_words: int) -> str:
        return " ".join(self._random.choices(WORDS, k=num_words))

    def _wanted(self, num_clients: int) -> int:
        return max(self._spec.requests, 3 * num_clients)


class _Level:
    """What came of one level."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.began = self._ended = clock()
        self.counting = False
        self.turns: list[TimedRequest] = []
        self.failures: Counter[str] = Counter()

    @property
    def num_seen(self) -> int:
        return len(self.turns) + self.failures.total()

    def counts_from_now(self) -> None:
        self.counting = True
        self.began = self._ended = self._clock()

    def add(self, result: TimedRequest | RequestFailed) -> None:
        self._ended = self._clock()
        if isinstance(result, RequestFailed):
            self.failures[result.kind] += 1
        else:
            self.turns.append(result)

    def is_hopeless(self, num_counted: int) -> bool:
        """Half of the level has failed: no need to wait for the other half."""
        return self.failures.total() >= max(3, num_counted / 2)

    def point(self, kind: str, level: float) -> LoadPoint:
        seconds = self._ended - self.began
        tokens = sum(turn.num_output_tokens for turn in self.turns)
        return LoadPoint.model_validate(
            {
                "kind": kind,
                "level": level,
                "turns": self.turns,
                "num_failed": self.failures.total(),
                "failures": dict(self.failures),
                "seconds": seconds,
                "output_tokens_per_s": tokens / seconds if tokens and seconds > 0 else None,
            }
        )


def _why_failed(point: LoadPoint) -> str | None:
    """A sentence when half of a level's requests failed."""
    if point.num_failed < max(len(point.turns), 1):
        return None
    kinds = ", ".join(f"{kind} ({count})" for kind, count in point.failures.items())
    return (
        f"The sweep ended at {point.level:g}, where {point.num_failed} of "
        f"{point.num_failed + len(point.turns)} requests failed: {kinds}."
    )


def _why_growing(point: LoadPoint) -> str | None:
    """A sentence when requests wait longer and longer, so the rate is more than is served."""
    ordered = sorted(point.turns, key=lambda turn: turn.began_s or 0.0)
    third = len(ordered) // 3
    if third < 3:
        return None
    first, last = (
        statistics.median(turn.latency_ms for turn in part)
        for part in (ordered[:third], ordered[-third:])
    )
    if last <= QUEUE_GROWTH * first:
        return None
    return (
        f"Saturated: at {point.level:g} requests/s the last third took {last:.3g} ms, the first "
        f"{first:.3g} ms, so requests queue. Higher rates would only wait longer."
    )

"""What a planned run will take, from what earlier runs took on the same kind of device.

Nothing is invented: each part (training, testing, timing) is estimated only where an
earlier run measured it, and the parts nobody has measured are named. Within one family a
layer costs the same everywhere, so time per token, time per document and the number of
parameters are straight lines in the number of layers.
"""

import dataclasses

import numpy as np
import pandas as pd

from explorer.specs import RunSpec

BYTES_PER_TRAINED_PARAMETER = 16
"""float32 weight, its gradient and AdamW's two moments."""
BYTES_PER_FROZEN_PARAMETER = 4
"""float32 weight."""


@dataclasses.dataclass(frozen=True)
class Estimate:
    """What several runs will take together; None where no earlier run tells."""

    seconds: float | None
    memory_bytes: float | None
    """The least that the largest run needs; libraries and activations come on top."""
    basis: str
    """On which earlier runs it rests."""
    unknown: tuple[str, ...]
    """The parts that are missing in `seconds`, in words."""


def estimate(
    specs: list[RunSpec], runs: pd.DataFrame, scores: pd.DataFrame, device_name: str | None = None
) -> Estimate:
    """Seconds and memory of these runs, one after the other.

    Args:
        specs: What will be run. Those that are finished in `runs` take nothing.
        runs: As `store.frame`; finished runs of the same teacher are looked at.
        scores: As `store.scores`.
        device_name: Only runs of this device count; None takes the newest run's device.

    Returns:
        The sum over specs, with its basis.
    """
    todo, past = _split(specs, runs, device_name)
    if not todo:
        return Estimate(0.0, None, "All of it is already measured.", ())
    if past.empty:
        return Estimate(
            None, None, "No run of this teacher on this machine yet: the first run will tell.", ()
        )
    total, unknown = 0.0, set[str]()
    for spec in todo:
        layers = _layers(spec, past)
        parts = {
            "training": _training_s(spec, layers, past),
            "testing": _testing_s(spec, layers, past, scores),
            "timing": _timing_s(spec, layers, past),
        }
        total += sum(seconds for seconds in parts.values() if seconds is not None)
        unknown |= {name for name, seconds in parts.items() if seconds is None}
    memory = [_memory_bytes(spec, _layers(spec, past), past) for spec in todo]
    known_memory = [value for value in memory if value is not None]
    names = past["device_name"].iloc[-1]
    how_many = f"{len(past)} earlier run{'' if len(past) == 1 else 's'}"
    return Estimate(
        total or None,
        max(known_memory) if known_memory else None,
        f"From {how_many} on {names}.",
        tuple(sorted(unknown)),
    )


def _split(
    specs: list[RunSpec], runs: pd.DataFrame, device_name: str | None
) -> tuple[list[RunSpec], pd.DataFrame]:
    """The specs that are still to be done, and the finished runs that can tell about them."""
    finished = runs[runs["status"] == "finished"].sort_values("finished_at")
    done = set(finished["run_id"])
    todo = [spec for spec in specs if spec.run_id not in done]
    teachers = {spec.teacher for spec in todo}
    past = finished[finished["teacher"].isin(teachers)]
    if not past.empty:
        past = past[past["device_name"] == (device_name or past["device_name"].iloc[-1])]
    return todo, past


def _layers(spec: RunSpec, past: pd.DataFrame) -> float | None:
    """Layers of the model that a spec measures; a teacher's are known from its record."""
    if spec.student is not None:
        return float(spec.student.num_layers)
    known = past.loc[past["role"] == "teacher", "num_layers"].dropna()
    return float(known.iloc[-1]) if len(known) else None


def _line(
    layers: pd.Series, values: pd.Series, at: float | None, least: float = 0.5
) -> float | None:
    """A value at a number of layers, from measured (layers, value) pairs.

    Two or more different numbers of layers give a least-squares line, kept above `least`
    times the smallest measured value, so that a far extrapolation never reaches zero; a
    single one gives its median.
    """
    pairs = pd.DataFrame({"layers": layers, "value": values}).dropna().astype(float)
    if pairs.empty:
        return None
    if at is None or pairs["layers"].nunique() < 2:
        return float(pairs["value"].median())
    slope, start = np.polyfit(pairs["layers"], pairs["value"], 1)
    return max(float(start + slope * at), least * float(pairs["value"].min()))


def _training_s(spec: RunSpec, layers: float | None, past: pd.DataFrame) -> float | None:
    """Seconds of the training, without the teacher's one shared pass over the corpus."""
    if spec.distill is None:
        return 0.0
    taught = past[past["scored_tokens"].fillna(0) > 0]
    per_token = taught["train_seconds"] / taught["scored_tokens"]
    rate = _line(taught["num_layers"], per_token, layers)
    return None if rate is None else rate * spec.distill.max_tokens


def _testing_s(
    spec: RunSpec, layers: float | None, past: pd.DataFrame, scores: pd.DataFrame
) -> float | None:
    """Seconds of the tasks; None when one of them was never run."""
    if spec.capability is None:
        return 0.0
    timed = scores[scores["headline"]].merge(past[["run_id", "num_layers"]], on="run_id")
    total = 0.0
    for name in spec.capability.tasks:
        rows = rows_of(name, timed)
        if rows.empty:
            return None
        for _, one in rows.groupby("task"):
            documents = num_documents(one, spec.capability.limit)
            rate = _line(one["num_layers"], one["seconds"] / one["num_documents"], layers)
            if rate is None:
                return None
            total += rate * documents
    return total


def rows_of(name: str, scores: pd.DataFrame) -> pd.DataFrame:
    """The rows of a task, or of a group: its tasks begin with its name, as lm-eval's own do."""
    exactly = scores["task"] == name
    return scores[exactly if exactly.any() else scores["task"].str.startswith(f"{name}_")]


def num_documents(scores: pd.DataFrame, limit: int | None) -> int:
    """Documents that these tasks will ask with this limit: each task's own number, capped."""
    totals = scores.groupby("task")["num_documents_total"].max()
    return int(totals.clip(upper=limit).sum() if limit else totals.sum())


def _timing_s(spec: RunSpec, layers: float | None, past: pd.DataFrame) -> float | None:
    """Seconds of the timed answers; a student is timed in turns with its teacher."""
    if spec.latency is None:
        return 0.0
    asked = spec.latency
    ttft_ms = _line(past["num_layers"], past["ttft_ms"] / past["prompt_tokens"], layers)
    tpot_ms = _line(past["num_layers"], past["tpot_ms"], layers)
    if ttft_ms is None or tpot_ms is None:
        return None
    answer_ms = ttft_ms * asked.prompt_tokens + tpot_ms * (asked.output_tokens - 1)
    if spec.student is not None:
        theirs = past["teacher_latency_ms"].median()
        answer_ms += float(theirs) if pd.notna(theirs) else answer_ms
    return (asked.warmup + asked.repeats) * answer_ms / 1e3


def _memory_bytes(spec: RunSpec, layers: float | None, past: pd.DataFrame) -> float | None:
    """The larger of timing, as measured, and training, by its arithmetic."""
    timed = _line(past["num_layers"], past["peak_memory_bytes"], layers)
    parameters = _line(past["num_layers"], past["num_parameters"], layers)
    if spec.distill is None or parameters is None:
        return timed
    frozen = 0.0
    if not spec.distill.train_embeddings and past["num_layers"].nunique() > 1:
        frozen = _line(past["num_layers"], past["num_parameters"], 0.0, least=0.0) or 0.0
    trained = max(parameters - frozen, 0.0)
    training = BYTES_PER_TRAINED_PARAMETER * trained + BYTES_PER_FROZEN_PARAMETER * frozen
    return max(training, timed or 0.0)

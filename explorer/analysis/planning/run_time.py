"""How long planned runs will take, from earlier runs on the same kind of device.

Nothing is invented: each part (training, evaluation, timing) is estimated only from earlier runs
that measured it, and the other parts are named. Within one model family a parameter costs about
the same everywhere, so times per token and per document are linear in the number of parameters,
and that is linear in the number of layers.

The latency of runs that were timed on a busy machine is not used. Their seconds of training and
evaluation are, because nothing watched the machine during those.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
import pandas as pd

from explorer.analysis import interference
from explorer.specs import CheckpointStudent, DepthStudent, DistillSpec, RunSpec

OTHER_SHORTCUTS = (
    " No student there was trained with the same shortcuts (precision, sampled vocabulary), so the "
    "training time is a rough guess."
)
"""Appended if the training time comes from students with other shortcuts."""
NOTHING_TO_RUN = "Nothing to run: all results exist."
"""The basis if no run is left."""


@dataclasses.dataclass(frozen=True)
class Estimate:
    """What several runs will take together; None if there is no earlier run to go by."""

    seconds: float | None
    basis: str
    """The earlier runs behind the estimate, as a sentence."""
    unknown: tuple[str, ...]
    """The parts that `seconds` excludes."""


def estimate_runs(
    specs: list[RunSpec],
    runs: pd.DataFrame,
    scores: pd.DataFrame,
    device_name: str | None = None,
    before: Sequence[RunSpec] = (),
) -> Estimate:
    """Seconds of these runs, one after the other.

    Args:
        specs: The planned runs. Those that are finished in `runs` take no time.
        runs: As `frames.runs`; finished runs of the same teacher are looked at.
        scores: As `frames.scores`.
        device_name: Only runs on this device count; None takes the newest run's device.
        before: Runs that will have finished by then; students that they train are not trained
            again.

    Returns:
        The sum over specs, with its basis.
    """
    todo, past = _split(specs, runs, device_name)
    if not todo:
        return Estimate(0.0, NOTHING_TO_RUN, ())
    if past.empty:
        return Estimate(None, "No earlier run of this teacher on this machine to go by.", ())
    num_busy = int(interference.was_busy(past).sum())
    past = interference.without_times(past)
    total, unknown = 0.0, set[str]()
    over = [spec for spec in (*before, *specs) if spec not in todo]
    trained, chosen = (
        {training_key(spec) for spec in over},
        {layer_choice_key(spec) for spec in over},
    )
    for spec in todo:
        alike = _same_runtime(spec, past)
        size = parameters_of(spec, runs) or parameters_of(_teacher_of(spec), runs)
        parts = {
            "training": 0.0 if training_key(spec) in trained else _training_s(spec, size, past),
            "evaluation": _evaluation_s(spec, size, alike, scores),
            "timing": _timing_s(spec, size, alike),
        }
        greedy = getattr(spec.student, "choice", None) == "greedy"
        if greedy and layer_choice_key(spec) not in chosen:
            parts["the greedy choice of layers"] = None
        trained.add(training_key(spec))
        chosen.add(layer_choice_key(spec))
        total += sum(seconds for seconds in parts.values() if seconds is not None)
        unknown |= {name for name, seconds in parts.items() if seconds is None}
    names = past["device_name"].iloc[-1]
    count = f"{len(past)} earlier run{'' if len(past) == 1 else 's'}"
    guessed = not _trained(past).empty and any(
        spec.distill and _trained_alike(spec.distill, past).empty for spec in todo
    )
    return Estimate(
        total or None,
        f"From {count} on {names}."
        + (
            f" {interference.left_out_sentence(num_busy, 'used for training and evaluation only')}."
            if num_busy
            else ""
        )
        + (OTHER_SHORTCUTS if guessed else ""),
        tuple(sorted(unknown)),
    )


def _split(
    specs: list[RunSpec], runs: pd.DataFrame, device_name: str | None
) -> tuple[list[RunSpec], pd.DataFrame]:
    """The specs that are left to run, and the finished runs to estimate them from."""
    finished = runs[runs["status"] == "finished"].sort_values("finished_at")
    done = set(finished["run_id"])
    todo = [spec for spec in specs if spec.run_id not in done]
    teachers = {spec.teacher for spec in todo}
    # An imported run does not state its device.
    past = finished[finished["teacher"].isin(teachers)].dropna(subset=["device_name"])
    if not past.empty:
        past = past[past["device_name"] == (device_name or past["device_name"].iloc[-1])]
    return todo, past


def training_key(spec: RunSpec) -> tuple[object, ...]:
    """What decides a trained student. Runs that share it train the student once."""
    return spec.teacher, spec.student, spec.distill


def layer_choice_key(spec: RunSpec) -> tuple[object, ...]:
    """What decides which layers a student keeps; control arms share it."""
    return spec.teacher, spec.student, spec.distill.control() if spec.distill else None


def _same_runtime(spec: RunSpec, past: pd.DataFrame) -> pd.DataFrame:
    """Earlier runs with the same runtime and bits: llama.cpp, torch, or quantised in torch."""
    in_llama_cpp = past["runtime"].astype("string").str.startswith("llama.cpp").fillna(False)
    if spec.gguf:
        return past[in_llama_cpp]
    # As in "int8 + float32".
    bits = past["dtype"].astype("string").str.extract(r"^int(\d)", expand=False).fillna("")
    return past[~in_llama_cpp & (bits == str(spec.torch_bits or ""))]


def parameters_of(spec: RunSpec, runs: pd.DataFrame) -> float | None:
    """Parameters of the model that a spec measures, from the spec itself or earlier runs."""
    student = spec.student
    if student is None or isinstance(student, CheckpointStudent):
        return measured_value(spec.teacher if student is None else student.model, runs)
    if isinstance(student, DepthStudent):
        alike = _uncut_widths(spec.teacher, runs)
        return _line(alike["num_layers"], alike["num_parameters"], float(student.num_layers))
    return float(student.num_parameters) if student.num_parameters else None


def _teacher_of(spec: RunSpec) -> RunSpec:
    return spec.teacher_run() or spec


def measured_value(model: str, runs: pd.DataFrame, what: str = "num_parameters") -> float | None:
    """A model's value in a column, from the run of that student or teacher."""
    if model.startswith("run:"):
        rows = runs["run_id"] == model.removeprefix("run:")
    else:
        rows = (runs["teacher"] == model) & (runs["role"] == "teacher")
    known = runs.loc[rows, what].dropna()
    return float(known.iloc[-1]) if len(known) else None


def _uncut_widths(teacher: str, runs: pd.DataFrame) -> pd.DataFrame:
    """A teacher and its depth students, which differ only in their layers."""
    rows = (runs["teacher"] == teacher) & (runs["role"] == "teacher")
    return runs[rows | ((runs["teacher"] == teacher) & (runs["kind"] == "depth"))]


def _line(
    sizes: pd.Series, values: pd.Series, at: float | None, least: float = 0.5
) -> float | None:
    """A value at a size, from measured (size, value) pairs.

    Of several runs of one size the median counts, so that one slow moment changes little. Two or
    more sizes give a least-squares line, kept above `least` times the smallest measured value, so
    that an extrapolation never reaches zero.
    """
    pairs = pd.DataFrame({"size": sizes, "value": values}).dropna().astype(float)
    if pairs.empty:
        return None
    if at is None or pairs["size"].nunique() < 2:
        return float(pairs["value"].median())
    medians = pairs.groupby("size")["value"].median()
    slope, start = np.polyfit(medians.index, medians, 1)
    return max(float(start + slope * at), least * float(medians.min()))


def _training_s(spec: RunSpec, size: float | None, past: pd.DataFrame) -> float | None:
    """Seconds of training, without the teacher's shared pass over the corpus."""
    if spec.distill is None:
        return 0.0
    alike = _trained_alike(spec.distill, past)
    trained = _trained(past) if alike.empty else alike
    per_token = trained["train_seconds"] / trained["scored_tokens"]
    rate = _line(trained["num_parameters"], per_token, size)
    return None if rate is None else rate * spec.distill.max_tokens


def _trained(past: pd.DataFrame) -> pd.DataFrame:
    return past[past["scored_tokens"].fillna(0) > 0]


def _trained_alike(distill: DistillSpec, past: pd.DataFrame) -> pd.DataFrame:
    """Students trained with the same shortcuts, which make a step more than twice as fast."""
    trained = _trained(past)
    if trained.empty:
        return trained
    narrow = distill.in_bfloat16(str(trained["device"].iloc[-1]))
    same_dtype = trained["train_dtype"] == ("bfloat16" if narrow else "float32")
    return trained[same_dtype & (trained["vocab_sample"].notna() == bool(distill.vocab_sample))]


def _evaluation_s(
    spec: RunSpec, size: float | None, past: pd.DataFrame, scores: pd.DataFrame
) -> float | None:
    """Seconds of the tasks; None if one of them was never run."""
    if spec.capability is None:
        return 0.0
    timed = scores[scores["headline"]].merge(past[["run_id", "num_parameters"]], on="run_id")
    total = 0.0
    for name in spec.capability.tasks:
        rows = task_rows(name, timed)
        if rows.empty:
            return None
        for _, task in rows.groupby("task"):
            documents = num_documents(task, spec.capability.limit)
            rate = _line(task["num_parameters"], task["seconds"] / task["num_documents"], size)
            if rate is None:
                return None
            total += rate * documents
    return total


def task_rows(name: str, scores: pd.DataFrame) -> pd.DataFrame:
    """The rows of a task, or of a group, whose tasks begin with its name as in lm-eval."""
    exactly = scores["task"] == name
    return scores[exactly if exactly.any() else scores["task"].str.startswith(f"{name}_")]


def num_documents(scores: pd.DataFrame, limit: int | None) -> int:
    """Documents of these tasks under this limit."""
    known = scores["num_documents_total"].fillna(scores["num_documents"])
    totals = known.groupby(scores["task"]).max()
    return int(totals.clip(upper=limit).sum() if limit else totals.sum())


def _timing_s(spec: RunSpec, size: float | None, past: pd.DataFrame) -> float | None:
    """Seconds of the timed requests; a student is timed in turns with its teacher."""
    if spec.latency is None:
        return 0.0
    latency = spec.latency
    ttft_ms = _line(past["num_parameters"], past["ttft_ms"] / past["prompt_tokens"], size)
    tpot_ms = _line(past["num_parameters"], past["tpot_ms"], size)
    if ttft_ms is None or tpot_ms is None:
        return None
    answer_ms = ttft_ms * latency.prompt_tokens + tpot_ms * (latency.output_tokens - 1)
    if not spec.is_teacher:
        teacher_ms = past["teacher_latency_ms"].median()
        answer_ms += float(teacher_ms) if pd.notna(teacher_ms) else answer_ms
    return (latency.warmup + latency.repeats) * answer_ms / 1e3

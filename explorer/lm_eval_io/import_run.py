"""Results from elsewhere become a record of the store, with their provenance.

explorer import FOLDER --as NAME
explorer import FOLDER bench.json --as NAME --device 'NVIDIA H200'
"""

import dataclasses
import datetime
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pydantic

from explorer.errors import BadInput
from explorer.files import durable_files
from explorer.lm_eval_io import evaluations, results, samples
from explorer.lm_eval_io import timings as timings_io
from explorer.lm_eval_io.results import OutputFolder
from explorer.records import (
    Capability,
    Imported,
    ImportedTiming,
    Latency,
    RunRecord,
    Timing,
)
from explorer.specs import CapabilitySpec, RunSpec
from explorer.store import disk


def import_folder(
    root: Path,
    folder: Path,
    name: str,
    teacher: str | None = None,
    *,
    only: str = "",
    combine: bool = False,
    timings: Sequence[Path] = (),
    device: str | None = None,
    served_as: str | None = None,
) -> tuple[str, list[str]]:
    """Write an output folder of lm-eval, and perhaps timings, to the store as a finished run.

    Args:
        root: The store.
        folder: What lm-eval wrote, or one results file of it.
        name: Begins the run's id. The rest is a hash of the files, so the same folder under the
            same name is the same run.
        teacher: The run that this model is a student of; None makes it a teacher.
        only: A part of the path of the results file that is meant, if there are several.
        combine: Whether several evaluations of one model under the same settings make one run.
        timings: Result files of guidellm, AIPerf or vLLM's bench; those in the folder count too.
        device: What served the model that was timed, if the files do not say it.
        served_as: The model's name in the timings, if it is another than in the scores.

    Returns:
        The run's id, and a sentence for each thing that was left out or does not fit together.

    Raises:
        SeveralEvaluations: The folder holds several evaluations, and it is not clear which is
            meant.
        BadInput: Nothing in the folder can be read, the name is not possible, or there is no such
            teacher.
    """
    taught_by = None if teacher is None else disk.load(root, teacher).spec.teacher
    output = results.read_output_folder(folder, only, combine=combine)
    timed = _timed(folder, timings, evaluations.model_name(output.about), device, served_as)
    # What there always was comes first, so that a folder keeps its run's id.
    parts = [sorted(output.files.items()), teacher, *([timed.source.model_dump()] if timed else [])]
    run_id = f"{name}-{hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:8]}"
    place = folder.resolve()
    if timed:
        output.problems += timed.problems
    record = _record(output, run_id, name, (place if place.is_dir() else place.parent).name)
    if timed and record.imported:
        imported = record.imported.model_copy(update={"timing": timed.source})
        latency = Latency(own=timed.timing, seconds=timed.seconds)
        record = record.model_copy(update={"imported": imported, "latency": latency})
    if taught_by is not None:
        spec = record.spec.model_copy(update={"teacher": taught_by})
        record = record.model_copy(update={"teacher_run_id": teacher, "spec": spec})
    target = disk.run_folder(root, run_id)
    (target / disk.CAPABILITY).mkdir(parents=True, exist_ok=True)
    _write_results(output, target / disk.CAPABILITY, record.finished_at)
    if output.answers:
        disk.write_answers(root, run_id, pd.concat(output.answers, ignore_index=True))
    disk.save(root, record)
    return run_id, output.problems


@dataclasses.dataclass(frozen=True)
class _Timed:
    timing: Timing
    source: ImportedTiming
    seconds: float
    problems: list[str]


def _timed(
    folder: Path,
    paths: Sequence[Path],
    model: str,
    device: str | None,
    served_as: str | None,
) -> _Timed | None:
    """The timings of a model in these files and in its folder; None if there are none.

    Raises:
        BadInput: A file has no timings or those of another model, or the device is not known.
    """
    wanted = served_as or model
    problems: list[str] = []
    files: dict[str, str] = {}
    levels: list[timings_io.TimedLevel] = []
    beside = sorted(folder.rglob("*.json")) if folder.is_dir() else []
    for path in dict.fromkeys([*paths, *beside]):
        found = timings_io.read_levels(path)
        if path in paths and not found:
            raise BadInput(
                f"{path.name} is not a result of guidellm (benchmarks.json), AIPerf "
                "(profile_export_aiperf.json) or vLLM's bench (--save-result)."
            )
        other = [one for one in found if not timings_io.same_model(one.model or "", wanted)]
        if other:
            sentence = (
                f"{path.name} timed {other[0].model or 'a model that it does not name'}, and the "
                f"scores are of {model}. If that is the same model, say so: --served-as "
                f"{other[0].model or 'NAME'}"
            )
            unnamed = served_as is not None and other[0].model is None
            if path in paths and not unnamed:
                raise BadInput(sentence)
            if not unnamed:
                problems.append(f"{sentence}. The file is left out.")
                continue
        if found:
            levels += found
            files[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
    if not levels:
        return None
    named = device or next((one.device for one in levels if one.device), None)
    if named is None:
        raise BadInput(
            f"{next(iter(files))} does not say what served the model, and costs need it. Name it "
            "as your prices do, as in: --device 'NVIDIA H200'"
        )
    timing, left_out = timings_io.timing(levels)
    own = min(levels, key=lambda one: (one.concurrency, one.kind != "clients"))
    source = ImportedTiming(
        tool=f"{own.tool} {own.version or ''}".strip(),
        model=own.model or wanted,
        device_name=named,
        load=own.in_words(),
        files=files,
    )
    return _Timed(timing, source, sum(one.seconds for one in levels), [*problems, *left_out])


def _record(output: OutputFolder, run_id: str, name: str, folder: str) -> RunRecord:
    about = output.about
    config = about.get("config")
    config = config if isinstance(config, dict) else {}
    tasks = tuple(dict.fromkeys(score.task for score in output.scores))
    template = about.get("chat_template") or config.get("apply_chat_template")
    model = evaluations.model_name(about)
    try:
        spec = RunSpec(
            name=name,
            teacher=model,
            latency=None,
            capability=CapabilitySpec(tasks=tasks, apply_chat_template=bool(template)),
        )
    except pydantic.ValidationError as error:
        raise BadInput(
            f"{name!r} cannot be a run's name: use small letters, digits, dots, dashes and "
            "underscores, at most 80."
        ) from error
    evaluated = datetime.datetime.fromtimestamp(about["date"], datetime.UTC)
    dtype = config.get("model_dtype")
    return RunRecord(
        run_id=run_id,
        spec=spec,
        status="finished",
        started_at=evaluated.isoformat(timespec="seconds"),
        finished_at=evaluated.isoformat(timespec="seconds"),
        capability=Capability(
            lm_eval_version=evaluations.text(about.get("lm_eval_version")),
            scores=output.scores,
            seconds=_seconds(about.get("total_evaluation_time_seconds")),
        ),
        imported=Imported(
            folder=folder,
            files=output.files,
            model=model,
            dtype=dtype.removeprefix("torch.") if isinstance(dtype, str) else None,
            git_hash=evaluations.text(about.get("git_hash")),
            system_prompt=_digest(about.get("system_instruction")),
            problems=output.problems,
        ),
    )


def _write_results(output: OutputFolder, folder: Path, when: str) -> None:
    """Results and samples in today's form, where pages and exports look for them."""
    date = results.file_date(when)
    document = results.results_document(output.about, output.sections)
    durable_files.write_text(folder / f"results_{date}.json", json.dumps(document, indent=1) + "\n")
    for task, lines in output.samples.items():
        text = "".join(json.dumps(line, ensure_ascii=True) + "\n" for line in lines)
        durable_files.write_text(folder / f"samples_{samples.file_part(task)}_{date}.jsonl", text)


def _digest(value: Any) -> str | None:
    if not isinstance(value, str) or not value:
        return None
    return hashlib.sha256(value.encode("utf-8", "replace")).hexdigest()[:8]


def _seconds(value: Any) -> float | None:
    try:
        seconds = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return seconds if 0 <= seconds < 1e12 else None

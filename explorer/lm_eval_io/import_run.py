"""Results from elsewhere become a record of the store, with their provenance.

explorer import FOLDER --as NAME
"""

import datetime
import hashlib
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pydantic

from explorer.errors import BadInput
from explorer.lm_eval_io import evaluations, results, samples
from explorer.lm_eval_io.results import OutputFolder
from explorer.records import Capability, Imported, RunRecord
from explorer.specs import CapabilitySpec, RunSpec
from explorer.store import atomic, disk


def import_folder(
    root: Path,
    folder: Path,
    name: str,
    teacher: str | None = None,
    *,
    only: str = "",
    combine: bool = False,
) -> tuple[str, list[str]]:
    """Write an output folder of lm-eval to the store as a finished run.

    Args:
        root: The store.
        folder: What lm-eval wrote, or one results file of it.
        name: Begins the run's id. The rest is a hash of the files, so the same folder under the
            same name is the same run.
        teacher: The run that this model is a student of; None makes it a teacher.
        only: A part of the path of the results file that is meant, if there are several.
        combine: Whether several evaluations of one model under the same settings make one run.

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
    digest = hashlib.sha256(json.dumps([sorted(output.files.items()), teacher]).encode())
    run_id = f"{name}-{digest.hexdigest()[:8]}"
    place = folder.resolve()
    record = _record(output, run_id, name, (place if place.is_dir() else place.parent).name)
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
    atomic.write_text(folder / f"results_{date}.json", json.dumps(document, indent=1) + "\n")
    for task, lines in output.samples.items():
        text = "".join(json.dumps(line, ensure_ascii=True) + "\n" for line in lines)
        atomic.write_text(folder / f"samples_{samples.file_part(task)}_{date}.jsonl", text)


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

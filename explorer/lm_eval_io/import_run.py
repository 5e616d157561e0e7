"""Results that were made elsewhere become a record of the store, with their provenance.

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
from explorer.lm_eval_io import results, samples
from explorer.records import Capability, Imported, RunRecord
from explorer.specs import CapabilitySpec, RunSpec
from explorer.store import disk


def import_folder(
    root: Path, folder: Path, name: str, teacher: str | None = None
) -> tuple[str, list[str]]:
    """Write an output folder of lm-eval to the store as a finished run.

    Args:
        root: The store.
        folder: What lm-eval wrote.
        name: Begins the run's id; the rest is a hash of the files, so that the same folder
            under the same name is the same run.
        teacher: The run that this model is a student of; None makes it a teacher.

    Returns:
        The run's id, and a sentence for each thing that was left out.

    Raises:
        BadInput: Nothing readable in the folder, a name that cannot be one, no such teacher.
    """
    if teacher is not None:
        disk.load(root, teacher)
    found = results.read_output_folder(folder)
    digest = hashlib.sha256(json.dumps([sorted(found.files.items()), teacher]).encode())
    run_id = f"{name}-{digest.hexdigest()[:8]}"
    record = _record(found, run_id, name, teacher, folder.resolve().name)
    target = disk.run_folder(root, run_id)
    (target / "capability").mkdir(parents=True, exist_ok=True)
    _keep(found, target / "capability", record.finished_at)
    if found.answers:
        disk.write_answers(root, run_id, pd.concat(found.answers, ignore_index=True))
    disk.save(root, record)
    return run_id, found.problems


def _record(
    found: results.OutputFolder, run_id: str, name: str, teacher: str | None, folder: str
) -> RunRecord:
    about = found.about
    config = about.get("config") if isinstance(about.get("config"), dict) else {}
    assert isinstance(config, dict), "narrowed above"
    tasks = tuple(dict.fromkeys(score.task for score in found.scores))
    template = about.get("chat_template") or config.get("apply_chat_template")
    model = _model(about, config)
    try:
        spec = RunSpec(
            name=name,
            teacher=model,
            latency=None,
            capability=CapabilitySpec(tasks=tasks, apply_chat_template=bool(template)),
        )
    except pydantic.ValidationError as error:
        raise BadInput(
            f"{name!r} cannot be a run's name: small letters, digits, dot, dash and underscore, "
            "80 at most."
        ) from error
    when = _when(about.get("date"))
    dtype = config.get("model_dtype")
    return RunRecord(
        run_id=run_id,
        teacher_run_id=teacher,
        spec=spec,
        status="finished",
        started_at=when,
        finished_at=when,
        capability=Capability(
            lm_eval_version=_text(about.get("lm_eval_version")),
            scores=found.scores,
            seconds=_seconds(about.get("total_evaluation_time_seconds")),
        ),
        imported=Imported(
            folder=folder,
            files=found.files,
            model=model,
            dtype=dtype.removeprefix("torch.") if isinstance(dtype, str) else None,
            git_hash=_text(about.get("git_hash")),
            problems=found.problems,
        ),
    )


def _keep(found: results.OutputFolder, folder: Path, when: str) -> None:
    """Results and samples in today's form, where pages and exports look for them."""
    date = results.file_date(when)
    document = results.results_document(found.about, found.said)
    disk.write_text(folder / f"results_{date}.json", json.dumps(document, indent=1) + "\n")
    for task, lines in found.samples.items():
        text = "".join(json.dumps(line, ensure_ascii=True) + "\n" for line in lines)
        disk.write_text(folder / f"samples_{samples.file_part(task)}_{date}.jsonl", text)


def _model(about: dict[str, Any], config: dict[str, Any]) -> str:
    """The model's name as lm-eval says it; what kind of model it is where it says no more."""
    arguments = config.get("model_args")
    if isinstance(arguments, str):
        pairs = (part.partition("=") for part in arguments.split(","))
        arguments = {key.strip(): value.strip() for key, _, value in pairs}
    named = arguments if isinstance(arguments, dict) else {}
    for one in (about.get("model_name"), named.get("pretrained"), named.get("model")):
        if isinstance(one, str) and one:
            return _plain(one)
    return _text(config.get("model")) or "imported model"


def _when(value: Any) -> str:
    """The evaluation's date, or the file's own."""
    number = value if isinstance(value, int | float) and 0 <= value < 4e9 else 0
    return datetime.datetime.fromtimestamp(number, datetime.UTC).isoformat(timespec="seconds")


def _seconds(value: Any) -> float | None:
    try:
        seconds = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return seconds if 0 <= seconds < 1e12 else None


def _text(value: Any) -> str | None:
    return _plain(value) if isinstance(value, str) and value else None


def _plain(text: str) -> str:
    """Text that can be stored: halves of letters, which JSON may hold, become question marks."""
    return text[:200].encode("utf-8", "replace").decode()

"""results/ on disk: one folder a run, written once, listed as a DataFrame.

results/<run_id>/spec.yaml       the run's spec
                 status.json     live progress, rewritten during the run
                 log.txt         what the run printed
                 capability/     lm-eval's own results_*.json and samples_*.jsonl
                 answers.parquet one row per document and metric, for the paired statistics
                 weights.txt     where the student's weights are: .students/<key>/model
                 record.json     written last: the current result
                 record.N.json   earlier results, and attempts that did not replace one
                 again, next/    while a finished run is measured again: the request, and the new
                                 files, which replace the run's when it finishes
results/.students/<key>/         weights of finished students, shared by runs; not committed, and
                                 only training recreates them
results/.work/                   targets, texts, checkpoints: shared by runs, not committed,
                                 recreated when needed
"""

import contextlib
import difflib
import itertools
import os
import re
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pandas as pd

from explorer.errors import BadInput, CannotRead, DamagedStore
from explorer.files import durable_files
from explorer.records import RunRecord
from explorer.specs import RunSpec

RUN_ID = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}")
RECORD, STATUS, SPEC, LOG, CANCEL = "record.json", "status.json", "spec.yaml", "log.txt", "cancel"
SERVER_LOG = "server.log"
"""The output of the server in which the run's model was timed."""
ANSWERS, WEIGHTS, CAPABILITY = "answers.parquet", "weights.txt", "capability"
ANSWER_COLUMNS = ["task", "metric", "doc_id", "doc_hash", "value"]
REMEASURE, NEW_RESULTS = "again", "next"
STUDENTS, STUDENTS_BEFORE = ".students", ".work/students"
"""Where finished students are, and where earlier versions left them."""
TOURNAMENTS = ".work/tournaments"
CLEANING = "clean"
"""Name of the lock under which leftovers are removed; a run takes it for a moment at its start."""
MOST_CANDIDATES = 8
"""Ids that an error lists if several begin with what was typed."""
MOST_CLOSE = 3
"""Ids that an error lists if none begins with what was typed."""


def run_folder(root: Path, run_id: str) -> Path:
    """The folder of a run, whether it exists or not.

    Raises:
        BadInput: The id could reach outside the store.
    """
    if not RUN_ID.fullmatch(run_id):
        raise BadInput(
            f"A run's id has small letters, digits, dots, dashes and underscores, got {run_id!r}."
        )
    return root / run_id


def lock_file(root: Path, name: str) -> Path:
    """The file of a lock of the store: a run's has its id for a name."""
    return root / ".work" / "locks" / f"{name}.lock"


def open_run(root: Path, spec: RunSpec) -> Path:
    """Create the run's folder with its spec. An existing one stays, unless it is not this run's.

    Raises:
        BadInput: Another spec has the same id, so the folder and its results are of that one. An
            id ends in eight hex digits of a hash: two of 100,000 specs of one name may share it.
    """
    path = run_folder(root, spec.run_id) / SPEC
    reason = ""
    try:
        existing = RunSpec.from_yaml(durable_files.read_text(path), str(path))
    except (FileNotFoundError, CannotRead):
        pass
    except (DamagedStore, BadInput) as error:
        reason = str(error)
    else:
        if existing.run_id != spec.run_id:
            reason = f"{path} is of {existing.run_id}."
        elif existing.identity() != spec.identity():
            raise BadInput(
                f"The store has another run with the id {spec.run_id}: ids are hashes, and these "
                "two are equal by chance. Give the new run another name."
            )
    if reason:
        durable_files.set_aside(path, reason)
    if not path.exists():
        durable_files.write_text(path, spec.to_yaml())
    return path.parent


def read_spec(root: Path, run_id: str) -> RunSpec:
    """The spec of a run: the one in its record, or, while it has none, the one in its folder.

    A store may come from somebody else, so the two and the folder's name must agree: what is run
    again is the run that its record shows. A damaged spec.yaml says nothing, and the record counts.

    Raises:
        BadInput: There is no such run, it was imported, or they disagree.
    """
    path = run_folder(root, run_id) / SPEC
    if path.with_name(RECORD).is_file() and not path.is_file():
        raise BadInput(f"{run_id} was imported: it has no {SPEC}, so it cannot be run here.")
    if not path.is_file():
        raise BadInput(f"There is no run {run_id!r} in {root}. `explorer ls` lists them.")
    recorded = _recorded_spec(path.with_name(RECORD))
    try:
        spec = RunSpec.from_yaml(durable_files.read_text(path), str(path))
    except (DamagedStore, BadInput):
        if recorded is None:
            raise
        spec = recorded
    named = {str(path): spec.run_id} | ({RECORD: recorded.run_id} if recorded else {})
    for source, named_id in named.items():
        if named_id != run_id:
            raise BadInput(
                f"The folder {path.parent} is not of one run: its name says {run_id}, but "
                f"{source} holds the spec of {named_id}. Was it copied or edited by hand? Nothing "
                f"was started; to run that spec, copy {SPEC} elsewhere and name the copy."
            )
    return recorded or spec


def _recorded_spec(path: Path) -> RunSpec | None:
    """The spec in a record; None if there is no record, or none that can be read."""
    try:
        return RunRecord.from_json(durable_files.read_text(path), str(path)).spec
    except (FileNotFoundError, DamagedStore):
        return None


def save(root: Path, record: RunRecord) -> Path:
    """Write a record, after everything else that the run writes; return its file.

    A finished record stays record.json until another finished one replaces it. A replaced record,
    and an unfinished attempt beside a finished one, is stored as record.N.json. No record is ever
    overwritten.
    """
    folder = run_folder(root, record.run_id)
    path, text = folder / RECORD, durable_files.with_checksum(record.to_json())
    if record.status != "finished" and is_finished(root, record.run_id):
        numbered = _new_number(folder)
        durable_files.write_text(numbered, text)
        (folder / REMEASURE).unlink(missing_ok=True)
        return numbered
    if path.exists() and path.read_bytes() != text.encode():
        durable_files.write_bytes(_new_number(folder), path.read_bytes())
    measured_again = (folder / REMEASURE).exists()
    if measured_again:
        # Before the record: readers of the new record expect these files to belong to it.
        _replace_evidence(folder)
    durable_files.write_text(path, text)
    if measured_again:
        shutil.rmtree(folder / NEW_RESULTS, ignore_errors=True)
        (folder / REMEASURE).unlink(missing_ok=True)
    return path


def _new_number(folder: Path) -> Path:
    """The first unused record.N.json, created now so that no other process takes it."""
    for number in itertools.count(1):
        path = folder / f"record.{number}.json"
        with contextlib.suppress(FileExistsError):
            path.touch(exist_ok=False)
            return path
    raise AssertionError("itertools.count does not end")


def _replace_evidence(folder: Path) -> None:
    """Replace the answers of the old result by the new ones. Safe to repeat."""
    for name in (CAPABILITY, ANSWERS):
        new, old = folder / NEW_RESULTS / name, folder / name
        if new.exists():
            if old.exists():
                replaced = folder / NEW_RESULTS / f"replaced-{name}"
                shutil.rmtree(replaced, ignore_errors=True)
                old.replace(replaced)
            new.replace(old)


def load(root: Path, run_id: str) -> RunRecord:
    """Read one record.

    Raises:
        BadInput: There is no such run, or it has no record yet.
        DamagedStore: The file is not a record.
    """
    path = run_folder(root, run_id) / RECORD
    try:
        text = durable_files.read_text(path)
    except FileNotFoundError as error:
        raise BadInput(f"There is no record of {run_id!r} in {root}.") from error
    record = RunRecord.from_json(text, str(path))
    if record.run_id != run_id:
        raise DamagedStore(f"{path} holds the record of {record.run_id!r}; was it copied by hand?")
    return record


def run_ids(root: Path) -> list[str]:
    """Names of all folders that could be runs, with or without a record."""
    return list_folders(root)[0]


def list_folders(root: Path) -> tuple[list[str], list[str]]:
    """As `run_ids`, and one sentence for each entry that cannot be looked into."""
    if not root.is_dir():
        return [], []
    names, problems = [], []
    for entry in os.scandir(root):
        try:
            if entry.is_dir() and RUN_ID.fullmatch(entry.name):
                names.append(entry.name)
        except OSError as error:
            problems.append(f"{root / entry.name} cannot be opened: {error.strerror}.")
    return sorted(names), sorted(problems)


def is_run(root: Path, run_id: str) -> bool:
    """Whether the folder of this name holds a run: its spec, its record, or both."""
    folder = root / run_id
    return (folder / SPEC).is_file() or (folder / RECORD).is_file()


def resolve_run_id(root: Path, text: str) -> str:
    """The run that `text` names: its whole id, or a prefix that no other run shares.

    Raises:
        BadInput: No run's id has this prefix, or several do; the message names candidates.
    """
    if run_folder(root, text).is_dir() and is_run(root, text):
        return text
    known = [name for name in run_ids(root) if is_run(root, name)]
    return resolve_id(
        text, known, "runs", f"There is no run {text!r} in {root}.", "`explorer ls` lists them."
    )


def resolve_id(text: str, known: Collection[str], noun: str, absent: str, see: str) -> str:
    """The id that equals `text`, or the only one that begins with it.

    Args:
        text: What a person typed.
        known: All ids.
        noun: What they identify, in the plural, as in runs.
        absent: The first sentence of the error if no id begins with `text`.
        see: The sentence that says which command lists the ids.

    Raises:
        BadInput: No id has this prefix, or several do; the message names candidates.
    """
    matches = [text] if text in known else sorted(name for name in known if name.startswith(text))
    if len(matches) == 1:
        return matches[0]
    if matches:
        rest = len(matches) - MOST_CANDIDATES
        more = f" and {rest:,} more" if rest > 0 else ""
        raise BadInput(
            f"{text!r} begins the ids of {len(matches):,} {noun}: "
            f"{', '.join(matches[:MOST_CANDIDATES])}{more}. Type more of the id."
        )
    containing = [name for name in known if text in name]
    similar = difflib.get_close_matches(text, known, n=MOST_CLOSE)
    close = list(dict.fromkeys([*containing, *similar]))[:MOST_CLOSE]
    like_it = f"Close to it: {', '.join(close)}. " if close else ""
    raise BadInput(f"{absent} {like_it}{see}")


def load_records(root: Path) -> tuple[list[RunRecord], list[str]]:
    """All readable records, and one sentence for each folder that could not be read.

    A damaged or foreign folder is reported. It is never fatal and never deleted.
    """
    loaded, problems = [], []
    for run_id in run_ids(root):
        folder = root / run_id
        if not (folder / RECORD).exists():
            if not (folder / SPEC).exists():
                problems.append(f"{folder} is not a run: it has neither {SPEC} nor {RECORD}.")
            continue
        try:
            loaded.append(load(root, run_id))
        except (DamagedStore, BadInput) as error:
            problems.append(str(error))
    return loaded, problems


def is_finished(root: Path, run_id: str) -> bool:
    """Whether a run has a readable, finished record."""
    try:
        return load(root, run_id).status == "finished"
    except (BadInput, DamagedStore):
        return False


def request_remeasure(root: Path, run_id: str) -> None:
    """Request that a finished run is measured again. Its record stays valid until then.

    What the spec alone decides (student, scores) is reused if it is still on disk. What the machine
    decides (latency, memory) is measured again.
    """
    if is_finished(root, run_id):
        durable_files.write_text(run_folder(root, run_id) / REMEASURE, "")
    shutil.rmtree(root / ".work" / "stages" / run_id, ignore_errors=True)


def remeasure_requested(root: Path, run_id: str) -> bool:
    """Whether a finished run is to be measured again."""
    return (run_folder(root, run_id) / REMEASURE).exists()


def withdraw_remeasure(root: Path, run_id: str) -> None:
    """Withdraw the request to measure a run again; its record was valid all the time."""
    (run_folder(root, run_id) / REMEASURE).unlink(missing_ok=True)


def output_folder(root: Path, run_id: str) -> Path:
    """Where a run under way writes: its folder, or NEXT in it while it is measured again."""
    folder = run_folder(root, run_id)
    return folder / NEW_RESULTS if remeasure_requested(root, run_id) else folder


def share_results(root: Path, run_id: str) -> None:
    """Let a run that is measured again begin with a copy of the answers of its result in force."""
    source, copy = run_folder(root, run_id) / CAPABILITY, output_folder(root, run_id) / CAPABILITY
    if source.is_dir() and not copy.exists():
        shutil.copytree(source, copy)


def read_status(root: Path, run_id: str) -> dict[str, Any] | None:
    """The live status of a run, or None when it has written none."""
    try:
        return durable_files.read_json(run_folder(root, run_id) / STATUS, dict[str, Any])
    except (FileNotFoundError, DamagedStore):
        return None


def write_status(root: Path, run_id: str, status: dict[str, Any]) -> None:
    """Replace the live status of a run."""
    durable_files.write_json(run_folder(root, run_id) / STATUS, status)


def restore_status(root: Path, run_id: str, status: dict[str, Any] | None) -> None:
    """Put an earlier status back, or none, when an attempt has not begun after all."""
    if status is None:
        (run_folder(root, run_id) / STATUS).unlink(missing_ok=True)
    else:
        write_status(root, run_id, status)


def write_weights(root: Path, run_id: str, folder: Path) -> None:
    """Write where a run's student is, relative to the store. Runs may share a student."""
    durable_files.write_text(
        run_folder(root, run_id) / WEIGHTS, str(folder.relative_to(root)) + "\n"
    )


def free_bytes(root: Path) -> int:
    """Free space where runs put their large files: the working folder, or where it will be."""
    work = root / ".work"
    folder = next(path for path in (work, root, *root.resolve().parents) if path.exists())
    return shutil.disk_usage(folder).free


def weights_folder(root: Path, run_id: str) -> Path | None:
    """The folder of a run's student; None if its weights are not on this machine.

    Old runs name the folder in which students were trained. Their students are still there, or
    have moved to the finished ones.
    """
    try:
        name = durable_files.read_text(run_folder(root, run_id) / WEIGHTS).strip()
    except (FileNotFoundError, DamagedStore):
        return None
    return weights_by_name(root, name)


def weights_by_name(root: Path, name: str) -> Path | None:
    """The folder that a run's WEIGHTS names, or None when it is not on this machine."""
    for place in dict.fromkeys([name, name.replace(STUDENTS_BEFORE, STUDENTS, 1)]):
        # A file from elsewhere may name no place outside; the store's own folders may be links.
        inside = not Path(place).is_absolute() and ".." not in Path(place).parts
        if inside and (root / place / "config.json").is_file():
            return (root / place).absolute()
    return None


def request_cancel(root: Path, run_id: str) -> None:
    """Request that a run stops. It checks before it starts and at every step."""
    durable_files.write_text(run_folder(root, run_id) / CANCEL, "")


def withdraw_cancel(root: Path, run_id: str) -> None:
    """Withdraw the request to stop, before a run is started again."""
    (run_folder(root, run_id) / CANCEL).unlink(missing_ok=True)


def cancel_requested(root: Path, run_id: str) -> bool:
    """Whether the run was requested to stop."""
    return (run_folder(root, run_id) / CANCEL).exists()


def write_answers(root: Path, run_id: str, answers: pd.DataFrame) -> None:
    """Write a run's answers. `load_answers` reads them once the run's record is saved."""
    path = output_folder(root, run_id) / ANSWERS
    with durable_files.new_file(path) as partial:
        answers.to_parquet(partial, index=False, write_page_checksum=True)


def load_answers(root: Path, run_id: str) -> pd.DataFrame:
    """A run's value for every document and metric; empty if it has none.

    Columns: task, metric, doc_id, doc_hash, value and, except in old runs, chance (expected score
    of guessing) and cluster (what several documents share).
    """
    path = run_folder(root, run_id) / ANSWERS
    durable_files.check_regular(path)
    if not path.exists():
        return pd.DataFrame(columns=ANSWER_COLUMNS)
    try:
        answers = pd.read_parquet(path, page_checksum_verification=True)
    except Exception as error:  # of pyarrow, which has no class for a damaged file
        raise durable_files.damaged(path, f"cannot be read: {error}") from error
    missing = [name for name in ANSWER_COLUMNS if name not in answers]
    if missing:
        raise durable_files.damaged(path, f"lacks the columns {', '.join(missing)}")
    return answers

"""A task's files on disk: lm-eval's own formats, and a marker that the task is finished.

    results_DATE.json         lm-eval's results and configuration
    samples_TASK_DATE.jsonl   lm-eval's samples, one document per line
    finished_TASK.json        ours: the task's key, the names of the two files, the scores
    asked_TASK.jsonl          ours: the answers of an unfinished task

Source: github.com/EleutherAI/lm-evaluation-harness, `loggers/evaluation_tracker.py`.
"""

import contextlib
import dataclasses
import json
import logging
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from lm_eval.utils import handle_non_serializable, sanitize_list

from explorer.errors import DamagedStore
from explorer.files import durable_files
from explorer.files.durable_files import FileSum
from explorer.records import TaskScore
from explorer.store import inside

log = logging.getLogger("explorer")


@dataclasses.dataclass(frozen=True)
class FinishedTask:
    """A task's results."""

    scores: list[TaskScore]
    samples: list[dict[str, Any]]
    """As lm-eval writes them, one per scored document."""
    refused: dict[int, str]
    """Ids of documents whose prompts an endpoint refused, and why; they are in no score."""
    request_changes: list[str]
    """Fields that the endpoint did not take, and what was sent instead, a sentence each."""


@dataclasses.dataclass(frozen=True)
class TaskFiles:
    """The files of one task in a run's folder."""

    folder: Path
    task: str
    key: str
    """A hash of everything that decides the answers."""

    @property
    def file_part(self) -> str:
        """The task's name as part of a file name; group::task and org/task are valid task names."""
        return re.sub(r"[^\w.-]", "_", self.task)

    @property
    def marker(self) -> Path:
        """Written last: a task with this file is finished."""
        return self.folder / f"finished_{self.file_part}.json"

    @property
    def partial_answers(self) -> Path:
        """The answers so far; deleted when the task is finished."""
        return self.folder / f"asked_{self.file_part}.jsonl"

    def read(self) -> FinishedTask | None:
        """The task if it was finished under the same key, else None."""
        try:
            marker = durable_files.read_json(self.marker, dict[str, Any])
            if marker["key"] != self.key:
                return None
            scores = [TaskScore.model_validate(score) for score in marker["scores"]]
            (path,) = self._named_files(marker, "samples")
            if "samples_sum" in marker:  # not in markers of older versions
                stated = FileSum.model_validate(marker["samples_sum"])
                durable_files.check_files(self.folder, {path.name: stated})
            text = durable_files.read_text(path, durable_files.MAX_JOURNAL_BYTES)
            # Not splitlines: a document may contain unescaped U+2028, which it would split at.
            samples = [json.loads(line) for line in text.split("\n") if line]
            refused = {int(doc_id): str(why) for doc_id, why in marker.get("refused", {}).items()}
            changes = [str(change) for change in marker.get("request_changes", [])]
            return FinishedTask(scores, samples, refused, changes)
        except FileNotFoundError:
            return None
        except (DamagedStore, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            log.warning("The answers of %s are evaluated again: %s", self.task, error)
            return None

    def write(self, results: dict[str, Any], finished: FinishedTask) -> None:
        """Write samples (`as_logged_sample`), results and the marker; then delete older files."""
        older = [self.partial_answers]
        with contextlib.suppress(DamagedStore, OSError, KeyError, TypeError):
            marker = durable_files.read_json(self.marker, dict[str, Any])
            older += self._named_files(marker, "samples", "results")
        date = datetime.now(UTC).replace(tzinfo=None).isoformat().replace(":", "-")
        samples_file, results_file = (
            f"samples_{self.file_part}_{date}.jsonl",
            f"results_{date}.json",
        )
        lines = "".join(_dump(sample) + "\n" for sample in finished.samples)
        durable_files.write_text(self.folder / samples_file, lines)
        durable_files.write_text(self.folder / results_file, _dump(results, indent=1) + "\n")
        marker = {
            "key": self.key,
            "samples": samples_file,
            "results": results_file,
            "scores": [score.model_dump() for score in finished.scores],
            "samples_sum": durable_files.file_sum(self.folder / samples_file).model_dump(),
        }
        if finished.refused:
            marker["refused"] = finished.refused
        if finished.request_changes:
            marker["request_changes"] = finished.request_changes
        durable_files.write_json(self.marker, marker, indent=1)
        for path in older:
            path.unlink(missing_ok=True)

    def _named_files(self, marker: dict[str, Any], *keys: str) -> list[Path]:
        """The files that a marker names under these keys.

        A store may come from somebody else: what is not named as `write` names it is left out, so
        that a marker can neither read nor delete anything else.
        """
        ours = {
            "samples": rf"samples_{re.escape(self.file_part)}_[\d.T-]+\.jsonl",
            "results": r"results_[\d.T-]+\.json",
        }
        named = {key: str(marker.get(key)) for key in keys if marker.get(key) is not None}
        paths = [
            inside.file_in(self.folder, name)
            for key, name in named.items()
            if re.fullmatch(ours[key], name)
        ]
        return [path for path in paths if path is not None]


def _dump(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, default=handle_non_serializable, ensure_ascii=False, indent=indent)


def as_logged_sample(sample: dict[str, Any]) -> dict[str, Any]:
    """A sample as it will be read back from lm-eval's samples_*.jsonl."""
    arguments = {
        f"gen_args_{i}": {f"arg_{j}": part for j, part in enumerate(argument)}
        for i, argument in enumerate(sample["arguments"])
    }
    plain = {k: v.item() if isinstance(v, np.generic) else v for k, v in sample.items()}
    logged = plain | {
        "resps": sanitize_list(sample["resps"]),
        "filtered_resps": sanitize_list(sample["filtered_resps"]),
        "arguments": arguments,
        "target": str(sample["target"]),
    }
    parsed: dict[str, Any] = json.loads(_dump(logged))
    return parsed

"""The data of the Answers page: two runs, the tasks they share, the samples on screen."""

import dataclasses
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from explorer.analysis import studies
from explorer.analysis.stats import answer_flips
from explorer.lm_eval_io import samples
from explorer.lm_eval_io.samples import SampleAnswer
from explorer.pages.shared import text_format
from explorer.store import disk


def newest_students_first(runs: pd.DataFrame) -> pd.DataFrame:
    """The newest student first, teachers last."""
    keyed = runs.assign(is_teacher=runs["role"] == "teacher")
    return keyed.sort_values(["is_teacher", "finished_at"], ascending=[True, False])


def first_of(wanted: list[str], run_ids: list[str]) -> str:
    """The first wanted run that is one of these; the first of these if none is."""
    return next((run_id for run_id in wanted if run_id in run_ids), run_ids[0])


def default_reference(runs: pd.DataFrame, run_id: str) -> str:
    """The run's own teacher, or the first other run if its teacher is not among these."""
    others = runs.loc[runs["run_id"] != run_id, "run_id"].tolist()
    return first_of(runs.loc[runs["run_id"] == run_id, "teacher_run_id"].tolist(), others)


def shared_tasks(scores: pd.DataFrame, run_id: str, against: str) -> dict[str, str]:
    """Each task that both runs have with the same headline metric, and that metric."""
    headline = scores[scores["headline"]]
    own, other = (
        {str(task): str(metric) for task, metric in zip(of["task"], of["metric"], strict=True)}
        for of in (headline[headline["run_id"] == each] for each in (run_id, against))
    )
    return {task: metric for task, metric in own.items() if other.get(task) == metric}


def names(runs: pd.DataFrame, run_id: str, against: str) -> tuple[str, str]:
    """Short names of the two runs, as on the charts."""
    both = runs.set_index("run_id").loc[[run_id, against]].reset_index()
    first, second = studies.names_of(both)
    return first, second.removesuffix(" (teacher)")


def finding(task: str, counts: "pd.Series[int]", names: tuple[str, str]) -> str:
    """The page's finding: how many answers were lost and gained."""
    lost, gained = int(counts.get(answer_flips.LOST, 0)), int(counts.get(answer_flips.GAINED, 0))
    total = int(counts.sum())
    return (
        f"On {task}, {names[0]} lost {text_format.plural(lost, 'answer')} that {names[1]} had "
        f"right and gained {gained:,}; on {total - lost - gained:,} of {total:,} documents they "
        "agree."
    )


@dataclasses.dataclass(frozen=True)
class PairedSamples:
    """The samples of two runs on one task, as far as they are on this machine."""

    paths: tuple[Path | None, Path | None]
    run_ids: tuple[str, str]
    task: str
    metric: str

    def missing(self) -> list[str]:
        """A sentence for each run whose samples are not here, saying what to do."""
        return [
            f"The questions and answers of {run_id} are not on this machine: its folder has no "
            f"capability/samples_{samples.file_part(self.task)}_*.jsonl. Copy the folder from the "
            "machine that evaluated the run, or run it again."
            for path, run_id in zip(self.paths, self.run_ids, strict=True)
            if path is None
        ]

    def matching(self, query: str) -> set[int]:
        """Ids of the documents whose question or answers contain the query, in either run."""
        return {
            doc_id
            for path in self.paths
            if path is not None
            for doc_id in _matching(path, _version(path), self._filter(), query.casefold())
        }

    def read(
        self, rows: list[dict[Any, Any]]
    ) -> list[tuple[SampleAnswer | None, SampleAnswer | None]]:
        """Answers of the run and of the reference to these documents; reads only their lines."""
        doc_ids = [int(row["doc_id"]) for row in rows]
        own, other = (self._answers(path, doc_ids) for path in self.paths)
        return list(zip(own, other, strict=True))

    def largest_change_first(self, doc_ids: list[int]) -> list[int]:
        """The documents by how far the margin of the right answer moved, the farthest first.

        Those without a margin, or without samples here, come last in their order.
        """
        if any(path is None for path in self.paths):
            return doc_ids
        own, other = (
            _margins(path, _version(path), self._filter(), self.metric, tuple(doc_ids))
            for path in self.paths
            if path is not None
        )
        moved = {doc_id: abs(own[doc_id] - other[doc_id]) for doc_id in own if doc_id in other}
        return sorted(doc_ids, key=lambda doc_id: -moved.get(doc_id, -1.0))

    def _filter(self) -> str | None:
        return self.metric.partition(",")[2] or None

    def _answers(self, path: Path | None, doc_ids: list[int]) -> list[SampleAnswer | None]:
        if path is None:
            return [None] * len(doc_ids)
        places = _places(path, _version(path), self._filter())
        present = [doc_id for doc_id in doc_ids if doc_id in places]
        lines = samples.read_lines(path, [places[doc_id] for doc_id in present])
        read = {
            doc_id: samples.parse_answer(line, self.metric)
            for doc_id, line in zip(present, lines, strict=True)
        }
        return [read.get(doc_id) for doc_id in doc_ids]


def samples_of(root: Path, run_id: str, against: str, task: str, metric: str) -> PairedSamples:
    """Find the sample files of two runs on a task."""
    own, other = (
        samples.newest_files(disk.run_folder(root, each) / "capability").get(
            samples.file_part(task)
        )
        for each in (run_id, against)
    )
    return PairedSamples((own, other), (run_id, against), task, metric)


def _version(path: Path) -> int:
    return path.stat().st_mtime_ns


@st.cache_data(show_spinner=False, max_entries=200)
def _places(path: Path, version: int, filter_name: str | None) -> dict[int, int]:
    """Byte offsets by document; `version` only makes the cache key change with the file."""
    return samples.line_offsets(path, filter_name)


@st.cache_data(show_spinner=False, max_entries=200)
def _matching(path: Path, version: int, filter_name: str | None, query: str) -> list[int]:
    """Ids of the documents whose text contains the query."""
    places = _places(path, version, filter_name)
    lines = samples.read_lines(path, places.values())
    return [
        doc_id
        for doc_id, line in zip(places, lines, strict=True)
        if query in samples.searchable_text(line).casefold()
    ]


@st.cache_data(show_spinner=False, max_entries=200)
def _margins(
    path: Path, version: int, filter_name: str | None, metric: str, doc_ids: tuple[int, ...]
) -> dict[int, float]:
    """The margin of each of these documents that has one."""
    places = _places(path, version, filter_name)
    present = [doc_id for doc_id in doc_ids if doc_id in places]
    lines = samples.read_lines(path, [places[doc_id] for doc_id in present])
    answers = {
        doc_id: samples.parse_answer(line, metric)
        for doc_id, line in zip(present, lines, strict=True)
    }
    return {
        doc_id: answer.margin
        for doc_id, answer in answers.items()
        if answer is not None and answer.margin is not None
    }

"""What the Answers page reads: two runs, a task of theirs, the lines that are shown."""

import dataclasses
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from explorer.analysis.stats import answer_flips
from explorer.lm_eval_io import samples
from explorer.lm_eval_io.samples import SampleAnswer
from explorer.pages.compare import differences
from explorer.pages.shared import text_format
from explorer.store import disk


def newest_students_first(known: pd.DataFrame) -> list[str]:
    """Run ids: the newest study's largest student first, teachers last."""
    keyed = known.assign(is_teacher=known["role"] == "teacher")
    ordered = keyed.sort_values(["is_teacher", "finished_at"], ascending=[True, False])
    return [str(one) for one in ordered["run_id"]]


def place_of_teacher(known: pd.DataFrame, run_id: str, others: list[str]) -> int:
    """Where among the others the run's own teacher is; the first where it is not there."""
    teacher = known.loc[known["run_id"] == run_id, "teacher_run_id"].iloc[0]
    return others.index(teacher) if teacher in others else 0


def tasks_of_both(scores: pd.DataFrame, run_id: str, against: str) -> dict[str, str]:
    """Task to the metric that stands for it, where both runs have it."""
    headline = scores[scores["headline"]]
    own, other = (
        {str(task): str(metric) for task, metric in zip(of["task"], of["metric"], strict=True)}
        for of in (headline[headline["run_id"] == one] for one in (run_id, against))
    )
    return {task: metric for task, metric in own.items() if other.get(task) == metric}


def names(known: pd.DataFrame, run_id: str, against: str) -> tuple[str, str]:
    """Short names of the two, as the charts have them."""
    both = known.set_index("run_id").loc[[run_id, against]].reset_index()
    first, second = differences.names_of(both)
    return first, second.removesuffix(" (teacher)")


def said(task: str, counts: "pd.Series[int]", both: tuple[str, str]) -> str:
    """The page's finding: how many answers were lost and gained."""
    lost, gained = int(counts.get(answer_flips.LOST, 0)), int(counts.get(answer_flips.GAINED, 0))
    total = int(counts.sum())
    return (
        f"On {task}, {both[0]} lost {text_format.plural(lost, 'answer')} that {both[1]} had right "
        f"and gained {gained:,}; on {total - lost - gained:,} of {total:,} documents they agree."
    )


@dataclasses.dataclass(frozen=True)
class Kept:
    """The samples of two runs on one task, as far as they are kept."""

    paths: tuple[Path | None, Path | None]
    run_ids: tuple[str, str]
    task: str
    metric: str

    def missing(self) -> list[str]:
        """A sentence for each run whose prompts are not kept: what to do."""
        return [
            f"The questions and choices of {run_id} are not kept here: there is no "
            f"capability/samples_{samples.file_part(self.task)}_*.jsonl in its folder. Copy that "
            "folder from where it was measured, or measure the run again."
            for path, run_id in zip(self.paths, self.run_ids, strict=True)
            if path is None
        ]

    def matching(self, query: str) -> set[int]:
        """Documents in whose question or answers the words stand, in either run."""
        return {
            doc_id
            for path in self.paths
            if path is not None
            for doc_id in _matching(path, _version(path), self._filter(), query.casefold())
        }

    def read(
        self, rows: list[dict[Any, Any]]
    ) -> list[tuple[SampleAnswer | None, SampleAnswer | None]]:
        """What run and reference made of these documents: only their lines are read."""
        doc_ids = [int(row["doc_id"]) for row in rows]
        own, other = (self._answers(path, doc_ids) for path in self.paths)
        return list(zip(own, other, strict=True))

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


def kept(root: Path, run_id: str, against: str, task: str, metric: str) -> Kept:
    """Where the samples of two runs on a task lie."""
    own, other = (
        samples.newest_files(disk.run_folder(root, one) / "capability").get(samples.file_part(task))
        for one in (run_id, against)
    )
    return Kept((own, other), (run_id, against), task, metric)


def _version(path: Path) -> int:
    return path.stat().st_mtime_ns


@st.cache_data(show_spinner=False, max_entries=200)
def _places(path: Path, version: int, filter_name: str | None) -> dict[int, int]:
    """The version is only part of the key: another file has other places."""
    return samples.line_offsets(path, filter_name)


@st.cache_data(show_spinner=False, max_entries=200)
def _matching(path: Path, version: int, filter_name: str | None, query: str) -> list[int]:
    """Documents whose text holds the query; lines are read one after the other."""
    places = _places(path, version, filter_name)
    lines = samples.read_lines(path, places.values())
    return [
        doc_id
        for doc_id, line in zip(places, lines, strict=True)
        if query in samples.searchable_text(line).casefold()
    ]

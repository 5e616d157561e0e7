"""What the order form opens with: the settings of the newest study in the store.

A person who has seen a study gets its next student by choosing a size, under the same conditions.
"""

import dataclasses
import importlib.util
from pathlib import Path
from typing import Literal

import streamlit as st

from explorer.errors import ExplorerError
from explorer.index import Snapshot
from explorer.pages.shared import study_summary
from explorer.specs import DepthStudent, DistillSpec, RunSpec
from explorer.store import disk

USUAL = "run_usual"
"""Session key. What the form opened with stays, whatever finishes meanwhile."""
Choice = Literal["block_influence", "uniform", "greedy"]


@dataclasses.dataclass(frozen=True)
class UsualOrder:
    """The form's first values."""

    distill: DistillSpec
    choice: Choice
    sample_blocks: int
    gguf: tuple[str, ...] = ()
    torch_bits: tuple[int, ...] = ()


def usual_order(root: Path, snapshot: Snapshot) -> UsualOrder:
    """The settings of the newest study; those of the specs if the store has none."""
    if USUAL not in st.session_state:
        st.session_state[USUAL] = _of_newest_study(root, snapshot)
    usual: UsualOrder = st.session_state[USUAL]
    return usual


def _of_newest_study(root: Path, snapshot: Snapshot) -> UsualOrder:
    plain = UsualOrder(
        DistillSpec(), DepthStudent.default("choice"), DepthStudent.default("sample_blocks")
    )
    runs = snapshot.runs
    finished = runs[(runs["status"] == "finished") & ~runs["run_id"].isin(snapshot.hidden)]
    if finished.empty:
        return plain
    specs = []
    for run_id in study_summary.newest_study(finished):
        try:
            specs.append(disk.read_spec(root, run_id))
        except ExplorerError:
            continue
    trained = [spec for spec in specs if spec.distill and spec.distill.method != "labels"]
    if not trained or trained[0].distill is None:
        return plain
    student = trained[0].student
    depth = student if isinstance(student, DepthStudent) else None
    return UsualOrder(
        trained[0].distill,
        depth.choice if depth else plain.choice,
        depth.sample_blocks if depth else plain.sample_blocks,
        _formats(specs),
        tuple(sorted({spec.torch_bits for spec in specs if spec.torch_bits}, reverse=True)),
    )


def _formats(specs: list[RunSpec]) -> tuple[str, ...]:
    """The GGUF formats of these runs, where llama.cpp is installed to measure them."""
    if importlib.util.find_spec("llama_cpp") is None:
        return ()
    return tuple(dict.fromkeys(spec.gguf for spec in specs if spec.gguf))

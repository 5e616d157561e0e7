"""What a study will take, before it starts: time, memory, dollars, detectable difference."""

import html
from pathlib import Path

import streamlit as st

from explorer.analysis import numbers
from explorer.analysis.planning import run_time
from explorer.analysis.stats import paired_tests
from explorer.catalogue import prices
from explorer.errors import ExplorerError
from explorer.index import Snapshot
from explorer.pages.run import run_spec
from explorer.pages.shared import glossary, text_format
from explorer.specs import RunSpec


def study_preview(
    specs: list[RunSpec],
    new: list[RunSpec],
    snapshot: Snapshot,
    root: Path,
    *,
    memory_bytes: float | None,
) -> None:
    """Show time, memory, dollars and the smallest difference that the study can detect.

    Args:
        specs: All runs of the study.
        new: Those that are not finished yet.
        snapshot: The store's frames.
        root: The store.
        memory_bytes: Of the largest run; None if it is not known, or not yet.
    """
    taken = run_time.estimate_runs(new, snapshot.runs, snapshot.scores)
    with st.container(border=True, key="run_preview"):
        hover = html.escape(glossary.TERMS["detectable"], quote=True)
        st.html(
            f'<p class="plan">{_runs(specs, new)}<br>'
            f"{_costs(taken, memory_bytes, snapshot, root)}<br>"
            f'<span title="{hover}">{html.escape(_detectable(specs, snapshot))}</span></p>'
            + (f'<p class="quiet">{html.escape(_basis(taken))}</p>' if new else "")
        )


def _runs(specs: list[RunSpec], new: list[RunSpec]) -> str:
    done = len(specs) - len(new)
    finished = f"; {done} already finished" if done else ""
    students = [spec for spec in specs if spec.student and not spec.format]
    which = "the teacher" + (
        f" and {text_format.plural(len(students), 'student')}" if students else ""
    )
    for kind, count in (
        ("as GGUF", sum(spec.gguf is not None for spec in specs)),
        ("quantised in torch", sum(spec.torch_bits is not None for spec in specs)),
    ):
        which += f", {count} more {kind}" if count else ""
    return html.escape(f"{text_format.plural(len(specs), 'run')}: {which}{finished}.")


def _costs(
    taken: run_time.Estimate, memory_bytes: float | None, snapshot: Snapshot, root: Path
) -> str:
    # Without the largest parts a number of minutes would mean nothing.
    known = taken.seconds is not None and not {"training", "evaluation"} & {*taken.unknown}
    parts = [f"<b>about {numbers.duration(taken.seconds)}</b>" if known else "<b>Time unknown</b>"]
    if memory_bytes:
        parts.append(f"about {numbers.size(memory_bytes)} of memory")
    price = _price(snapshot, root)
    if price is not None and known and taken.seconds is not None:
        usd = price.usd_per_hour * taken.seconds / 3600
        source = f" title='{html.escape(price.in_words(), quote=True)}'"
        parts.append(f"<span{source}>{numbers.dollars(usd)}</span>")
    return ", ".join(parts)


def _price(snapshot: Snapshot, root: Path) -> prices.Price | None:
    """Price of the newest run's device, on which the estimate is based."""
    newest = snapshot.runs.dropna(subset=["device_name"]).sort_values("finished_at").tail(1)
    if newest.empty:
        return None
    try:
        known = prices.prices_for(newest, root)
    except ExplorerError:
        return None
    return known.get(newest["device_name"].iloc[0])


def _detectable(specs: list[RunSpec], snapshot: Snapshot) -> str:
    num_documents = run_spec.num_documents_per_run(specs, snapshot.scores)
    if specs[0].capability is None:
        return "No tasks chosen: capability is not measured."
    if num_documents is None:
        return "The number of documents is known after the first run on these tasks."
    points = 100 * paired_tests.smallest_detectable_difference(num_documents)
    return (
        f"{num_documents:,} documents reveal differences of {numbers.significant(points)} points "
        "or more."
    )


def _basis(taken: run_time.Estimate) -> str:
    if not taken.unknown or taken.seconds is None:
        return taken.basis
    missing = " and ".join(taken.unknown)
    return f"{taken.basis} Excludes {missing}: no earlier run to go by."

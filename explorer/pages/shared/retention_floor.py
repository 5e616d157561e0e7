"""How much of the teacher's capability to keep, and how surely: two inputs of several pages."""

import streamlit as st

from explorer.analysis.headline import TARGET_RETENTION
from explorer.analysis.pick.limits import CONFIDENCE
from explorer.pages.shared import glossary


def keep(help: str, *, width: int | None = None) -> float:
    """Share of the teacher's capability to keep at least, in [0, 1].

    Args:
        help: What the page does with it.
        width: In pixels; None fills the column.
    """
    return _percent("Keep at least (%)", "keep", TARGET_RETENTION, (0.0, 100.0), help, width)


def sure(*, width: int | None = None) -> float:
    """How sure to be of it, in [0.5, 0.995]; `width` as in `keep`."""
    help = glossary.TERMS["sure"]
    return _percent("With confidence (%)", "sure", CONFIDENCE, (50.0, 99.5), help, width)


def _percent(
    label: str, key: str, share: float, ends: tuple[float, float], help: str, width: int | None
) -> float:
    percent = st.number_input(
        label,
        min_value=ends[0],
        max_value=ends[1],
        value=100 * share,
        step=1.0,
        format="%g",
        key=key,
        bind="query-params",
        help=help,
        width="stretch" if width is None else width,
    )
    return float(percent) / 100

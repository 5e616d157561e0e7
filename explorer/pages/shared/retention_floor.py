"""How much of the teacher's capability to keep, and how surely: two inputs of several pages.

What is asked for on one page is asked for on the next, so that no two pages name different models.
"""

import streamlit as st

from explorer.analysis.headline import TARGET_RETENTION
from explorer.analysis.pick.limits import CONFIDENCE
from explorer.pages.shared import glossary

KEEP, SURE = "keep", "sure"
"""Keys of the widgets and query parameters, in percent."""
DEFAULTS = {KEEP: 100 * TARGET_RETENTION, SURE: 100 * CONFIDENCE}
ENDS = {KEEP: (0.0, 100.0), SURE: (50.0, 99.5)}
ASKED = "retention_floor"
"""Session key: key to the percentage that was asked for last, and the page that asked."""


def keep(help: str, *, page: str, width: int | None = None) -> float:
    """Share of the teacher's capability to keep at least, in [0, 1].

    Args:
        help: What the page does with it.
        page: The page that asks.
        width: In pixels; None fills the column.
    """
    return _percent("Keep at least (%)", KEEP, help, page, width)


def sure(*, page: str, width: int | None = None) -> float:
    """How sure to be of it, in [0.5, 0.995]; the arguments as in `keep`."""
    return _percent("With confidence (%)", SURE, glossary.TERMS["sure"], page, width)


def followed() -> tuple[float, float]:
    """Both as the address or else the page before says, for a page without these inputs."""
    return _followed(KEEP) / 100, _followed(SURE) / 100


def _followed(key: str) -> float:
    percent = _stated(st.query_params.get(key, ""), key)
    if percent is None:
        percent, _ = st.session_state.get(ASKED, {}).get(key, (DEFAULTS[key], ""))
        if percent != DEFAULTS[key]:
            st.query_params[key] = f"{percent:g}"
    return float(percent)


def _stated(text: str, key: str) -> float | None:
    """The percentage in an address; None if it has none, or an impossible one."""
    try:
        percent = float(text)
    except ValueError:
        return None
    low, high = ENDS[key]
    return percent if low <= percent <= high else None


def _percent(label: str, key: str, help: str, page: str, width: int | None) -> float:
    asked = st.session_state.setdefault(ASKED, {})
    before, asked_on = asked.get(key, (DEFAULTS[key], page))
    if asked_on != page and before != DEFAULTS[key] and not st.query_params.get_all(key):
        # The address decides what a widget that is bound to it begins with.
        asked[key] = (before, page)
        st.query_params[key] = f"{before:g}"
        st.rerun()
    percent = st.number_input(
        label,
        min_value=ENDS[key][0],
        max_value=ENDS[key][1],
        value=DEFAULTS[key],
        step=1.0,
        format="%g",
        key=key,
        bind="query-params",
        help=help,
        width="stretch" if width is None else width,
    )
    asked[key] = (float(percent), page)
    return float(percent) / 100

"""How wide a chart will be. Labels are placed in Python; only the browser knows its window."""

import functools

import streamlit as st
from streamlit.components.v2.types import ComponentRenderer

TELEPHONE, DESKTOP = 380, 1300
"""Pixels a chart is thought to get until the browser has said how many it has."""
STEP = 80
"""Pixels; a window that changes by less draws no chart anew."""

WIDTH, RULER = "chart_width", "ruler"
"""What the session knows, and the element that says it."""

# The element itself takes no room on the page: it says how wide the block around it is, at once
# and when the window has come to rest after a change.
_RULER = """
export default function({ parentElement, data, setStateValue }) {
  const block = parentElement.closest('[data-testid="stVerticalBlock"]');
  let waiting;
  const say = () => {
    const width = Math.max(1, Math.round(block.clientWidth / data.step)) * data.step;
    if (Math.abs(width - data.width) >= data.step) setStateValue("width", width);
  };
  const watcher = new ResizeObserver(() => {
    clearTimeout(waiting);
    waiting = setTimeout(say, 300);
  });
  watcher.observe(block);
  say();
  return () => { clearTimeout(waiting); watcher.disconnect(); };
}
"""


def of_chart() -> int:
    """About how many pixels a chart gets here; where the first guess was off, the page draws anew.

    Call it once on a page, where the chart will stand.
    """
    telephone = "Mobi" in st.context.headers.get("User-Agent", "")
    width: int = st.session_state.setdefault(WIDTH, TELEPHONE if telephone else DESKTOP)
    _component()(key=RULER, data={"width": width, "step": STEP}, on_width_change=_take_width)
    return width


def _take_width() -> None:
    st.session_state[WIDTH] = int(st.session_state[RULER]["width"])


@functools.cache
def _component() -> ComponentRenderer:
    """Registered once, where a page first needs it."""
    return st.components.v2.component("chart_ruler", js=_RULER, isolate_styles=False)

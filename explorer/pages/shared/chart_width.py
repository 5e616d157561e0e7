"""The width of a chart in the browser: Python places the labels and has to know it."""

import functools

import streamlit as st
from streamlit.components.v2.types import ComponentRenderer

TELEPHONE = 380
"""Width in pixels to assume on a telephone until the browser reports it."""
STEP = 80
"""Pixels. A smaller change of the window does not redraw the chart."""

WIDTH, RULER = "chart_width", "ruler"
"""Session keys of the widths and of the element that reports one."""

# The element takes no room. It reports the width of the block around it: at once, and 300 ms after
# the last change of the window. Streamlit calls the function again with each new width, without
# ending what the call before began.
_RULER = """
export default function({ parentElement, data, setStateValue }) {
  const block = parentElement.closest('[data-testid="stVerticalBlock"]');
  parentElement.stop?.();
  let waiting;
  const report = () => {
    const width = Math.max(1, Math.round(block.clientWidth / data.step)) * data.step;
    if (Math.abs(width - data.width) >= data.step) setStateValue("width", width);
  };
  const watcher = new ResizeObserver(() => {
    clearTimeout(waiting);
    waiting = setTimeout(report, 300);
  });
  watcher.observe(block);
  report();
  return parentElement.stop = () => { clearTimeout(waiting); watcher.disconnect(); };
}
"""


def chart_width(desktop: int) -> int:
    """The chart's width in pixels, rounded to `STEP`; the page redraws if the first guess was off.

    Call it once per page, where the chart will stand.

    Args:
        desktop: The width in pixels where the window is 1,440 wide, for the first guess.
    """
    key = f"{WIDTH}_{desktop}"  # each page has its own
    telephone = "Mobi" in st.context.headers.get("User-Agent", "")
    width: int = st.session_state.setdefault(key, TELEPHONE if telephone else desktop)

    def store_width() -> None:
        st.session_state[key] = int(st.session_state[RULER]["width"])

    _component()(key=RULER, data={"width": width, "step": STEP}, on_width_change=store_width)
    return width


@functools.cache
def _component() -> ComponentRenderer:
    """The component, registered on first use."""
    return st.components.v2.component("chart_ruler", js=_RULER, isolate_styles=False)

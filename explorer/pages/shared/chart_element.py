"""A Plotly chart on a page.

Streamlit's own chart element makes a chart anew whenever its content differs, and draws it twice;
this one changes the chart that is there. It also needs less of Plotly: see `plotly_scripts`.
"""

import functools
from collections.abc import Callable

import plotly.graph_objects as go
import streamlit as st
from streamlit.components.v2.types import ComponentRenderer

from explorer.pages.dashboard import plotly_scripts

# Streamlit calls the function again with each new content, and the function that it returned last
# when the chart leaves the page. What belongs to the chart is kept at its element.
_CHART = """
const CONFIG = { displayModeBar: false, scrollZoom: false };
const plotly = url => {
  const loaded = globalThis.plotlyByUrl ??= {};
  return loaded[url] ??= import(new URL(url, document.baseURI).href).then(() => globalThis.Plotly);
};
export default function({ parentElement, data, setTriggerValue }) {
  let chart = parentElement.querySelector('.chart');
  if (!chart) {
    chart = document.createElement('div');
    chart.className = 'chart';
    chart.setAttribute('role', 'figure');
    parentElement.append(chart);
    chart.watcher = new ResizeObserver(() => {
      if (chart.clientWidth) chart.drawnBy?.Plots.resize(chart);  // not while it is out of sight
    });
    chart.watcher.observe(parentElement);
  }
  chart.clicked = id => data.listens && setTriggerValue('clicked', id);
  chart.setAttribute('aria-label', data.alt);
  if (chart.figure !== data.figure) {
    chart.figure = data.figure;
    const figure = JSON.parse(data.figure);
    chart.style.height = `${figure.layout.height}px`;
    chart.drawing = (chart.drawing ?? Promise.resolve()).then(async () => {
      const drawnBy = await plotly(data.script);
      if (chart.figure !== data.figure || !chart.isConnected) return;
      if (chart.drawnBy && chart.drawnBy !== drawnBy) chart.drawnBy.purge(chart);
      await drawnBy.react(chart, figure.data, figure.layout, CONFIG);
      if (chart.drawnBy !== drawnBy) chart.on('plotly_click', ({ points }) => {
        const id = points.map(point => point.customdata?.[0]).find(Boolean);
        if (id) chart.clicked(id);
      });
      chart.drawnBy = drawnBy;
    }).catch(error => {
      chart.figure = null;
      chart.textContent = `The chart could not be drawn: ${error.message}. Reload the page.`;
    });
  }
  return () => {
    chart.watcher.disconnect();
    chart.drawnBy?.purge(chart);
    chart.remove();
  };
}
"""


def draw(
    figure: go.Figure, key: str, alt: str, *, on_pick: Callable[[str], None] | None = None
) -> None:
    """Draw a figure at full width.

    Args:
        figure: With a height. `customdata[0]` of a point that can be clicked is its id.
        key: Key of the element.
        alt: Text for screen readers.
        on_pick: Called with the id of the clicked point; None if points cannot be clicked.
    """

    def hand_over() -> None:
        clicked = (st.session_state.get(key) or {}).get("clicked")
        if on_pick is not None and clicked:
            on_pick(str(clicked))

    is_basic = all(trace.type in plotly_scripts.BASIC_TRACES for trace in figure.data)
    script = plotly_scripts.BASIC if is_basic else plotly_scripts.WHOLE
    _component()(
        key=key,
        data={
            "figure": figure.to_json(),
            "script": plotly_scripts.address(script),
            "alt": alt,
            "listens": on_pick is not None,
        },
        height=figure.layout.height,
        on_clicked_change=hand_over,
    )


@functools.cache
def _component() -> ComponentRenderer:
    """The component, registered on first use."""
    return st.components.v2.component("plotly_chart", js=_CHART, isolate_styles=False)

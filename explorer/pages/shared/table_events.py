"""Boxes and headings inside a results table: a click on one reaches the page.

`st.html` shows the table, and this component listens for clicks on its `data-run` boxes and
`data-sort` headings. The page offers the same choices as ordinary widgets, too.
"""

import functools
from collections.abc import Callable, Collection
from typing import Any

import streamlit as st
from streamlit.components.v2.types import ComponentRenderer

# Listens on the document, because the page replaces the table on each rerun.
_LISTENER = """
const reported = new WeakSet();
export default function({ parentElement, setTriggerValue }) {
  parentElement.stop?.();  // Streamlit may call this again, without ending what it began
  const ticked = ({ target }) => {
    if (!target.matches?.('.results input[data-run]')) return;
    const runs = target.dataset.run ? [target.dataset.run] : [...target.closest('table')
      .querySelectorAll('input[data-run]')].map(box => box.dataset.run).filter(Boolean);
    setTriggerValue('ticked', { runs, checked: target.checked });
  };
  const sorted = ({ target }) => {
    const heading = target.closest?.('.results button[data-sort]');
    if (heading) setTriggerValue('sorted', heading.dataset.sort);
  };
  document.addEventListener('change', ticked);
  document.addEventListener('click', sorted);
  // Boxes that a person ticked before this component was there.
  for (const box of document.querySelectorAll('.results input[data-run]')) {
    if (box.checked === box.defaultChecked || reported.has(box)) continue;
    reported.add(box);
    ticked({ target: box });
  }
  return parentElement.stop = () => {
    document.removeEventListener('change', ticked);
    document.removeEventListener('click', sorted);
  };
}
"""


def listen(
    key: str,
    *,
    on_tick: Callable[[Collection[str], bool], None],
    on_sort: Callable[[str], None],
) -> None:
    """Call back when a person ticks a row's box or presses a heading, before the page redraws.

    Args:
        key: Key of the component.
        on_tick: Gets the ids of the rows, and whether they are ticked now.
        on_sort: Gets the heading's `data-sort`.
    """

    def value(name: str) -> Any:
        return (st.session_state.get(key) or {}).get(name)

    def ticked() -> None:
        if event := value("ticked"):
            on_tick([str(run_id) for run_id in event["runs"]], bool(event["checked"]))

    def sorted_by() -> None:
        if heading := value("sorted"):
            on_sort(str(heading))

    _component()(key=key, on_ticked_change=ticked, on_sorted_change=sorted_by)


@functools.cache
def _component() -> ComponentRenderer:
    """The component, registered on first use."""
    return st.components.v2.component("table_events", js=_LISTENER, isolate_styles=False)

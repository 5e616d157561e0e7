"""The browser's Back button undoes the last change of a page's controls.

Streamlit writes what a bound widget says into the address by `history.replaceState`, which leaves
nothing to go back to. It does bring the widgets back where the address changes. So a change that
a person made gets an entry of the history.
"""

import functools

import streamlit as st
from streamlit.components.v2.types import ComponentRenderer

_HISTORY = """
export default function() {
  if (window.explorerKeepsHistory) return;
  window.explorerKeepsHistory = true;
  const replace = history.replaceState.bind(history);
  let returning = false;
  window.addEventListener("popstate", () => {
    returning = true;
    setTimeout(() => { returning = false; }, 1000);
  }, true);
  history.replaceState = (state, unused, url) => {
    const next = new URL(url ?? location.href, location.href);
    const changes = next.pathname === location.pathname && next.search !== location.search;
    const byPerson = navigator.userActivation?.isActive ?? true;
    if (changes && byPerson && !returning) history.pushState(state, unused, url);
    else replace(state, unused, url);
  };
}
"""


def keep_history() -> None:
    """Let Back undo changes on this page. Call it once per page."""
    _component()(key="back_button")


@functools.cache
def _component() -> ComponentRenderer:
    """The component, registered on first use."""
    return st.components.v2.component("back_button", js=_HISTORY, isolate_styles=False)

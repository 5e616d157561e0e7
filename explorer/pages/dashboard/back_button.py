"""The browser's Back button undoes the last change of a page's controls, or leaves the page.

Streamlit writes what a bound widget says into the address by `history.replaceState`, which leaves
nothing to go back to. On the way to another page it first empties the address, and then fills in
the new page's settings one after the other, by `history.pushState`. Here each press of a key or a
button gets one entry of the history, which also has what changes the address afterwards.
"""

SCRIPT = """
(() => {
  let pressed = false;
  for (const kind of ["pointerdown", "keydown"])
    addEventListener(kind, () => { pressed = true; }, true);
  addEventListener("popstate", () => { pressed = false; }, true);
  const push = history.pushState.bind(history);
  const replace = history.replaceState.bind(history);
  history.pushState = history.replaceState = (state, unused, url) => {
    const next = new URL(url ?? location.href, location.href);
    const changes = next.pathname !== location.pathname || next.search !== location.search;
    (pressed && changes ? push : replace)(state, unused, url);
    if (changes) pressed = false;
  };
})();
"""
"""Runs in the page's head, before Streamlit's own scripts."""

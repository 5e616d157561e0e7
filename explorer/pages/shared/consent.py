"""What a task or model would run, and the button that allows it, beside the error that says so."""

import streamlit as st

from explorer.analysis import numbers
from explorer.consent import trust
from explorer.errors import ExplorerError
from explorer.models import own_code
from explorer.pages.shared import text_format, widgets

MAX_SHOWN_BYTES = 60_000
"""Longest excerpt of a file."""
SHOWN = "consent_shown"
"""Session key of the source whose code is shown."""


def offer(source: str, key: str) -> None:
    """A button that shows what a source would run; below the code, the one that allows it.

    A read-only dashboard offers neither.

    Args:
        source: The source that an error names.
        key: Begins the keys of the widgets.
    """
    if widgets.read_only():
        return
    if st.session_state.get(SHOWN) != source:
        if st.button("Show what would run", key=f"{key}_show", icon=":material/policy:"):
            st.session_state[SHOWN] = source
            st.rerun()
        return
    code = widgets.attempt(
        lambda: [trust.CodeFile.of(path) for path in own_code.files_that_run(source)]
    )
    if code is None:
        return
    with st.container(border=True, key=f"{key}_code"):
        st.markdown(
            f"This code of {text_format.md(source)} would run on the machine of this dashboard, "
            "with all that its user may do. Allow it only if you trust whoever wrote it. A file "
            "that changes later asks again."
        )
        for item in code:
            _show_file(item)
        with st.container(horizontal=True):
            st.button(
                "Allow this code",
                key=f"{key}_allow",
                type="primary",
                icon=":material/check:",
                on_click=_allow,
                args=(source, code),
            )
            st.button("Close", key=f"{key}_close", on_click=_close)


def _show_file(item: trust.CodeFile) -> None:
    state = " · the same bytes are allowed already" if trust.allowed_anywhere(item.path) else ""
    with st.expander(
        f"{text_format.md(str(item.path))} · {numbers.size(item.num_bytes)}{state}",
        expanded=not state,
    ):
        st.caption(f"SHA-256 {item.sha256}")
        text = item.path.read_bytes()[:MAX_SHOWN_BYTES].decode("utf-8", errors="replace")
        language = "python" if item.path.suffix == ".py" else "yaml"
        height = min(400, 60 + 22 * (1 + text.count("\n")))
        st.code(text, language=language, line_numbers=True, height=height)
        if item.num_bytes > MAX_SHOWN_BYTES:
            st.caption(f"The first {numbers.size(MAX_SHOWN_BYTES)}; read the rest in the file.")


def _allow(source: str, code: list[trust.CodeFile]) -> None:
    """Allow the files with the digests that were on the page."""
    try:
        trust.record(own_code.source_key(source), code)
    except ExplorerError as error:
        st.error(text_format.md(str(error)))
        return
    st.toast(f"Allowed: {text_format.md(source)}", icon=":material/check:")
    _close()
    # What was refused a moment ago is looked at again.
    st.session_state.pop("run_checked", None)


def _close() -> None:
    st.session_state.pop(SHOWN, None)

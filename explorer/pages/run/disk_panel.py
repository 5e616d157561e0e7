"""Disk use: bytes by study, what no run needs any more, and a button that removes it."""

from pathlib import Path

import pandas as pd
import streamlit as st

from explorer.analysis import numbers
from explorer.jobs import clean
from explorer.pages.shared import text_format, widgets
from explorer.store import leftovers
from explorer.store.leftovers import Findings

FREED = "disk_freed"
"""Session key of the bytes that were removed last."""
MAX_STUDIES = 12


def disk_panel(root: Path) -> None:
    """A closed section; the disk is looked through only while it is open."""
    with st.expander(
        "Disk use", on_change="rerun", key="disk_use", icon=":material/hard_drive:"
    ) as section:
        if section.open:
            widgets.attempt(lambda: _draw(root))


def _draw(root: Path) -> None:
    sizes = leftovers.study_sizes(root)
    findings = clean.look(root)
    left, right = st.columns(2, gap="large")
    with left:
        _studies(sizes)
    with right:
        _leftovers(root, findings)


def _studies(sizes: dict[str, int]) -> None:
    st.markdown(f"**{numbers.size(sum(sizes.values()))}** in all")
    listed = list(sizes.items())[:MAX_STUDIES]
    rows = [{"Study": name, "Size": numbers.size(size)} for name, size in listed]
    st.dataframe(pd.DataFrame(rows, columns=["Study", "Size"]), hide_index=True)
    if len(sizes) > MAX_STUDIES:
        rest = sum(list(sizes.values())[MAX_STUDIES:])
        st.caption(f"and {len(sizes) - MAX_STUDIES:,} smaller ones with {numbers.size(rest)}.")


def _leftovers(root: Path, findings: Findings) -> None:
    freed = st.session_state.pop(FREED, None)
    if freed is not None:
        st.success(f"Removed {numbers.size(freed)}.", icon=":material/check:")
    if not findings.leftovers:
        st.markdown("Every file here belongs to a run.")
    else:
        st.markdown(f"**{numbers.size(findings.num_bytes)}** that no run needs any more")
        rows = [
            {"What": leftovers.KINDS[kind], "Size": numbers.size(num_bytes)}
            for kind, num_bytes in findings.bytes_by_kind().items()
        ]
        st.dataframe(pd.DataFrame(rows), hide_index=True)
        if not widgets.read_only():
            st.button(
                f"Remove {numbers.size(findings.num_bytes)}",
                key="clean",
                icon=":material/delete_sweep:",
                help="Deletes these files for good. Nothing that a run under way uses is touched.",
                on_click=_clean,
                args=(root, findings),
            )
    for reason in findings.reasons:
        st.caption(text_format.md(reason))


def _clean(root: Path, shown: Findings) -> None:
    """Remove what was listed, before the page is drawn again."""
    removed = widgets.attempt(lambda: clean.clean(root, shown=shown.leftovers))
    if removed:
        st.session_state[FREED] = removed.num_bytes
    widgets.index(root).refresh()

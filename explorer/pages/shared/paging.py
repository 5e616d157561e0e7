"""One page of a long table at a time, and a sentence on what it shows."""

import streamlit as st

from explorer.pages.shared import text_format

PAGE_SIZE = 100
"""Rows on one page."""


def page_rows(num_rows: int, key: str) -> slice:
    """The rows of the current page of a table.

    Args:
        num_rows: Rows of the whole table.
        key: Key of the pager.
    """
    page = min(st.session_state.get(key, 1), max(1, -(-num_rows // PAGE_SIZE)))
    return slice((page - 1) * PAGE_SIZE, min(num_rows, page * PAGE_SIZE))


def pager(num_rows: int, key: str, noun: str, order: str) -> None:
    """Page numbers and `1 to 100 of 250 runs, sorted by retention.`; nothing for a single page.

    Args:
        num_rows: Rows of the whole table.
        key: Key of the pager, as given to `page_rows`.
        noun: What a row is, in the singular.
        order: What the rows are sorted by.
    """
    num_pages = -(-num_rows // PAGE_SIZE)
    if num_pages <= 1:
        return
    rows = page_rows(num_rows, key)
    page = rows.start // PAGE_SIZE + 1
    if st.session_state.get(key, page) != page:  # the filters leave fewer pages
        st.session_state[key] = page
    with st.container(horizontal=True, vertical_alignment="center", key=f"{key}_row"):
        st.pagination(num_pages, key=key)
        st.caption(
            f"{rows.start + 1:,} to {rows.stop:,} of {text_format.plural(num_rows, noun)}, "
            f"sorted by {order}."
        )

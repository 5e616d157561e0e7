"""The pages in the order of the menu. A page's address is its folder's name, Explore's is `/`."""

from pathlib import Path

import streamlit as st

from explorer.charts import theme

PAGES = {
    "explore": ("Explore", ":material/scatter_plot:"),
    "run": ("Run", ":material/play_circle:"),
    "tasks": ("Tasks", ":material/checklist:"),
    "compare": ("Compare", ":material/table_chart:"),
    "answers": ("Answers", ":material/quiz:"),
    "published": ("Published", ":material/menu_book:"),
    "economics": ("Economics", ":material/payments:"),
}
"""Folder of each page to its title and icon."""

HERE = Path(__file__).parent


def script(name: str) -> Path:
    """The file of a page, absolute: it is found wherever the package is installed."""
    return HERE.parent / name / f"{name}.py"


def show_dashboard() -> None:
    """Draw the menu and the page that the address names."""
    st.set_page_config(
        # A file in the package. For a Material symbol, such as those of the menu, the browser would
        # ask another server, so this comes before the menu.
        page_icon=HERE / "icon.svg",
        layout="wide",
        initial_sidebar_state="collapsed",
    )
    pages = [
        st.Page(script(name), title=title, icon=icon, default=name == "explore")
        for name, (title, icon) in PAGES.items()
    ]
    from explorer.pages.shared import (  # which take their links from this module
        findings,
        text_format,
        widgets,
    )

    page = st.navigation(pages, position="top")
    st.set_page_config(page_title=f"{page.title} · Distill Explorer")
    ink = theme.INKS["dark" if st.context.theme.type == "dark" else "light"]["text"]
    st.logo((HERE / "logo.svg").read_text().replace("INK", ink), size="large")
    try:
        page.run()
    except PermissionError as error:
        st.error(
            f"No permission for {text_format.md(str(error.filename))}. Whoever owns it can let you "
            "read it, or set EXPLORER_RESULTS to another folder.",
            icon=":material/lock:",
        )
    finally:  # a page with nothing to show stops early
        if not widgets.read_only():
            findings.start_soon()

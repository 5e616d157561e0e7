"""The dashboard: `streamlit run app.py`. Page settings and navigation; no logic."""

from pathlib import Path

import streamlit as st

st.set_page_config(
    page_title="Distill Explorer",
    # A file of ours: the browser would fetch a Material symbol from another company's server.
    page_icon=Path(__file__).parent / "explorer" / "pages" / "icon.svg",
    layout="wide",
    initial_sidebar_state="collapsed",
)
PAGES = [
    st.Page(
        "explorer/pages/explore/explore.py",
        title="Explore",
        icon=":material/scatter_plot:",
        default=True,
    ),
    st.Page("explorer/pages/run/run.py", title="Run", icon=":material/play_circle:"),
    st.Page("explorer/pages/tasks/tasks.py", title="Tasks", icon=":material/checklist:"),
    st.Page("explorer/pages/compare/compare.py", title="Compare", icon=":material/table_chart:"),
    st.Page("explorer/pages/answers/answers.py", title="Answers", icon=":material/quiz:"),
    st.Page(
        "explorer/pages/published/published.py", title="Published", icon=":material/menu_book:"
    ),
    st.Page("explorer/pages/economics/economics.py", title="Economics", icon=":material/payments:"),
]
st.navigation(PAGES, position="top").run()

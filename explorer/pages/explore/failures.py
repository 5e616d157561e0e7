"""Runs that failed or were cancelled, with the reason and a way to resume them."""

from pathlib import Path

import pandas as pd
import streamlit as st

from explorer.pages.shared import removal, submitting, text_format, widgets
from explorer.records.rows import row_dicts

MAX_LISTED = 20


def failed_runs(root: Path, runs: pd.DataFrame) -> None:
    """An expander with the runs that did not finish, newest first."""
    failed = runs[runs["status"] != "finished"]
    if failed.empty:
        return
    title = f"{text_format.plural(len(failed), 'run')} did not finish"
    with st.expander(title, icon=":material/warning:"):
        newest = failed.sort_values("finished_at", ascending=False)
        for row in row_dicts(newest.head(MAX_LISTED)):
            text, resume, more = st.columns([8, 2, 1], vertical_alignment="center")
            reason = row["error"] or "No reason recorded."
            text.markdown(
                f"**{text_format.md(row['run_id'])}** {row['status']} "
                f"{text_format.ago(row['finished_at'])}  \n"
                f"{text_format.md(reason)}"
            )
            with more:
                removal.run_menu(root, row["run_id"], place="failed")
            if not widgets.read_only() and resume.button(
                "Resume", key=f"explore_resume_{row['run_id']}", icon=":material/replay:"
            ):
                submitting.run_again(root, row["run_id"])
        if len(failed) > MAX_LISTED:
            st.caption(f"and {len(failed) - MAX_LISTED:,} earlier ones.")

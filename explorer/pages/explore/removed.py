"""What each limit removed: a button each, which shows those models on the chart."""

import pandas as pd
import streamlit as st

from explorer.analysis.pick import sentences
from explorer.analysis.pick.decide import Decision
from explorer.analysis.ranking import unique_names
from explorer.pages.shared import text_format

CHOSEN = "removed"
"""Query parameter: the limit or reason whose models are shown."""
MOST_NAMES = 12


def chosen(decided: Decision | None) -> str | None:
    """The limit or reason that the address names, if it removed any run."""
    name = st.query_params.get(CHOSEN)
    return name if decided is not None and name in decided.removed else None


def highlighted(decided: Decision | None) -> set[str]:
    """Ids of the runs that the chosen limit removed."""
    name = chosen(decided)
    return set() if decided is None or name is None else set(decided.removed[name])


def removed_row(decided: Decision | None, runs: pd.DataFrame) -> None:
    """Draw the buttons, and the names of the models that the chosen limit removed.

    Args:
        decided: The decision, if there is one.
        runs: The runs on the page.
    """
    if decided is None or not decided.removed:
        return
    shown = chosen(decided)
    lines = dict(zip(decided.removed, sentences.removed(decided), strict=True))
    with st.container(horizontal=True, gap="small", key="explore_removed"):
        st.caption("Removed:", width="content")
        for name, line in lines.items():
            st.button(
                text_format.md(line),
                key=f"removed_{name}",
                type="secondary" if name == shown else "tertiary",
                help="Shows these models on the chart; press again to show all.",
                on_click=_toggle,
                args=(name, shown),
            )
    if shown is not None:
        own = runs[runs["run_id"].isin(decided.removed[shown])]
        names = unique_names(own).tolist()
        listed = ", ".join(names[:MOST_NAMES])
        more = f" and {len(names) - MOST_NAMES:,} more" if len(names) > MOST_NAMES else ""
        st.caption(text_format.md(f"{lines[shown]}: {listed}{more}."))


def _toggle(name: str, shown: str | None) -> None:
    if name == shown:
        del st.query_params[CHOSEN]
    else:
        st.query_params[CHOSEN] = name

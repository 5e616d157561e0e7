"""A list to choose a run from: by its name on the page, by its id in the page's address.

A name may change when another run of the same name arrives; a link to an id stays valid.
"""

import pandas as pd
import streamlit as st

from explorer.analysis import studies
from explorer.pages.shared import widgets


def run_list(
    label: str,
    runs: pd.DataFrame,
    key: str,
    *,
    default: str | None = None,
    placeholder: str | None = None,
    help: str | None = None,
    width: int | None = None,
) -> str | None:
    """Let a person choose one of these runs; returns its id.

    Args:
        label: What stands above the list.
        runs: The runs, in the order of the list.
        key: Query parameter with the id, and key of the widget.
        default: Id of the run that is chosen where the address names none of them; None for none.
        placeholder: What stands in the list while no run is chosen.
        help: Shown on hover.
        width: In pixels; None fills the column.
    """
    names = dict(zip(runs["run_id"], studies.names_of(runs), strict=True))
    addressed = st.query_params.get(key)
    # By id on each draw: the names, which the browser has, may be others now.
    st.session_state[key] = addressed if addressed in names else default
    run_id: str | None = st.selectbox(
        label,
        list(names),
        index=None if default is None else 0,
        format_func=lambda run_id: names.get(run_id, run_id),
        key=key,
        placeholder=placeholder,
        help=help,
        width="stretch" if width is None else width,
        on_change=lambda: widgets.pick_run(st.session_state[key], key),
    )
    return run_id

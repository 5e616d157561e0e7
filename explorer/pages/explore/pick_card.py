"""The pick beside the chart: which model, why, how sure, and how to use it."""

import pandas as pd
import streamlit as st

from explorer.analysis.pick import decide, sentences, use
from explorer.analysis.pick.decide import Decision
from explorer.analysis.pick.limits import NUMERIC
from explorer.index import StoreIndex
from explorer.pages.explore.needs import Needs
from explorer.pages.shared import text_format, widgets

MANY_RUNS = 500
"""Above this many runs the draws would take too long on a page; the shell has no such limit."""


def decision(index: StoreIndex, runs: pd.DataFrame, needs: Needs) -> Decision | None:
    """The decision for the runs on the page; None if there are too many of them."""
    if len(runs) > MANY_RUNS:
        return None
    return decide.pick(
        runs,
        index.draws(runs),
        needs.limits,
        objective=needs.objective,
        device=needs.device,
    )


def excluded(runs: pd.DataFrame, decided: Decision | None) -> set[str]:
    """Ids of the runs that limits or other reasons exclude; the chart shows them pale."""
    return set() if decided is None else set(runs["run_id"]) - set(decided.fitting)


def axis_limit(needs: Needs, x: str) -> float | None:
    """The limit on the chart's horizontal axis, if it has one."""
    if x == "output_tokens_per_usd" and needs.limits.max_usd_per_mtok:
        return 1e6 / needs.limits.max_usd_per_mtok
    of_axis = [limit.name for limit in NUMERIC if limit.column == x]
    return getattr(needs.limits, of_axis[0]) if of_axis else None


def pick_card(
    index: StoreIndex, runs: pd.DataFrame, decided: Decision | None, task: str | None
) -> None:
    """Draw the card of a decision.

    Args:
        index: The index of the store.
        runs: With the columns of `retention.add_retention` and `unit_cost.add_costs`.
        decided: The decision, if there is one.
        task: The only task on the page; a pick takes all.
    """
    if task is not None:
        st.markdown("**No pick by one task**")
        st.caption("A pick takes all tasks. Clear the task above to see it.")
        return
    if decided is None:
        st.markdown("**No pick**")
        st.caption(
            f"A pick on this page takes at most {MANY_RUNS} runs. Filter them in the sidebar, or "
            "ask the shell: `explorer pick`."
        )
        return
    details = sentences.details(decided, runs)
    if decided.pick is None:
        st.markdown("**No model fits**")
        st.markdown(text_format.md(decided.reason))
    else:
        run_id = decided.pick["run_id"]
        st.markdown(f"**Pick: {text_format.md(decided.pick['label'])}**")
        st.markdown(text_format.md(decided.reason))
        for title in ("How sure", "Runner-up"):
            if title in details:
                st.caption(f"**{title}.** {text_format.md(' '.join(details[title]))}")
        with st.container(horizontal=True, vertical_alignment="center", key="explore_pick_actions"):
            _evidence_button(run_id)
            with st.popover("Use it", icon=":material/terminal:"):
                weights = index.weights([run_id]).get(run_id)
                for name, text in use.use(decided.pick, weights).items():
                    st.caption(text_format.md(name))
                    st.code(text, language=None, wrap_lines=True)
            rivals = [decided.teacher, run_id, decided.runner_up and decided.runner_up["run_id"]]
            st.page_link(
                widgets.COMPARE,
                label="Compare",
                icon=":material/table_chart:",
                query_params=[("runs", each) for each in dict.fromkeys(filter(None, rivals))],
            )
    if "What would settle it" in details:
        text = " ".join(details["What would settle it"])
        st.caption(f"**What would settle it.** {text_format.md(text)}")


def _evidence_button(run_id: str) -> None:
    def show() -> None:
        widgets.pick_run(run_id)

    st.button("Evidence", icon=":material/fact_check:", key="explore_evidence", on_click=show)


def others(runs: pd.DataFrame, decided: Decision | None) -> None:
    """A closed expander: near misses, and what is assumed."""
    if decided is None:
        return
    details = sentences.details(decided, runs)
    # Where nothing fits, the near misses are the answer.
    nothing_fits = decided.pick is None and "Near misses" in details
    with st.expander(
        "Near misses, and what is assumed", icon=":material/filter_alt:", expanded=nothing_fits
    ):
        for title in ("Near misses", "Assumed"):
            if title in details:
                st.markdown(f"**{title}**")
                st.markdown("\n".join(f"- {text_format.md(line)}" for line in details[title]))
        st.caption(
            "The same in the shell: `explorer pick`. The rule is in docs/pick.md: "
            "`explorer export --draws` writes what it takes to repeat it."
        )

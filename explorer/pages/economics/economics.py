"""Economics: the cost of serving a given traffic with each run, payback, other devices."""

from functools import partial

import streamlit as st

from explorer.analysis import interference, numbers, studies
from explorer.analysis.cost import cost_headline, economics, unit_cost
from explorer.analysis.cost.economics import Assumptions
from explorer.analysis.cost.fleet import LatencyLimits
from explorer.analysis.cost.serving_cost import Workload
from explorer.analysis.pick import candidates
from explorer.analysis.tables import run_table
from explorer.catalogue import prices
from explorer.charts import cost_chart, export
from explorer.pages.economics import other_devices, parts
from explorer.pages.shared import (
    chart_element,
    downloads,
    glossary,
    html_table,
    paging,
    pricing,
    retention_floor,
    study_summary,
    text_format,
    widgets,
)

TERMS = glossary.TERMS

root = widgets.results_dir()
snapshot = widgets.load(root)
visible = widgets.visible_runs(snapshot)
finished = visible[(visible["status"] == "finished") & visible["tpot_ms"].notna()]

if finished.empty:
    widgets.empty_page("No timed runs yet: finish a run first.")
    widgets.unreadable_folders(root, snapshot.problems)
    other_devices.other_devices(unit_cost.UTILISATION)
    st.stop()

sentence = st.container(key="economics_sentence")
runs = study_summary.choose_runs(finished, "candidates")
prompt_tokens, answer_tokens = unit_cost.common_lengths(runs)
with st.container(horizontal=True, vertical_alignment="bottom", gap="medium", key="economics_row"):
    traffic = st.number_input(
        "Requests per minute",
        min_value=0.1,
        value=60.0,
        step=10.0,
        key="traffic",
        format="%.1f",
        bind="query-params",
        help=TERMS["traffic"],
        width=170,
    )
    input_tokens = st.number_input(
        "Tokens in",
        min_value=1,
        value=prompt_tokens,
        step=32,
        key="in",
        bind="query-params",
        help=TERMS["input_tokens"],
        width=140,
    )
    output_tokens = st.number_input(
        "Tokens out",
        min_value=1,
        value=answer_tokens,
        step=32,
        key="out",
        bind="query-params",
        help=TERMS["answer_tokens"],
        width=140,
    )
    utilisation = pricing.utilisation(TERMS["planned_utilisation"])
    max_ttft_ms = st.number_input(
        "TTFT at most (ms)",
        min_value=1.0,
        value=None,
        step=100.0,
        key="max_ttft",
        bind="query-params",
        help=TERMS["limit_ttft"],
        placeholder="no limit",
        width=160,
    )
    max_tpot_ms = st.number_input(
        "TPOT at most (ms)",
        min_value=0.1,
        value=None,
        step=5.0,
        key="max_tpot",
        bind="query-params",
        help=TERMS["limit_tpot"],
        placeholder="no limit",
        width=160,
    )
with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
    keep = retention_floor.keep(TERMS["keep"], page="economics", width=170)
    sure = retention_floor.sure(page="economics", width=170)
price_sets = widgets.attempt(lambda: prices.price_sets(runs, root)) or {
    name: {} for name in prices.SETS
}
price_set = st.segmented_control(
    "Price set",
    list(prices.SETS),
    default=prices.first_known(price_sets),
    required=True,
    key="prices",
    bind="query-params",
    help=TERMS["price_set"],
)
book = price_sets[price_set]
api = parts.choose_api(root)
assumed = Assumptions(
    workload=Workload(int(input_tokens), int(output_tokens)),
    traffic_per_s=traffic / 60,
    utilisation=utilisation,
    usd_per_hour={name: price.usd_per_hour for name, price in book.items()},
    limits=LatencyLimits(max_ttft_ms, max_tpot_ms),
    api_usd_per_mtok_input=api.input_usd_per_mtok if api else None,
    api_usd_per_mtok_output=api.output_usd_per_mtok if api else None,
)
ordered = run_table.ordered_for_people(widgets.index(root).with_retention(runs))
records = parts.records(root, ordered["run_id"].tolist())
labels = studies.unique_labels(runs)
rows = economics.candidates(records, labels, assumed)
ordered["sure"] = candidates.sure(ordered, widgets.index(root).draws(ordered), keep)
kept = ["run_id", "retention", "retention_low", "retention_high", "sure", "method"]
rows = rows.merge(ordered[kept], on="run_id", how="left")

best = cost_headline.recommended(rows, keep, sure)
finding = cost_headline.cost_headline(rows, assumed, keep, sure)
with sentence:
    widgets.finding(finding)

months = economics.cost_by_traffic(records, labels, assumed)
num_busy = int(interference.was_busy(rows).sum())
left, right = st.columns(2)
with left:
    st.subheader("Cost by traffic", anchor=False)
    chart_element.draw(
        cost_chart.break_even_chart(
            months,
            assumed.traffic_per_s,
            first=[] if best is None else [best["label"]],
            num_busy=num_busy,
            template=widgets.template(),
        ),
        "economics_months",
        "Dollars per month by traffic",
    )
with right:
    st.subheader("Payback of distillation", anchor=False)
    chart_element.draw(
        cost_chart.payback_chart(
            economics.spending_over_time(rows),
            rows,
            first=[] if best is None else [best["label"]],
            num_busy=num_busy,
            template=widgets.template(),
        ),
        "economics_payback",
        "Dollars spent while serving, distillation included",
    )

cells = run_table.economics_table(rows)
page = paging.page_rows(len(rows), "economics_page")
shown = run_table.without_equal_lengths(cells).iloc[page]
groups = {
    "": ["Model", "Retention [95 %]"],
    "Fleet": ["Devices", "Fleet $/hour", "Fleet $/month"],
    "As timed": [
        unit_cost.heading_of(rows),
        *([run_table.LENGTHS] if run_table.LENGTHS in shown else []),
    ],
    f"Requests of {assumed.workload.in_words()}": [
        "$/1,000 requests",
        run_table.PREFILL,
        run_table.DECODE,
        run_table.BLENDED,
    ],
    "Distillation": ["Bill", "Paid back after"],
    **({"API": ["API break-even"]} if api else {}),
}
with st.container(horizontal=True, vertical_alignment="bottom", key="economics_table_row"):
    st.subheader("Each candidate", anchor=False)
    light = cost_chart.break_even_chart(months, assumed.traffic_per_s, num_busy=num_busy)
    downloads.export_popover(
        partial(export.write_table, rows, cells),
        light,
        "economics",
        f"economics-{studies.name_of(runs)}",
    )
is_teacher = (rows["role"] == "teacher").tolist()
hover = parts.cell_notes(shown, rows.iloc[page])
marks = html_table.busy_marks(shown, rows.iloc[page])
st.html(html_table.results_table(shown, groups, pinned=is_teacher[page], hover=hover, marks=marks))
paging.pager(len(rows), "economics_page", "run", "retention")
if rows["usd_per_mtok"].notna().any():
    st.caption(text_format.md(f"{unit_cost.conditions_text(rows)}. {TERMS['split']}"))
if runs["device_name"].nunique() > 1:
    st.caption(
        f"Timed on {runs['device_name'].nunique()} devices: the costs compare devices as well as "
        "models, and a payback may come from the cheaper device."
    )
if api:
    st.caption(text_format.md(TERMS["api_break_even"]))
with st.expander("With each price set", icon=":material/payments:"):
    by_set = economics.cost_by_price_set(
        records,
        labels,
        assumed,
        {
            name: {device: price.usd_per_hour for device, price in of_set.items()}
            for name, of_set in price_sets.items()
        },
    )
    in_words = by_set[list(prices.SETS)].map(numbers.dollars)
    in_words.insert(0, "Model", by_set["label"])
    columns = {"": ["Model"], "Dollars per month": list(prices.SETS)}
    st.html(html_table.results_table(in_words.iloc[page], columns, pinned=is_teacher[page]))
notes = list(dict.fromkeys(note for note in rows["notes"] if note))
missing = list(dict.fromkeys(f"unknown: {name}" for name in rows["missing"] if name))
busy = [
    interference.left_out_sentence(
        num_busy, "without fleet or payback: time it again on the Explore page"
    )
]
parts.assumptions(runs, book, api, [*notes, *missing, *(busy if num_busy else [])])

other_devices.other_devices(utilisation)
widgets.unreadable_folders(root, snapshot.index.problems())

"""A run that was timed on a busy machine: kept, marked, and in no conclusion."""

import json

import pandas as pd
import pytest

from explorer.analysis import frontier, headline, interference
from explorer.analysis.cost import cost_headline, economics, unit_cost
from explorer.analysis.cost.economics import Assumptions
from explorer.analysis.cost.serving_cost import Workload
from explorer.analysis.planning import roofline
from explorer.analysis.planning.run_time import estimate_runs
from explorer.analysis.stats import retention
from explorer.analysis.tables import run_table
from explorer.catalogue.prices import Price
from explorer.charts import cost_chart as charts
from explorer.errors import BadInput
from explorer.records import Latency, RunRecord
from explorer.store import disk, frames
from tests import records

ASSUMED = Assumptions(
    workload=Workload(128, 64),
    traffic_per_s=1.0,
    utilisation=0.5,
    usd_per_hour={records.DEVICE_NAME: 0.05},
)


@pytest.fixture
def study(store_root):
    """A teacher and five students, finished; their ids by label."""
    run_ids = records.write_study(store_root)
    found, _ = disk.load_records(store_root)
    labels = {record.run_id: frames.label(record) for record in found}
    return {labels[run_id]: run_id for run_id in run_ids}


def analysed(root):
    """The store's frame with what is kept and what it costs."""
    found, _ = disk.load_records(root)
    answers = {record.run_id: disk.load_answers(root, record.run_id) for record in found}
    runs = retention.add_retention(frames.runs(found), frames.scores(found), answers)
    price = Price(usd_per_hour=0.05, provider="Cloud")
    return unit_cost.add_costs(runs, {records.DEVICE_NAME: price}, utilisation=0.5)


def priced(root):
    """The study's records, and what serving with each of them would cost."""
    found, _ = disk.load_records(root)
    labels = {record.run_id: frames.label(record) for record in found}
    return found, labels, economics.candidates(found, labels, ASSUMED)


def test_the_record_keeps_the_shares_and_the_table_has_them(store_root, study):
    """What others took, the threshold and the verdict are columns, and survive the disk."""
    run_id = study["15 layers"]
    records.make_busy(store_root, run_id)

    record = disk.load(store_root, run_id)
    row = frames.row(record)

    assert RunRecord.from_json(record.to_json()) == record
    assert row["machine_busy"] is True
    assert (row["busy_share_before"], row["busy_share_during"]) == (0.44, 0.63)
    assert row["busy_threshold"] == 0.2
    assert "63% of it while this was timed" in row["latency_warning"]
    assert frames.row(disk.load(store_root, study["teacher"]))["machine_busy"] is False


def test_an_older_record_is_busy_where_it_has_a_warning(store_root, study):
    """Records of before the shares load as they are, and their warning counts."""
    record = disk.load(store_root, study["15 layers"])
    data = json.loads(record.to_json())
    del data["latency"]["interference"]
    data["latency"]["warning"] = "Other processes used 44% of the processor."

    old = RunRecord.from_json(json.dumps(data))

    assert old.latency.was_busy
    assert old.latency.interference is None
    assert frames.row(old)["machine_busy"] is True
    data["latency"]["warning"] = None
    assert not Latency.model_validate(data["latency"]).was_busy


def test_a_run_without_a_timing_is_not_busy(store_root):
    """A failed run has no times that could be wrong; the column is a flag in every row."""
    records.write_run(store_root, records.make_record(num_layers=12, status="failed"))

    frame = frames.runs(disk.load_records(store_root)[0])

    assert frame["machine_busy"].tolist() == [False]
    assert not interference.was_busy(frame).any()
    assert not interference.was_busy(pd.DataFrame({"run_id": ["published"]})).any()


def test_every_column_of_a_timing_is_known_as_one(store_root, study):
    """What depends on the clock is missing without times; what describes the order stays."""
    row = frames.row(disk.load(store_root, study["15 layers"]))
    untimed = frames.row(
        disk.load(store_root, study["15 layers"]).model_copy(update={"latency": None})
    )
    described = {
        "batch_size",
        "prompt_tokens",
        "output_tokens",
        "runtime",
        "disk_bytes",
        "num_failed_requests",
        "latency_warning",
    }

    assert {name for name in row if name not in untimed} - described == {
        name for name in interference.TIMED if name in row
    }
    assert set(interference.TIMED) <= set(frames.COLUMNS)


def test_a_busy_run_is_never_on_the_frontier(store_root, study):
    """Not even the fastest one; of the others the frontier is as if it were not there."""
    before = analysed(store_root)
    records.make_busy(store_root, study["6 layers"])
    runs = analysed(store_root)

    for x in ("tpot_ms", "usd_per_mtok", "num_parameters"):
        on_it = frontier.pareto(runs, maximise="retention", minimise=x)["run_id"]
        without = before[before["run_id"] != study["6 layers"]]
        assert on_it.tolist() == (
            frontier.pareto(without, maximise="retention", minimise=x)["run_id"].tolist()
        )
    draws = pd.DataFrame({run_id: [0.5, 0.6] for run_id in runs["run_id"]})
    share = frontier.membership(runs, draws, maximise="retention", minimise="tpot_ms")
    assert share[runs["run_id"] == study["6 layers"]].isna().all()
    assert share.notna().sum() == 5


def test_the_finding_leaves_busy_runs_out_and_counts_them(store_root, study):
    """It states latency and cost, so it names another student, and hides nothing."""
    records.make_busy(store_root, study["24 layers"], times_slower=3)

    sentence = headline.headline(analysed(store_root))

    assert sentence.startswith(
        "No student timed on an idle machine reaches 95 %: the closest is a 20-layer student"
    )
    assert sentence.endswith("1 run timed on a busy machine is left out.")


def test_where_all_students_are_busy_the_finding_says_so(store_root, study):
    """They are not called missing, and no number of theirs is told."""
    for label, run_id in study.items():
        if label != "teacher":
            records.make_busy(store_root, run_id)

    assert headline.headline(analysed(store_root)) == (
        "All 5 students were timed on a busy machine, so there is no finding on latency or cost. "
        "Time them again on an idle machine."
    )


def test_a_busy_teacher_takes_no_ratio_from_its_students(store_root, study):
    """A student was timed in turns with the teacher, in its own run: that ratio holds."""
    before = headline.headline(analysed(store_root))
    records.make_busy(store_root, study["teacher"], times_slower=3)

    assert headline.headline(analysed(store_root)) == before


def test_the_load_is_not_taken_from_a_busy_teacher(store_root, study):
    """Without a timing in turns the teacher's own run says what it serves, unless it was busy."""
    for label, run_id in study.items():
        record = disk.load(store_root, run_id)
        if label != "teacher":
            latency = record.latency.model_copy(update={"teacher": None})
            disk.save(store_root, record.model_copy(update={"latency": latency}))
    students = analysed(store_root).query("role == 'student'")
    assert students["usd_per_hour_at_load"].notna().all()

    records.make_busy(store_root, study["teacher"], times_slower=3)

    students = analysed(store_root).query("role == 'student'")
    assert students["usd_per_hour_at_load"].isna().all()
    assert students["usd_per_mtok"].notna().all()


def test_estimates_of_timing_leave_busy_runs_out(store_root, study):
    """A slow moment makes no plan longer; the seconds of training and testing stay known."""
    planned = records.study("planned", layers=(12,))[1]

    def estimated():
        found, _ = disk.load_records(store_root)
        return estimate_runs([planned], frames.runs(found), frames.scores(found))

    before = estimated()
    records.make_busy(store_root, study["15 layers"], times_slower=50)
    after = estimated()

    assert after.seconds == pytest.approx(before.seconds, rel=0.05)
    assert after.unknown == before.unknown == ()
    assert "1 run timed on a busy machine is used for training and evaluation only" in after.basis

    for run_id in study.values():
        records.make_busy(store_root, run_id, times_slower=50)
    only_busy = estimated()
    assert only_busy.unknown == ("timing",)
    assert only_busy.seconds < before.seconds


def test_no_cost_rests_on_busy_times(store_root, study):
    """It keeps its row and bill; fleets, requests and paybacks need an idle machine.

    Its cost per token is shown, marked, and is the one that every other table shows.
    """
    _, _, before = priced(store_root)
    assert before.set_index("label").loc["6 layers", "usd_per_month"] == (
        before["usd_per_month"].min()
    )
    records.make_busy(store_root, study["6 layers"])

    found, labels, rows = priced(store_root)
    row = rows.set_index("label").loc["6 layers"]

    assert row["machine_busy"]
    assert row["missing"] == interference.IDLE_TIMING
    assert row[["usd_per_month", "usd_per_request", "usd_per_mtok_decode", "replicas"]].isna().all()
    assert row["bill_usd"] > 0
    compared = analysed(store_root).set_index("label").loc["6 layers", "usd_per_mtok"]
    assert row["usd_per_mtok"] == pytest.approx(compared)
    sentence = cost_headline.cost_headline(rows, ASSUMED)
    assert "6 layers" not in sentence
    assert sentence.endswith("1 run timed on a busy machine is left out.")
    months = economics.cost_by_traffic(found, labels, ASSUMED)
    assert months[months["name"] == "6 layers"]["usd_per_month"].isna().all()
    spent = economics.spending_over_time(rows)
    assert spent[spent["name"] == "6 layers"]["usd"].isna().all()
    by_set = economics.cost_by_price_set(found, labels, ASSUMED, {"yours": ASSUMED.usd_per_hour})
    assert by_set.set_index("label")["yours"].isna().tolist() == [
        label == "6 layers" for label in by_set["label"]
    ]


def test_nothing_is_paid_back_against_a_busy_teacher(store_root, study):
    """The saving is a difference of two costs, and one of them is not known."""
    records.make_busy(store_root, study["teacher"], times_slower=9)

    _, _, rows = priced(store_root)
    students = rows[rows["role"] == "student"]

    assert students["payback_hours"].isna().all()
    assert set(students["payback_note"]) == {"a timing on an idle machine of the teacher"}
    assert students["usd_per_month"].notna().all()


def test_where_all_is_busy_the_cost_says_what_is_needed(store_root, study):
    """Nothing is cheapest, and the sentence says why."""
    for run_id in study.values():
        records.make_busy(store_root, run_id)

    _, _, rows = priced(store_root)

    assert cost_headline.cost_headline(rows, ASSUMED) == (
        "The cost of 60 requests a minute is unknown without a timing on an idle machine."
    )
    assert (
        charts.payback_chart(economics.spending_over_time(rows), rows, num_busy=6)
        .layout.annotations[0]
        .text.endswith("a price of the device and a timing on an idle machine.")
    )


def test_money_charts_count_what_they_do_not_draw(store_root, study):
    """A run without a line is counted in the chart's corner."""
    records.make_busy(store_root, study["6 layers"])
    found, labels, rows = priced(store_root)

    months = charts.break_even_chart(
        economics.cost_by_traffic(found, labels, ASSUMED), 1, num_busy=1
    )
    spent = charts.payback_chart(economics.spending_over_time(rows), rows, num_busy=1)

    for figure in (months, spent):
        assert "6 layers" not in {trace.name for trace in figure.data if trace.x is not None}
        assert "1 run timed on a busy machine is not drawn" in [
            note.text for note in figure.layout.annotations
        ]


def test_a_busy_run_calibrates_no_device(store_root, study):
    """What a device reaches is not read off a run that had only a part of it."""
    records.make_busy(store_root, study["15 layers"])
    row = frames.row(disk.load(store_root, study["15 layers"]))

    with pytest.raises(BadInput, match=r"busy machine.*explorer run \S+ --again"):
        roofline.calibrated_efficiency(row, tflops=1e3, bandwidth_gb_s=1e5)


def test_tables_mark_a_busy_run_beside_its_name(store_root, study):
    """In words for people, as a flag and shares in what programs read."""
    records.make_busy(store_root, study["15 layers"])
    records.make_busy(store_root, study["teacher"])
    runs = analysed(store_root)

    names = run_table.comparison_table(runs)["Model"].tolist()
    raw = run_table.raw_table(runs).set_index("label")

    assert "15 layers (machine was busy)" in names
    assert "starter (teacher, machine was busy)" in names
    assert "20 layers" in names
    assert raw["machine_busy"].to_dict()["15 layers"]
    assert raw.loc["15 layers", "busy_share_during"] == 0.63
    _, _, rows = priced(store_root)
    assert "15 layers (machine was busy)" in run_table.economics_table(rows)["Model"].tolist()


def test_how_to_time_again_is_a_command():
    """One run or several, each with the line to type."""
    assert interference.retiming_advice([]) == ""
    assert interference.retiming_advice(["a-1"]).endswith("\n  explorer run a-1 --again")
    assert interference.retiming_advice(["a-1", "b-2"]).count("--again") == 2
    assert interference.left_out_sentence(0) == ""
    assert interference.left_out_sentence(2) == "2 runs timed on a busy machine are left out"

"""The Explore page: empty, full, failed, damaged."""

import json
import shutil

import pandas as pd
import pytest
import streamlit as st

from explorer import jobs
from explorer.catalogue import prices
from explorer.catalogue.prices import Price
from explorer.pages.explore import evidence, pick_card
from explorer.pages.shared import widgets
from explorer.store import disk
from tests import records
from tests.app.reading import charts_of, text_of


def test_an_empty_store_leads_to_the_run_page(root, open_page):
    """With no runs there is one sentence and one button, not an empty chart."""
    page = open_page("explore")

    assert "No runs yet" in text_of(page)
    assert [button.label for button in page.button] == [
        "Go to the Run page",
        "Start the starter sweep",
    ]
    assert not charts_of(page)


def test_the_starter_sweep_is_one_click_away(root, open_page, submitted):
    """One click on an empty store queues the teacher and five students."""
    page = open_page("explore")

    page.button(key="explore_starter").click().run()

    assert not page.exception
    assert len(submitted) == 6
    assert submitted[0].student is None


def test_the_finding_stands_first(study, open_page):
    """A filled store opens with a sentence that is computed from it, then the chart."""
    page = open_page("explore")

    assert "layer student" in text_of(page)
    assert "6 runs" in text_of(page)
    assert charts_of(page)


def test_another_axis_decides_nothing_anew(study, open_page, monkeypatch):
    """The pick and its confidence rest on limits, filters and prices, not on the axes."""
    decisions = []

    def pick(*arguments, **options):
        decisions.append(arguments)
        return decide(*arguments, **options)

    decide = pick_card.decide.pick
    monkeypatch.setattr(pick_card.decide, "pick", pick)
    page = open_page("explore")
    finding = text_of(page).splitlines()[0]

    page.query_params["x"] = "TTFT"
    page.run()
    assert text_of(page).splitlines()[0] == finding
    assert len(decisions) == 1

    page.number_input(key="max_tpot").set_value(0.001).run()
    assert len(decisions) == 2
    assert "No model fits" in text_of(page)


def test_another_axis_draws_only_the_chart_again(study, open_page, monkeypatch):
    """The rest of the page stays as it is: drawing it takes longer than drawing the chart."""
    drawn = []
    monkeypatch.setattr(pick_card, "pick_card", lambda *arguments: drawn.append("whole page"))
    page = open_page("explore")

    page.selectbox(key="x").set_value("ttft_ms").run()
    assert charts_of(page)[0]["layout"]["xaxis"]["title"]["text"].startswith("TTFT, median")
    assert drawn == ["whole page"]

    page.run()  # which the test needs to see the other controls again
    task = page.selectbox(key="task")
    task.set_value(task.options[0]).run()
    assert drawn == ["whole page"] * 3


def test_another_axis_is_drawn_although_a_run_was_deleted_elsewhere(root, study, open_page):
    """The page shows what it found when it was drawn as a whole, and forgets it with the next."""
    page = open_page("explore")
    shutil.rmtree(root / study[1])
    widgets.index(root).update()

    page.selectbox(key="x").set_value("ttft_ms").run()
    assert not page.exception
    assert "TTFT" in charts_of(page)[0]["layout"]["xaxis"]["title"]["text"]

    page.run()
    assert "5 runs" in text_of(page)


def test_a_picked_run_shows_its_evidence(study, open_page):
    """A run in the page's address opens the strip with its tasks, timing and origin."""
    page = open_page("explore", run=study[2])

    said = text_of(page)
    assert "Cut to 20 layers" in said
    budget = records.study()[2].distill.max_tokens
    assert f"trained on {budget:,} tokens of starter" in said
    assert len(charts_of(page)) == 3, "chart, tasks, timing"
    picked = page.selectbox(key="run")
    assert picked.options == [
        "starter (teacher)",
        *(f"{layers} layers" for layers in (24, 20, 15, 10, 6)),
    ]
    assert picked.value == study[2], "the address has the id, the list the name"
    assert {"Open the run", "Run it again"} <= {button.label for button in page.button}


def test_a_busy_run_is_marked_and_can_be_timed_again(root, study, open_page, monkeypatch):
    """The strip says that its times are not used, and one click hands it to the queue."""
    records.make_busy(root, study[2])
    resumed = []
    monkeypatch.setattr(jobs, "resume", lambda root, run_id, told: resumed.append(run_id))

    page = open_page("explore", run=study[2])
    said = text_of(page)

    assert "machine was busy</span>: no conclusion uses the times" in said
    assert "63% of it while this was timed" in said
    assert "1 timed on a busy machine" in said
    assert "1 run timed on a busy machine is left out." in said
    assert "Run it again" not in {button.label for button in page.button}
    page.button(key="explore_again").click().run()
    assert resumed == [study[2]]


def test_read_only_offers_no_new_timing(root, study, open_page, monkeypatch):
    """The mark stays, the button goes."""
    records.make_busy(root, study[2])
    monkeypatch.setenv("EXPLORER_READ_ONLY", "1")

    page = open_page("explore", run=study[2])

    assert "machine was busy" in text_of(page)
    assert "Time it again" not in {button.label for button in page.button}


def test_a_run_with_a_control_arm_says_whether_distillation_helped(root, study, open_page):
    """The strip has the sentence where both are in the store."""
    arms = records.study(control=True)
    arm = next(spec for spec in arms if spec.name == "starter-20l-labels")
    assert "distillation helped" not in text_of(open_page("explore", run=study[2]))
    records.write_run(root, records.make_record(spec=arm))
    st.cache_data.clear()
    st.cache_resource.clear()

    page = open_page("explore", run=study[2])

    assert "Whether distillation helped is inconclusive" in text_of(page)


def test_the_teacher_can_be_picked(study, open_page):
    """The teacher has evidence too, though nobody to be compared with."""
    page = open_page("explore", run=study[0])

    assert "The teacher starter, unchanged" in text_of(page)


def test_an_unknown_run_in_the_address_is_ignored(study, open_page):
    """An old or wrong link shows the chart without a strip."""
    page = open_page("explore", run="no-such-run")

    assert charts_of(page)
    assert page.selectbox(key="run").value is None


def test_a_run_opens_in_full(study, open_page):
    """Open the run shows spec, environment, curve, kept layers and log."""
    page = open_page("explore", run=study[3])

    page.button(key="explore_open").click().run()

    assert not page.exception
    assert any("num_layers: 15" in block.value for block in page.code)
    assert [tab.label for tab in page.tabs] == [
        "Spec",
        "Environment",
        "Load",
        "Training",
        "Layers",
        "Log",
    ]
    assert "No load test" in text_of(page)


def test_an_opened_run_shows_its_levels_of_load(root, study, open_page):
    """Chart and table of the levels, what ran the model, and why the sweep ended."""
    records.write_run(root, records.with_levels(disk.load(root, study[3])))
    page = open_page("explore", run=study[3])

    page.button(key="explore_open").click().run()

    assert not page.exception
    assert "llama.cpp 0.3; loaded in" in text_of(page)
    assert "The sweep ended at 8." in text_of(page)
    assert any("num_failed" in table.value for table in page.dataframe)


def test_an_opened_run_can_be_taken_away(study, open_page):
    """Its scores as lm-eval's folder and a model card; what the Hub cannot take says why."""
    page = open_page("explore", run=study[3])

    page.button(key="explore_open").click().run()

    assert not page.exception
    buttons = {one.label: one for one in page.get("download_button")}
    assert not buttons["lm-eval (zip)"].proto.disabled
    assert not buttons["Model card (YAML)"].proto.disabled
    assert buttons["Hub results (YAML)"].proto.disabled
    assert "must name a Hub dataset" in buttons["Hub results (YAML)"].proto.help


@pytest.mark.parametrize(
    ("name", "axis"),
    [("TTFT", "ttft_ms"), ("Parameters", "num_parameters"), ("Memory", "peak_memory_bytes")],
)
def test_the_axis_is_in_the_address(study, open_page, name, axis):
    """A link with an axis opens the chart on that axis."""
    page = open_page("explore", x=name)

    assert page.selectbox(key="x").value == axis
    assert charts_of(page)


def test_an_unknown_price_is_asked_for(study, open_page):
    """A cost axis without a price shows the question, and no invented figure."""
    page = open_page("explore", x="$/1M output")

    assert not charts_of(page)
    assert "This device has no price yet" in text_of(page)


def test_an_own_price_draws_the_cost_chart(root, study, open_page):
    """A typed price is kept with its date, and the chart appears."""
    page = open_page("explore", x="$/1M output")

    field = f"explore_ask_own_{records.DEVICE_NAME}"
    page.text_input(key=field).input("0.05").run()
    page.button(key=f"explore_ask_save_{records.DEVICE_NAME}").click().run()

    assert not page.exception
    saved = prices.read_overrides(root / prices.OVERRIDES)[records.DEVICE_NAME]
    assert saved.usd_per_hour == 0.05
    assert saved.date_seen
    assert charts_of(page)


def test_a_price_of_minus_one_is_refused(root, study, open_page):
    """An impossible price is answered with one sentence and not kept."""
    page = open_page("explore", x="$/1M output")

    page.text_input(key=f"explore_ask_own_{records.DEVICE_NAME}").input("-1").run()
    page.button(key=f"explore_ask_save_{records.DEVICE_NAME}").click().run()

    assert not page.exception
    assert "above 0" in page.error[0].value
    assert not (root / prices.OVERRIDES).exists()


def test_a_cost_names_its_price(root, study, open_page):
    """The strip shows the price that a cost comes from, with its date."""
    price = Price(usd_per_hour=0.1, provider="Example", date_seen="2026-09-25")
    prices.write_override(root / prices.OVERRIDES, records.DEVICE_NAME, price)

    page = open_page("explore", run=study[1])

    assert "Example, seen 2026-09-25" in text_of(page)


def test_a_failed_run_says_why(root, study, open_page):
    """A failed run is listed with its error and can be resumed."""
    failed = records.make_record(num_layers=12, status="failed", number=9)
    records.write_run(root, failed)

    page = open_page("explore")

    assert "The disk is full" in text_of(page)
    assert page.button(key=f"explore_resume_{failed.run_id}")


def test_only_failed_runs_draw_no_chart(root, open_page):
    """A store with nothing but a failed run still opens and says what happened."""
    records.write_run(root, records.make_record(num_layers=12, status="failed"))

    page = open_page("explore")

    assert not charts_of(page)
    assert "The disk is full" in text_of(page)


def test_damaged_and_foreign_folders_are_reported_and_kept(root, study, open_page):
    """Folders that are no runs are named, harm nothing and stay where they are."""
    (root / "my-notes").mkdir()
    broken = root / study[5] / disk.RECORD
    broken.write_text('{"schema', encoding="utf-8")

    page = open_page("explore")

    said = text_of(page).replace("\\", "")
    assert "my-notes is not a run" in said
    assert "is not JSON" in said
    assert broken.read_text(encoding="utf-8") == '{"schema'
    assert charts_of(page)


def test_damaged_answers_take_the_interval_not_the_page(root, study, open_page):
    """A run whose answers cannot be read loses its interval, and is named; the page stays."""
    (root / study[4] / disk.ANSWERS).write_bytes(b"no parquet")

    page = open_page("explore", run=study[4])

    assert charts_of(page)
    assert "1 folder in the results could not be read" in [box.label for box in page.expander]
    assert f"{study[4]} is damaged because answers.parquet" in text_of(page).replace("\\", "")


def test_a_store_that_is_not_there_is_an_empty_one(root, open_page):
    """A results folder that does not exist yet is no error."""
    shutil.rmtree(root)

    assert "No runs yet" in text_of(open_page("explore"))


def test_read_only_hides_every_action(root, study, open_page, monkeypatch):
    """With EXPLORER_READ_ONLY=1 nothing can be started, resumed or priced."""
    monkeypatch.setenv("EXPLORER_READ_ONLY", "1")
    records.write_run(root, records.make_record(num_layers=12, status="failed"))

    page = open_page("explore", run=study[1], x="$/1M output")

    enabled = {button.label for button in page.button if not button.disabled}
    assert enabled == {"Back to the pick", "Open the run"}, "both only show"


def test_one_task_can_be_looked_at_alone(study, open_page):
    """Choosing a task draws the same chart for that task only."""
    page = open_page("explore", task="starter_facts")

    assert "task starter_facts only" in text_of(page)
    assert charts_of(page)


def test_filters_are_in_the_address(root, study, open_page):
    """A link with a device shows that device's runs and says that it is filtered."""
    records.write_study(root, name="gpu", seed=3, device_name="NVIDIA H100 80GB HBM3")

    page = open_page("explore", device="NVIDIA H100 80GB HBM3")

    assert "(filtered)" in text_of(page)


def test_run_it_again_leads_to_the_queue_from_any_address(study, open_page, monkeypatch):
    """The button hands the run over and leaves the page, whatever its address holds."""
    seen = []
    monkeypatch.setattr(jobs, "resume", lambda root, run_id, told: seen.append(run_id) or run_id)
    page = open_page("explore", run=study[2], x="ttft_ms")
    page.button(key="explore_again").click().run()

    assert not page.exception
    assert seen == [study[2]]
    assert page.button(key="run_start")


def test_the_pick_stands_beside_the_chart_and_follows_the_limits(study, open_page):
    """The card names the pick, its reason and how sure it is; a limit changes it at once."""
    page = open_page("explore", keep="50", objective="Smallest")

    said = text_of(page)
    assert "**Pick: 15 layers**" in said
    assert "is the smallest of" in said
    assert "With other documents the rule picks it again in" in said
    assert "Near misses" in [expander.label.split(",")[0] for expander in page.expander]

    page.number_input(key="max_weights").set_value(1.0).run()

    said = text_of(page)
    assert "**No model fits**" in said
    assert "It fits if you" in said


def test_page_and_shell_pick_the_same(study, open_page, store_root, capsys, monkeypatch):
    """One rule: the page's pick is that of `explorer pick` with the same limits."""
    decided = _shell_pick(
        ["--min-retention", "0.5", "--objective", "smallest"], monkeypatch, capsys
    )

    page = open_page("explore", keep="50", objective="Smallest")
    said = text_of(page).replace("\\", "")

    assert f"**Pick: {decided['pick']['label']}**" in said
    assert decided["reason"] in said
    limits = {box.key for box in page.selectbox} & {"runtime", "format", "timed_on"}
    assert limits == set(), "there is nothing to choose where all runs ran in one place"


@pytest.mark.parametrize(
    ("runtime", "number_format", "device"),
    [
        ("llama.cpp", "q8_0", "AMD EPYC (2 cores)"),
        ("transformers eager", "torch", "AMD EPYC (2 cores)"),
        ("llama.cpp", "q8_0", "endpoint 127.0.0.1:8080"),
    ],
)
def test_page_and_shell_agree_on_where_a_model_must_run(
    root, open_page, capsys, monkeypatch, runtime, number_format, device
):
    """Runtime, format and device in the address are the shell's options; so is what they remove."""
    shutil.copytree(records.STUDY, root, dirs_exist_ok=True)
    options = ["--runtime", runtime, "--format", number_format, "--device", device]
    decided = _shell_pick(["--min-retention", "0.5", *options], monkeypatch, capsys)

    page = open_page("explore", keep="50", runtime=runtime, format=number_format, timed_on=device)
    (folded,) = (part for part in page.expander if part.label == "More limits")
    assert folded.proto.expanded, "a limit that a link sets is seen"

    chosen = {box.key: box.value for box in page.selectbox}
    assert (chosen["runtime"], chosen["format"], chosen["timed_on"]) == (
        runtime,
        number_format,
        device,
    )
    assert decided["reason"] in text_of(page).replace("\\", "")
    removed = {
        button.key.removeprefix("removed_"): int(button.label.split(" ")[0])
        for button in page.button
        if button.key and button.key.startswith("removed_")
    }
    assert removed == {name: of["num_runs"] for name, of in decided["removed"].items()}
    assert set(removed) & {"format", "runtime", "other_device"}


def _shell_pick(options, monkeypatch, capsys):
    """What `explorer pick --json` prints."""
    from explorer import cli

    monkeypatch.setattr("sys.argv", ["explorer", "pick", *options, "--json"])
    with pytest.raises(SystemExit):
        cli.main()
    return json.loads(capsys.readouterr().out)


def test_one_task_has_no_pick(study, open_page):
    """A pick takes all tasks; the card says so instead of showing one that does not hold."""
    said = text_of(
        open_page(
            "explore", task=records.make_record(spec=records.study()[0]).capability.scores[0].task
        )
    )

    assert "No pick by one task" in said


def test_control_arms_are_hidden_until_asked_for(root, study, open_page):
    """A switch in the sidebar shows them on the chart; the pick never takes one."""
    spec = records.study()[2]
    control = spec.with_(distill=spec.distill.with_(method="labels"), name="control")
    records.write_run(root, records.make_record(spec=control, number=7))

    page = open_page("explore")
    assert page.toggle(key="controls").label == "Show 1 control arm"
    hidden = _drawn(page)
    page.toggle(key="controls").set_value(True).run()

    assert _drawn(page) - hidden == {control.run_id}


def _drawn(page):
    """Ids of the runs on the first chart."""
    figure = charts_of(page)[0]
    return {point[0] for trace in figure["data"] for point in trace.get("customdata", [])}


def test_the_ranking_marks_models_that_cannot_be_told_apart(study, open_page):
    """The view is in the address; its sentence forbids to call one of a group the best."""
    page = open_page("explore", view="Ranking")

    said = text_of(page).replace("\\", "")
    assert "can't be told apart" in said
    assert "explorer rank" in said
    assert _drawn(page) == set(study)


def test_the_view_by_task_names_tasks_that_do_not_count(study, open_page):
    """A line a student and a column a task, with the task that suffers first in words."""
    page = open_page("explore", view="By task")

    figure = charts_of(page)[0]
    (heat,) = figure["data"]
    assert heat["type"] == "heatmap"
    assert len(heat["text"]) == len(study) - 1
    assert {len(line) for line in heat["text"]} == {len(records.TASKS)}
    assert "suffers first" in text_of(page)


def test_the_view_of_time_splits_a_request(study, open_page):
    """Each model has a bar of prefill and of decode; the lengths of the request are stated."""
    page = open_page("explore", view="Where the time goes")

    figure = charts_of(page)[0]
    assert [trace["name"].split(" ")[0] for trace in figure["data"]] == ["prefill", "decode"]
    assert _drawn(page) == set(study)
    assert "of a request's time" in text_of(page).replace("\\", "")


@pytest.mark.parametrize("view", ["Ranking", "By task", "Where the time goes"])
def test_every_view_takes_one_run_and_a_teacher_that_is_not_there(root, open_page, view):
    """With a single student whose teacher is missing each view says in words what it lacks."""
    records.write_run(root, records.make_record(num_layers=15))

    page = open_page("explore", view=view)

    assert not page.exception
    assert charts_of(page)


def test_what_a_limit_removed_is_one_click_away(study, open_page):
    """A button per limit with its count; its models are named, and stand out on the chart."""
    page = open_page("explore", keep="80", max_weights="400", objective="Smallest")
    button = page.button(key="removed_max_weight_bytes")
    assert button.label.startswith("2 by weights on disk at most")

    button.click().run()

    assert not page.exception
    said = text_of(page).replace("\\", "")
    assert "at most 400 MB: " in said
    again = open_page(
        "explore",
        keep="80",
        max_weights="400",
        objective="Smallest",
        removed="max_weight_bytes",
    )
    figure = charts_of(again)[0]
    solid = {
        point[0]
        for trace in figure["data"]
        if trace.get("customdata")
        for point, opacity in zip(trace["customdata"], trace["marker"]["opacity"], strict=True)
        if opacity == 1
    }
    assert {study[0], study[1]} <= solid
    assert study[5] not in solid


def test_a_clicked_run_shows_its_evidence_beside_the_chart(study, open_page):
    """What it keeps by task as small bars, and which limit removed it."""
    said = text_of(open_page("explore", run=study[3], keep="95", objective="Smallest")).replace(
        "\\", ""
    )

    assert "Removed: by keeping at least 95 %" in said
    assert "Bars begin at chance" in said
    assert 'title="starter_facts: ' in said


def test_the_baseline_is_in_the_address(study, open_page):
    """The switch says what it compares with, and an address brings it back."""
    page = open_page("explore", against="Teacher as it is")

    assert page.segmented_control(key="against").value == "original"


def test_the_page_has_one_heading_with_the_finding(study, open_page):
    """The finding is the page's h1."""
    said = text_of(open_page("explore"))

    assert said.count("<h1") == 1
    assert '<h1 class="finding">' in said


@pytest.mark.parametrize("axis", ["End to end", "Throughput", "Weights on disk", "Energy"])
@pytest.mark.parametrize("unit", ["Times the teacher", "Absolute"])
def test_every_axis_opens_in_both_units(study, open_page, axis, unit):
    """Also one that no run has measured, which says what it needs."""
    page = open_page("explore", x=axis, unit=unit, scale="Logarithmic")

    assert not page.exception
    assert charts_of(page)


@pytest.mark.parametrize(
    ("old", "axis"), [("$/hour", "usd_per_hour_at_load"), ("ttft_ms", "ttft_ms")]
)
def test_older_addresses_open_the_same_axis(study, open_page, old, axis):
    """Names of axes that an older address holds, and names of columns."""
    assert open_page("explore", x=old).selectbox(key="x").value == axis


def test_overlays_are_switched_on_by_the_address(study, open_page):
    """Published students and estimates join the chart; the axis says which it cannot show."""
    page = open_page("explore", x="Parameters", published="true", estimate="H100 SXM", y="Raw")

    ids = _drawn(page)
    assert {run_id.split(":")[0] for run_id in ids if ":" in run_id} == {"published", "estimated"}
    assert set(study) <= ids
    said = text_of(page).replace("\\", "")
    assert "Hollow diamonds: published" in said
    assert "Dotted circles: estimated on H100 SXM" in said
    on_time = text_of(open_page("explore", published="true")).replace("\\", "")
    assert "Published students have no TPOT" in on_time


def test_a_published_student_can_be_measured_here(study, open_page):
    """One click fills in the Run page with both models, and starts nothing."""
    page = open_page(
        "explore",
        x="Parameters",
        published="true",
        pair="DeepSeek-R1-Distill-Qwen-7B · deepseek-r1-readme",
    )
    assert "DeepSeek-R1-Distill-Qwen-7B" in text_of(page)

    page.button(key="explore_measure").click().run()

    assert not page.exception
    assert page.selectbox(key="run_teacher").value == "deepseek-ai/DeepSeek-R1"
    assert page.multiselect(key="run_models").value == ["deepseek-ai/DeepSeek-R1-Distill-Qwen-7B"]


def test_the_list_of_runs_is_short_however_many_there_are(monkeypatch):
    """Ten thousand runs send two hundred to the browser, and the open one is among them."""
    many = pd.DataFrame(
        {
            "run_id": [f"run-{number}" for number in range(10_000)],
            "retention": [number / 10_000 for number in range(10_000)],
            "num_parameters": 1e6,
        }
    )
    monkeypatch.setattr(widgets, "picked_run", lambda: "run-3")

    listed = evidence.listed_runs(many)

    assert len(listed) == evidence.MOST_LISTED
    assert {"run-3", "run-9999"} <= set(listed["run_id"])

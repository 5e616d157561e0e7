"""The Compare page: table, differences, export."""

import io
import shutil
from pathlib import Path

import pandas as pd

from explorer.analysis import studies
from explorer.pages.compare import differences
from explorer.pages.shared import paging, study_summary
from explorer.specs import RunSpec, SweepSpec
from explorer.store import disk, frames
from tests import records
from tests.app.reading import text_of
from tests.unit.test_evaluations import evaluation


def test_an_empty_store_leads_to_the_run_page(root, open_page):
    """With nothing finished there is one sentence and one button."""
    page = open_page("compare")

    assert "Nothing to compare yet" in text_of(page)
    assert [button.label for button in page.button] == ["Go to the Run page"]


def test_only_failed_runs_are_nothing_to_compare(root, open_page):
    """A failed run has no numbers, so the page says what to do instead."""
    records.write_run(root, records.make_record(num_layers=12, status="failed"))

    assert "Nothing to compare yet" in text_of(open_page("compare"))


def test_a_busy_run_is_marked_in_the_table(root, study, open_page):
    """Its name says it, its times are set apart, and the footnote says what that means."""
    records.make_busy(root, study[2])

    said = text_of(open_page("compare"))

    assert said.count("20 layers (machine was busy)") >= 1
    assert said.count('class="busy"') + said.count('class="first busy"') == 6
    assert "63% of it while this was timed" in said
    assert "1 run timed on a busy machine is in italics" in said


def test_the_newest_study_is_compared_at_first(root, study, open_page):
    """The page opens with the newest sweep's teacher and students."""
    newer = records.write_study(root, name="newer", layers=(20, 10), seed=7)
    for number, run_id in enumerate(newer[1:]):
        old = disk.load(root, run_id)
        late = f"2026-11-22T0{number}:00:00+00:00"
        disk.save(root, old.model_copy(update={"finished_at": late}))

    page = open_page("compare")

    assert page.multiselect(key="runs").value == newer


def test_the_teacher_is_on_top_and_intervals_are_small(study, open_page):
    """The table has the teacher first, then students by what they keep, with intervals."""
    said = text_of(open_page("compare"))

    rows = [
        said.index(name) for name in ("starter (teacher)", "24 layers", "15 layers", "6 layers")
    ]
    assert rows == sorted(rows)
    assert "<small>[" in said


def test_a_missing_cost_says_why_on_hover(study, open_page):
    """An en dash in a cost column carries the reason."""
    said = text_of(open_page("compare"))

    assert f"no price for {records.DEVICE_NAME}" in said


def test_differences_carry_verdicts(study, open_page):
    """The second mode says for each task and the suite whether a run is better, worse, unclear."""
    page = open_page("compare", show="Differences")

    said = text_of(page)
    assert 'class="worse"' in said or 'class="first worse"' in said
    assert "Suite" in said
    assert "adjusted for the number of tasks (Holm)" in said
    assert page.selectbox(key="against").value == differences.OWN_TEACHER


def test_any_run_can_be_the_reference(root, study, open_page):
    """Held against a student, the teacher is better; the numbers are the function's."""
    page = open_page("compare", show="Differences", against=study[1])

    rows, suite = differences.between(root, study[0], study[1], own=False)
    said = text_of(page)
    assert f"{study[0]} against {study[1]}" in said
    assert suite["verdict"] == "better"
    assert f"{100 * suite['difference']:.3g}" in said
    assert len(rows) == len(records.TASKS)


def test_a_refused_comparison_says_which_field_differs(root, study, open_page):
    """Two runs of different lm-eval versions show no number but the reason."""
    old = disk.load(root, study[1])
    capability = old.capability.model_copy(update={"lm_eval_version": "0.4.9"})
    disk.save(root, old.model_copy(update={"capability": capability}))

    said = text_of(open_page("compare", show="Differences", against=study[2]))

    assert "lm-eval versions differ (run 0.4.9, reference 0.4.13)" in said


def test_differences_without_a_second_run_say_what_is_missing(study, open_page):
    """With the teacher alone there is nothing to subtract, and the page says so."""
    page = open_page("compare", show="Differences", runs=study[0])

    assert "choose two runs" in text_of(page)


def test_the_markdown_is_shown_before_it_is_taken(study, open_page):
    """The preview holds the table as Markdown."""
    page = open_page("compare")

    assert page.code[0].value.startswith("| Model")


def test_a_downloaded_csv_has_one_row_a_run(root, study):
    """What the CSV button makes is read back with a row for every chosen run."""
    from explorer.charts import export
    from explorer.index import index_of

    reader = index_of(root)
    runs = reader.with_retention(reader.snapshot().runs)

    table = pd.read_csv(io.BytesIO(export.write_runs(runs, "csv")))

    assert sorted(table["run_id"]) == sorted(study)


def test_a_lone_teacher_is_its_own_study(root):
    """A store that holds only a teacher compares the teacher."""
    record = records.make_record()
    records.write_run(root, record)

    assert study_summary.newest_study(frames.runs([record])) == [record.run_id]


def test_a_study_is_shown_with_all_its_formats_and_before_a_lone_run(root):
    """What is quantised belongs to it; a newer run with nothing beside it does not hide it."""
    students = ({"num_layers": 20}, {"num_layers": 10})
    study = SweepSpec.parse({"students": students, "distill": {}, "gguf": ["q8_0"]}).runs()
    found = [records.make_record(spec=spec, number=n) for n, spec in enumerate(study)]
    alone = records.make_record(spec=RunSpec(name="alone", teacher="other"))
    alone = alone.model_copy(update={"finished_at": "2027-01-01T00:00:00+00:00"})

    assert sorted(study_summary.newest_study(frames.runs([*found, alone]))) == sorted(
        spec.run_id for spec in study
    )


def test_dropped_results_become_a_run_of_the_table(root, study, open_page):
    """lm-eval's files on the page are what `explorer import` makes of them, and are chosen."""
    page = open_page("compare")
    chosen = page.multiselect(key="runs").value

    page.file_uploader(key="import_files").set_value(lm_eval_files()).run()
    page.text_input(key="import_name").input("brought").run()
    page.button(key="import_go").click().run()

    assert not page.exception
    (run_id,) = (one for one in disk.run_ids(root) if one.startswith("brought-"))
    assert page.multiselect(key="runs").value == [*chosen, run_id]
    assert run_id in page.success[0].value
    assert len(disk.load(root, run_id).capability.scores) == 8


def test_files_of_two_models_are_named_to_choose_from(root, study, open_page, tmp_path):
    """The page lists the evaluations of a zip, and imports the chosen one."""
    for number, model in enumerate(("acme/big", "acme/small")):
        evaluation(tmp_path / "out" / model.replace("/", "__"), model=model, date=1e9 + number)
    zipped = shutil.make_archive(str(tmp_path / "out"), "zip", tmp_path / "out")
    page = open_page("compare")

    page.file_uploader(key="import_files").set_value(("out.zip", Path(zipped).read_bytes(), ""))
    page.run()
    page.button(key="import_go").click().run()
    assert "acme/big" in page.error[0].value
    assert "acme/small" in page.error[0].value
    assert disk.run_ids(root) == sorted(study)
    choice = next(path for path in page.selectbox(key="import_only").options if "big" in path)
    page.selectbox(key="import_only").select(choice).run()
    page.button(key="import_go").click().run()

    assert not page.exception
    (run_id,) = (one for one in disk.run_ids(root) if one.startswith("imported-"))
    assert disk.load(root, run_id).imported.model == "acme/big"


def test_the_first_results_may_be_imported_ones(root, open_page):
    """In an empty store the same button stands under the sentence."""
    page = open_page("compare")

    page.file_uploader(key="import_files").set_value(lm_eval_files()).run()
    page.button(key="import_go").click().run()

    assert not page.exception
    assert page.multiselect(key="runs").value == disk.run_ids(root)


def test_results_that_are_none_are_refused_on_the_page(root, study, open_page):
    """A clear sentence, and the table stands as before."""
    page = open_page("compare")

    page.file_uploader(key="import_files").set_value(("results_x.json", b"{oh", "")).run()
    page.button(key="import_go").click().run()

    assert not page.exception
    assert "is not JSON" in page.error[0].value
    assert disk.run_ids(root) == sorted(study)


def test_a_read_only_page_takes_nothing(study, open_page, monkeypatch):
    """No import where actions are hidden."""
    monkeypatch.setenv("EXPLORER_READ_ONLY", "1")

    assert not open_page("compare").get("file_uploader")


def lm_eval_files():
    """What the study's smallest student left, as an upload."""
    folder = records.STUDY / records.committed(6) / "capability"
    return [(path.name, path.read_bytes(), "application/json") for path in folder.iterdir()]


def test_a_newer_run_timed_on_a_busy_machine_does_not_take_the_table_over(root, study):
    """Compare and Economics open on the newest study whose times count."""
    before = study_summary.newest_study(frames.runs(disk.load_records(root)[0]))
    lone = records.make_record(spec=records.study()[2].with_(name="lone-20l"))
    newer = lone.model_copy(update={"finished_at": "2027-01-01T00:00:00+00:00"})
    records.write_run(root, records.with_busy_machine(newer))

    assert study_summary.newest_study(frames.runs(disk.load_records(root)[0])) == before


def test_a_newer_student_alone_does_not_take_the_table_over(root, study):
    """One run after a study is not a study: the pages open on what can be compared."""
    before = study_summary.newest_study(frames.runs(disk.load_records(root)[0]))
    lone = records.make_record(spec=records.study()[2].with_(name="lone-20l"))
    records.write_run(root, lone.model_copy(update={"finished_at": "2027-01-01T00:00:00+00:00"}))

    assert study_summary.newest_study(frames.runs(disk.load_records(root)[0])) == before


def test_the_start_of_an_id_names_a_run_in_the_address(study, open_page):
    """As in the shell; a start that several ids share names none of them."""
    starts = {run_id: run_id[: len(run_id) - 4] for run_id in study}

    page = open_page("compare", runs=starts[study[1]])
    assert page.multiselect(key="runs").value == [study[1]]
    page = open_page("explore", run=starts[study[2]])
    assert page.selectbox(key="run").value == study[2]
    page = open_page("answers", student=starts[study[3]], reference=starts[study[1]])
    assert page.selectbox(key="student").value == study[3]
    assert page.selectbox(key="reference").value == study[1]
    assert open_page("explore", run="starter-").selectbox(key="run").value is None


def test_a_long_table_shows_one_page(root, study, open_page, monkeypatch):
    """The page says which runs of how many it shows; the next page has the others."""
    monkeypatch.setattr(paging, "PAGE_SIZE", 4)

    page = open_page("compare")
    assert "1 to 4 of 6 runs, sorted by retention." in text_of(page)
    assert "starter (teacher)</td>" in text_of(page)
    assert "6 layers</td>" not in text_of(page)
    page.get("pagination")[0].set_value(2).run()

    assert "5 to 6 of 6 runs, sorted by retention." in text_of(page)
    assert "starter (teacher)</td>" not in text_of(page)
    assert "6 layers</td>" in text_of(page)


def test_a_row_is_chosen_by_its_box(study, open_page):
    """Every run of the study has a row; those that are not chosen stay, unticked, and are pale."""
    page = open_page("compare", runs=study[1])

    said = text_of(page)
    assert said.count("<tr class=unticked>") + said.count('<tr class="teacher unticked">') == 5
    assert f'data-run="{study[1]}" aria-label="Choose 24 layers" checked' in said
    assert f'data-run="{study[2]}" aria-label="Choose 20 layers">' in said
    assert page.button_group(key="list").value == "Study"


def test_rows_are_filtered_and_sorted(root, study, open_page):
    """Words leave rows out, but never a chosen one; a heading sorts and says which way."""
    records.write_study(root, name="other", layers=(12,), seed=3)

    everything = text_of(open_page("compare", runs=study[1], list="All runs"))
    some = text_of(open_page("compare", runs=study[1], list="All runs", filter="12 layers"))
    assert everything.count("<input type") == 1 + 7
    assert some.count("<input type") == 1 + 2
    by_size = text_of(open_page("compare", sort="Parameters"))
    rows = [by_size.index(f"{name} layers</td>") for name in (6, 10, 15, 20, 24)]
    assert rows == sorted(rows)
    assert (
        'aria-sort="ascending"><button type="button" class="sort" data-sort="Parameters"' in by_size
    )
    turned = text_of(open_page("compare", sort="Parameters", reversed="true"))
    assert turned.index("24 layers</td>") < turned.index("6 layers</td>")


def test_the_best_of_a_column_is_bold(root, study, open_page):
    """Among the chosen students; a time that was taken on a busy machine is never the best."""
    said = text_of(open_page("compare"))
    row = said[said.index("24 layers</td>") :].partition("</tr>")[0]
    assert 'best"' in row

    records.make_busy(root, study[5])
    said = text_of(open_page("compare"))
    row = said[said.index("6 layers (machine was busy)</td>") :].partition("</tr>")[0]
    assert "busy best" not in row


def test_a_difference_is_a_dot_and_only_a_real_one_is_named(study, open_page):
    """A full dot and a word where the runs differ, else a hollow dot; beside it, flips."""
    said = text_of(open_page("compare", show="Differences"))

    assert "<b style=" in said
    assert "inconclusive [" not in said
    assert "Lost" in said
    assert "Gained" in said
    assert "KL (nats)" in said


def test_one_run_against_another_is_a_sentence(study, open_page):
    """What it loses and what it saves; of several runs it says how many differ."""
    one = text_of(open_page("compare", show="Differences", runs=study[3]))
    several = text_of(open_page("compare", show="Differences"))

    assert "15 layers against starter (teacher): " in one
    assert "smaller.</h1>" in one
    assert "Of 5 runs, " in several


def test_what_is_chosen_on_one_page_is_chosen_on_the_next(study, open_page):
    """From Compare to Economics and back; without a choice both open on the newest study."""
    page = open_page("compare")
    page.multiselect(key="runs").set_value(study[:3]).run()
    page.query_params.clear()
    page.switch_page("../economics/economics.py").run()

    assert page.multiselect(key="candidates").value == study[:3]
    page.multiselect(key="candidates").set_value(study[:2]).run()
    page.query_params.clear()
    page.switch_page("../compare/compare.py").run()
    assert page.multiselect(key="runs").value == study[:2]


def test_an_export_is_named_after_the_study(root, study):
    """A file of one study carries its name."""
    runs = frames.runs(disk.load_records(root)[0])

    assert studies.name_of(runs) == "starter"


def test_a_reference_is_named_as_in_the_table(study, open_page):
    """By its label, in the list and in the address; an id in an address still opens."""
    page = open_page("compare", show="Differences", against=study[1])

    assert page.selectbox(key="against").value == study[1]
    assert "24 layers" in page.selectbox(key="against").options
    named = open_page("compare", show="Differences", against="24 layers")
    assert named.selectbox(key="against").value == study[1]
    alone = open_page("compare", show="Differences", runs=study[3], against=study[1])
    assert "15 layers against 24 layers: " in text_of(alone)


def test_without_a_chosen_run_the_rows_stay_to_tick(study, open_page):
    """The page says what to do, and has a heading."""
    page = open_page("compare")
    page.multiselect(key="runs").set_value([]).run()

    assert not page.exception
    assert "Choose at least one run" in page.info[0].value
    said = text_of(page)
    assert said.count("<tr class=unticked>") + said.count('<tr class="teacher unticked">') == 6
    assert "Choose runs to compare</h1>" in said


def test_explore_compare_and_economics_name_the_same_model(root, open_page):
    """One rule: what is asked for on one page is asked for on the next, confidence included."""
    shutil.copytree(records.STUDY, root, dirs_exist_ok=True)

    page = open_page("explore")
    on_explore = heading_of(page)
    assert "the teacher as q8_0" in on_explore
    assert heading_of(page.switch_page("../compare/compare.py").run()) == on_explore
    assert "teacher q8_0" in heading_of(page.switch_page("../economics/economics.py").run())

    page = open_page("explore", keep="80")
    on_explore = heading_of(page)
    assert "the teacher as q4_k_m" in on_explore
    page.switch_page("../compare/compare.py").run()
    assert heading_of(page) == on_explore
    assert page.query_params["keep"] == "80"
    page.switch_page("../economics/economics.py").run()
    assert page.number_input(key="keep").value == 80
    assert heading_of(open_page("compare", keep="80")) == on_explore


def heading_of(page):
    """What the page's heading says."""
    assert not page.exception
    return text_of(page).partition('<h1 class="finding">')[2].partition("</h1>")[0]

"""Hiding and deleting runs on the pages, and undoing it."""

import pytest
import streamlit as st

from explorer.store import disk, trash
from tests import records
from tests.app.reading import text_of


def choose(page, place, run_id, action):
    """Choose an action of a run's menu."""
    page.menu_button(key=f"{place}_remove_{run_id}").click(action).run()
    assert not page.exception
    return page


def labels(page):
    return [button.label for button in page.button]


def test_a_run_deleted_on_explore_is_gone_until_undone(root, study, open_page):
    """Its point and its evidence go; one click brings both back."""
    page = choose(open_page("explore", run=study[3]), "strip", study[3], "Delete")

    assert study[3] not in disk.run_ids(root)
    assert f"Deleted **{study[3]}**" in text_of(page).replace("\\", "")
    assert "5 runs" in text_of(page)
    page.button(key=f"undo_{study[3]}").click().run()

    assert study[3] in disk.run_ids(root)
    assert "6 runs" in text_of(page)


def test_a_deleted_run_can_be_restored_after_a_restart(root, study, open_page):
    """A new session finds it in the trash, on the page where runs are started, too."""
    trash.delete(root, study[3])

    page = open_page("run")
    assert "Trash: 1 deleted run" in [expander.label for expander in page.expander]
    page.button(key=f"restore_{trash.deleted_runs(root)[0].folder.name}").click().run()

    assert study[3] in disk.run_ids(root)
    assert not page.exception


def test_deleting_a_teachers_run_says_what_loses_its_comparison(root, study, open_page):
    """Five students had it as their teacher's run."""
    page = choose(open_page("explore", run=study[0]), "strip", study[0], "Delete")

    assert "It was the teacher of 5 runs" in text_of(page)


def test_a_hidden_run_is_left_out_of_every_page_until_it_is_shown(root, study, open_page):
    """And a hidden teacher's run is still what the others are compared with."""
    choose(open_page("explore", run=study[2]), "strip", study[2], "Hide")
    trash.hide(root, [study[0]])
    st.cache_resource.clear()

    explore = open_page("explore")
    assert "4 runs" in text_of(explore)
    assert "keeps" in text_of(explore)
    for name in ("compare", "economics", "answers"):
        page = open_page(name)
        offered = {one for box in [*page.multiselect, *page.selectbox] for one in box.options}
        assert offered & {study[1], "24 layers"}, name
        assert not offered & {study[2], "20 layers"}, name
    explore.toggle(key="hidden").set_value(True).run()
    assert "6 runs" in text_of(explore)


def test_a_hidden_run_is_out_of_the_queue_unless_asked_for(root, study, open_page):
    """A switch below the queue shows it, and its menu can show it for good."""
    trash.hide(root, [study[2]])
    page = open_page("run")
    assert study[2] not in text_of(page).replace("\\", "")

    page.toggle(key="queue_hidden").set_value(True).run()
    choose(page, "queue", study[2], "Show again")

    assert trash.hidden_run_ids(root) == frozenset()


@pytest.mark.parametrize("name", ["explore", "run"])
def test_a_read_only_dashboard_hides_and_deletes_nothing(root, study, open_page, monkeypatch, name):
    """It lists what is in the trash, and offers no action."""
    trash.delete(root, study[3])
    monkeypatch.setenv("EXPLORER_READ_ONLY", "1")

    page = open_page(name, **({"run": study[2]} if name == "explore" else {}))

    assert not page.menu_button
    assert not {"Undo", "Restore"} & set(labels(page))
    assert study[3] in text_of(page).replace("\\", "")


def test_a_damaged_list_of_hidden_runs_is_reported_and_hides_nothing(root, study, open_page):
    """The page says what is wrong with the file."""
    (root / trash.HIDDEN).write_text("nonsense")

    page = open_page("explore")

    assert "6 runs" in text_of(page)
    assert "Repair or remove it" in text_of(page)


def test_a_run_that_failed_can_be_deleted_where_it_is_listed(root, study, open_page):
    """Among the runs that did not finish, on the Explore page."""
    failed = records.make_record(spec=records.study()[1].with_(name="broken"), status="failed")
    records.write_run(root, failed)
    st.cache_resource.clear()

    choose(open_page("explore"), "failed", failed.run_id, "Delete")

    assert failed.run_id not in disk.run_ids(root)


def test_disk_use_is_shown_by_study_and_leftovers_go_by_a_click(root, study, open_page):
    """The section lists what no run needs; its button removes that and says how much it was."""
    left = root / ".students" / ("0" * 16)
    (left / "model").mkdir(parents=True)
    (left / "model" / "config.json").write_text("{}" * 5000)

    page = open_page("run")
    assert "disk_use" not in [table.key for table in page.dataframe]
    page.session_state["disk_use"] = True
    page.run()
    assert "that no run needs any more" in text_of(page)
    page.button(key="clean").click().run()

    assert not page.exception
    assert not left.exists()
    assert "Removed 1" in page.success[0].value
    assert set(study) <= set(disk.run_ids(root))

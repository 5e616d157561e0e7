"""Allowing code from the page: first it is shown, then a press allows what was shown."""

import pytest

from explorer.consent import trust
from tests import task_with_code
from tests.app.reading import text_of
from tests.task_with_code import CODE


@pytest.fixture
def folder(root, known_tasks, tmp_path, allow_code):
    """A folder of tasks that the pages offer, with a task that runs code."""
    made = task_with_code.write(tmp_path / "mine")
    allow_code(task_folders=(made,))
    return made


ADDRESS = {"tasks_folder": "mine", "find": "quiz", "named": "quiz"}


def said(page):
    return text_of(page).replace("\\", "")


def keys(page):
    return {button.key for button in page.button}


def test_the_tasks_page_shows_the_code_and_then_allows_it(folder, open_page):
    """Nothing runs before the second press; a change asks again, with the date of before."""
    page = open_page("tasks", **ADDRESS)
    assert "quiz.yaml would run Python code" in said(page)
    assert "tasks_code_allow" not in keys(page)
    page.button(key="tasks_code_show").click().run()
    assert any("quiz_code" in code.value for code in page.code)
    assert any(code.value.strip() == CODE.strip() for code in page.code)
    item = trust.CodeFile.of(folder / "quiz_code.py")
    assert f"SHA-256 {item.sha256}" in said(page)
    assert not trust.grants()
    assert not (folder / "ran.txt").exists()

    page.button(key="tasks_code_allow").click().run()

    assert not page.exception
    assert "would run Python code" not in said(page)
    assert trust.allowed(folder / "quiz_code.py")
    with (folder / "quiz_code.py").open("a", encoding="utf-8") as file:
        file.write("# changed\n")
    assert "has changed since you allowed it on 20" in said(open_page("tasks", **ADDRESS))


def test_what_changes_after_it_was_shown_is_not_allowed(folder, open_page):
    """The press allows the bytes that were on the page."""
    page = open_page("tasks", **ADDRESS)
    page.button(key="tasks_code_show").click().run()
    shown = page.session_state
    assert shown["consent_shown"] == str(folder / "quiz.yaml")
    with (folder / "quiz_code.py").open("a", encoding="utf-8") as file:
        file.write("# another\n")

    page.button(key="tasks_code_allow").click().run()

    assert not trust.allowed(folder / "quiz_code.py")
    assert "would run Python code" in said(page)


def test_a_read_only_dashboard_allows_nothing(folder, open_page, monkeypatch):
    """It shows neither the code nor a button, and runs nothing."""
    monkeypatch.setenv("EXPLORER_READ_ONLY", "1")

    page = open_page("tasks", **ADDRESS)

    assert "shows prompts only for tasks that ship" in said(page)
    assert not {key for key in keys(page) if key and "code" in key}
    assert not (folder / "ran.txt").exists()


def test_the_run_page_offers_the_same_where_it_refuses(folder, open_page):
    """Beside the finding; allowed, the finding is gone."""
    page = open_page("run", test_with="quiz", more_tasks="mine")
    assert "quiz.yaml would run Python code" in said(page)
    (show,) = [key for key in keys(page) if key and key.endswith("_show")]
    page.button(key=show).click().run()
    assert any(code.value.strip() == CODE.strip() for code in page.code)

    page.button(key=show.replace("_show", "_allow")).click().run()

    assert not page.exception
    assert "would run Python code" not in said(page)

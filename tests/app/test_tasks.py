"""The Tasks page: search, look at a prompt, take tasks to the Run page."""

from pathlib import Path

import pandas as pd
import pytest
import streamlit as st

from explorer.errors import BadInput
from explorer.pages.shared import answer_card
from explorer.pages.tasks import task_browser
from explorer.tasks import preview
from explorer.tasks.preview import Question
from tests.app.reading import text_of

CSV = b"question,a,b,answer\nThe capital of Norway is,Rome,Oslo,Oslo\nOne or two?,1,2,1\n"


@pytest.fixture
def listed(root, known_tasks):
    """A dashboard that knows lm-eval's tasks."""
    return root


def shown(page) -> pd.DataFrame:
    return page.dataframe[0].value


def test_the_page_opens_on_all_tasks_and_searches_them(listed, open_page):
    """The sentence counts, the table is short, and every word narrows it."""
    page = open_page("tasks")

    assert "tasks in 1," in text_of(page)
    assert "6 have their data" not in text_of(page)
    assert "5 have their data on this machine" in text_of(page)
    assert len(shown(page)) == 100
    assert "tasks_use" not in {button.key for button in page.button}
    page.text_input(key="find").input("arc easy").run()
    assert shown(page)["Task"].iloc[0] == "arc_easy"
    page.text_input(key="find").input("no such words").run()
    assert "No task matches" in text_of(page)


def test_the_table_has_pages(listed, open_page):
    """The second page goes on where the first one ends, and a filter leads back to the first."""
    page = open_page("tasks")
    first = shown(page)
    page.get("pagination")[0].set_value(2).run()
    second = shown(page)

    assert "101 to 200 of " in text_of(page)
    assert first["Task"].iloc[-1] < second["Task"].iloc[0]
    assert len(second) == 100
    page.text_input(key="find").input("arc easy").run()
    assert shown(page)["Task"].iloc[0] == "arc_easy"


def test_filters_are_in_the_address(listed, open_page):
    """Output type, kind and data here come from the address and narrow the table."""
    page = open_page("tasks", way="Continuation", of_kind="Tasks", data_here="true")

    assert shown(page)["Task"].to_list() == ["starter_last_word"]
    assert shown(page)["Chance"].to_list() == ["0 %"]


def test_a_preset_goes_to_the_run_page(listed, open_page):
    """A set of tasks is one click from the order form, which asks for exactly it."""
    page = open_page("tasks", kit="Common sense")
    assert len(shown(page)) == 7
    assert page.button(key="tasks_use").label == "Use 7 tasks in a run"
    page.button(key="tasks_use").click().run()

    assert not page.exception
    assert page.multiselect(key="run_tasks").value == [
        "hellaswag",
        "piqa",
        "winogrande",
        "arc_easy",
        "openbookqa",
        "boolq",
        "copa",
    ]


def test_a_task_shows_its_facts_and_its_first_prompts(listed, open_page):
    """The prompts come from lm-eval itself, in a process of its own; the right choice is marked."""
    page = open_page("tasks", find="starter_facts", named="starter_facts")

    said = text_of(page)
    assert "<dt>Chance</dt><dd>25.0 %</dd>" in said
    assert "starter_facts.jsonl (on this machine)" in said
    assert "328 documents, 0 shots" in said.replace("\\", "")
    assert said.count('<article class="document">') == 3
    assert "The capital of France is" in said
    assert 'Paris <span title="correct">✓</span>' in said
    assert page.button(key="tasks_use").label == "Use starter\\_facts in a run"


def test_a_task_without_its_data_says_how_to_fetch_it(listed, open_page):
    """Offline nothing is tried: the command that fetches stands there."""
    said = text_of(open_page("tasks", find="piqa", named="piqa")).replace("\\", "")

    assert "baber/piqa (not on this machine)" in said
    assert "explorer tasks fetch piqa" in said


def test_a_configured_folder_is_listed_and_carried_to_the_run(
    listed, open_page, tmp_path, allow_code
):
    """Its tasks are found, its broken files named, and the order takes the folder along."""
    folder = tmp_path / "more"
    folder.mkdir()
    (folder / "mine.yaml").write_text("task: mine_alone\ndataset_path: org/x\n")
    (folder / "broken.yaml").write_text("task: [")
    allow_code(task_folders=(folder, tmp_path / "gone"))
    page = open_page("tasks", tasks_folder="more", find="mine_alone")

    assert shown(page)["Task"].to_list() == ["mine_alone"]
    assert "broken.yaml, line 2, column 1: expected" in text_of(page).replace("\\", "")
    page.selectbox(key="named").set_value("mine_alone").run()
    page.button(key="tasks_use").click().run()
    assert page.multiselect(key="run_tasks").value == ["mine_alone"]
    assert page.selectbox(key="run_include_path").value == "more"
    assert f"include_path: {folder}" in page.code[0].value
    assert "no folder" in text_of(open_page("tasks", tasks_folder="gone"))


@pytest.mark.parametrize("read_only", ["0", "1"])
def test_a_link_runs_no_code_of_a_folder(
    listed, open_page, tmp_path, monkeypatch, allow_code, read_only
):
    """No page reads a folder that only its address names, whatever the configuration lists."""
    monkeypatch.setenv("EXPLORER_READ_ONLY", read_only)
    allow_code(task_folders=(tmp_path / "other",))
    (tmp_path / "other").mkdir()
    ran = tmp_path / "ran.txt"
    folder = tmp_path / "evil"
    folder.mkdir()
    code = f"import pathlib\npathlib.Path({str(ran)!r}).touch()\ndef load(**more): return {{}}\n"
    (folder / "evil.py").write_text(code)
    (folder / "t.yaml").write_text("task: zz_drop\ncustom_dataset: !function evil.load\n")
    more = {"find": "zz_drop", "named": "zz_drop", "test_with": "zz_drop"}
    pages = {
        name: open_page(name, tasks_folder=str(folder), more_tasks=str(folder), **more)
        for name in ("tasks", "run", "answers", "explore")
    }

    for page in pages.values():
        assert not page.exception
        assert "would run Python code" not in text_of(page)
    assert "No task matches" in text_of(pages["tasks"])
    if read_only == "0":
        said = text_of(pages["run"]).replace("\\", "")
        assert "no task, group or tag 'zz_drop'" in said
        assert "is not listed" in pages["run"].warning[0].value
    assert not ran.exists()


def test_read_only_renders_no_templates_but_those_that_ship(
    listed, open_page, monkeypatch, tmp_path, allow_code
):
    """A listed folder's tasks are listed there; their prompts are shown where runs may start.

    Nor does it fetch data, which a visitor's click would do elsewhere.
    """
    tasks = Path(__file__).parents[1] / "tasks"
    allow_code(tasks, task_folders=(tasks,))
    address = {"tasks_folder": "tasks", "find": "tiny_pairs", "named": "tiny_pairs"}

    def prompts(page):
        return page.toggle(key="prompts_tiny_pairs").set_value(True).run()

    assert "item 0 is fine" in text_of(prompts(open_page("tasks", **address)))
    allow_code(task_folders=(tasks,))
    said = text_of(open_page("tasks", **address)).replace("\\", "")
    assert "tiny_pairs.yaml would run Python code" in said
    assert "explorer trust" in said
    monkeypatch.setenv("EXPLORER_READ_ONLY", "1")
    allow_code(tasks, task_folders=(tasks,))
    page = open_page("tasks", **address)
    assert "shows prompts only for tasks that ship" in text_of(page)
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    online = open_page("tasks", find="piqa", named="piqa")
    assert "downloads no data" in text_of(online)
    assert not [toggle for toggle in (*page.toggle, *online.toggle) if "prompts" in toggle.key]


def test_selected_rows_are_what_a_run_gets(monkeypatch):
    """Several rows go to the run together; the last one is looked at."""
    monkeypatch.setattr(st, "session_state", {"t": {"selection": {"rows": [2, 0]}}})
    task_browser.store_selected_rows("t", ["a", "b", "c"])

    assert st.session_state["named"] == "a"
    assert task_browser.tasks_for_a_run(["a", "b", "c"], "a", ("k",)) == ["c", "a"]
    assert task_browser.tasks_for_a_run(["b"], "b", ("k",)) == ["b"]
    assert task_browser.tasks_for_a_run(["b"], None, ("k",)) == ["k"]


def test_read_only_shows_tasks_and_takes_none(listed, open_page, monkeypatch):
    """Without actions the list is still there."""
    monkeypatch.setenv("EXPLORER_READ_ONLY", "1")

    assert not open_page("tasks", kit="Starter").button


def test_prompts_are_shown_as_text():
    """What a document says is escaped; a written answer shows its target and its end."""
    card = answer_card.question_card(
        Question(doc_id=3, prompt="<b>", target="<i>", until=["\n", "</s>"])
    )

    assert "<b>" not in card
    assert "&lt;i&gt;" in card
    assert "ends at &#x27;\\n&#x27; &#x27;&lt;/s&gt;&#x27;" in card


def test_a_preview_that_fails_is_one_sentence(known_tasks):
    """The process's own sentence reaches the page."""
    with pytest.raises(BadInput, match=r"^The task piqa needs the dataset baber/piqa"):
        preview.preview_in_subprocess("piqa")


def test_the_order_form_refuses_what_cannot_be_asked_here(listed, open_page):
    """Before the start: the data set that is missing offline, and a name that nobody knows."""
    page = open_page("run", test_with=["starter", "piqa"])

    said = text_of(page).replace("\\", "")
    assert "The task piqa needs the dataset baber/piqa" in said
    assert "explorer tasks fetch piqa" in said
    assert page.button(key="run_start").disabled
    page.multiselect(key="run_tasks").set_value(["piqaa"]).run()
    assert "no task, group or tag 'piqaa'. Close names: piqa" in text_of(page).replace("\\", "")
    page.multiselect(key="run_tasks").set_value(["starter_facts"]).run()
    assert not page.button(key="run_start").disabled


def test_a_task_of_ones_own_is_dropped_seen_and_added(listed, open_page):
    """Columns are guessed, the first question shown; what was added is listed and looked at."""
    page = open_page("tasks")
    page.file_uploader(key="own_file").set_value(("My Quiz.csv", CSV, "text/csv")).run()
    assert page.selectbox(key="own_question_My Quiz.csv").value == "question"
    assert page.multiselect(key="own_choices_My Quiz.csv").value == ["a", "b"]
    said = text_of(page)
    assert "2 documents. Question from question, answer from answer (texts of choices)" in said
    assert "The first as a model sees them" in said
    assert 'Oslo <span title="correct">✓</span>' in text_of(page)
    page.button(key="own_add").click().run()

    assert not page.exception
    assert shown(page)["Task"].to_list() == ["my-quiz"]
    assert page.selectbox(key="named").value == "my-quiz"
    assert "<dt>Chance</dt><dd>50.0 %</dd>" in text_of(page)
    assert (listed / ".tasks" / "my-quiz.yaml").is_file()
    assert "was added with 2 documents" in page.success[0].value
    assert "already have a task" not in text_of(page)
    # The same name again needs a word.
    assert not [button for button in page.button if button.key == "own_add"]
    page.checkbox(key="own_replace").check().run()
    assert page.button(key="own_add").label == "Add the task"


def test_a_file_that_is_no_task_is_one_red_line(listed, open_page):
    """The rows that do not fit are named, and nothing can be added."""
    page = open_page("tasks")
    page.file_uploader(key="own_file").set_value(
        ("bad.jsonl", b"{}\nnonsense\n", "text/plain")
    ).run()

    assert "line 2: expected a JSON object" in text_of(page).replace("\\", "")
    assert not [button for button in page.button if button.key == "own_add"]


def test_what_a_file_leaves_open_is_asked_beside_the_field(listed, open_page):
    """A first row that is a question, columns without names, numbers that may begin at 0 or 1."""
    page = open_page("tasks")
    page.file_uploader(key="own_file").set_value(
        ("sums.csv", b"What is 2 + 2?,3,4,5,1\nWhat is 3 + 3?,5,6,7,1\n", "text/csv")
    ).run()
    assert "it looks like a question itself" in text_of(page)
    page.checkbox(key="own_no_header_sums.csv").check().run()
    assert "No column is called question" in text_of(page)
    assert page.dataframe[0].value["column 1"].to_list() == ["What is 2 + 2?", "What is 3 + 3?"]
    page.selectbox(key="own_question_sums.csv").select("column 1")
    page.selectbox(key="own_answer_sums.csv").select("column 5").run()
    assert "could hold choices" in text_of(page)
    page.segmented_control(key="own_way_sums.csv").set_value("choices").run()
    page.multiselect(key="own_choices_sums.csv").set_value(["column 2", "column 3", "column 4"])
    page.run()
    assert "the answers can be read in 2 ways" in text_of(page)
    assert not [button for button in page.button if button.key == "own_add"]
    page.selectbox(key="own_answer_as_sums.csv").select("from-0").run()

    assert "2 documents. Question from column 1" in text_of(page)
    assert '4 <span title="correct">✓</span>' in text_of(page)
    assert page.button(key="own_add").label == "Add the task"

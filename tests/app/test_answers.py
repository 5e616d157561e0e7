"""The Answers page: document by document, with and without the prompts."""

import itertools
import re
import shutil

import pytest

from explorer.analysis.stats import answer_flips
from explorer.store import disk
from tests import records
from tests.app.reading import text_of

TEACHER, STUDENT = records.committed(), records.committed(20)


@pytest.fixture
def measured(root):
    """Two runs of the committed study, with what lm-eval kept of them."""
    for run_id in (TEACHER, STUDENT):
        shutil.copytree(records.STUDY / run_id, root / run_id)
    return root


def test_an_empty_store_leads_to_the_run_page(root, open_page):
    """With nothing finished there is one sentence and one button."""
    page = open_page("answers")

    assert "No answers yet" in text_of(page)
    assert [button.label for button in page.button] == ["Go to the Run page"]


def test_a_failed_run_has_no_answers(root, open_page):
    """What failed has nothing to read, and the page says what to do instead."""
    records.write_run(root, records.make_record(num_layers=12, status="failed"))

    assert "No answers yet" in text_of(open_page("answers"))


def test_a_lone_run_needs_a_second(root, open_page):
    """One run's answers are held against nothing; the page says so."""
    records.write_run(root, records.make_record())

    assert "Finish a second run" in text_of(open_page("answers"))


def test_without_the_samples_the_page_says_what_is_not_kept(study, open_page):
    """Outcomes come from the answers; for the questions it says where they should lie."""
    said = text_of(open_page("answers", student=study[1])).replace("\\", "")

    assert "lost" in said
    assert "samples_starter_grammar_" in said
    assert "run it again" in said
    assert "document hash starter_gram" in said


def test_lost_answers_show_the_question_and_both_models_choices(measured, open_page):
    """Prompt, choices, log-likelihoods, margins and marks, of the student and its teacher."""
    page = open_page("answers", on_task="starter_facts", outcome="Lost")

    said = text_of(page)
    assert (
        "On starter_facts, 20 layers lost 60 answers that starter had right and gained 19" in said
    )
    assert said.count('<article class="document">') == 10
    assert said.count('class="lost"') == 10
    assert "margin 20 layers −" in said
    assert 'title="correct"' in said
    assert 'title="chosen"' in said
    assert "60 documents of 328" in said


def test_the_address_keeps_the_page(measured, open_page):
    """The second and last page shows the rest, which are other documents."""
    first = text_of(open_page("answers", on_task="starter_facts", outcome="Gained"))
    last = text_of(open_page("answers", on_task="starter_facts", outcome="Gained", page="2"))

    assert last.count('<article class="document">') == 9
    assert not set(first.split('class="quiet">document ')[1:2]) & set(
        last.split('class="quiet">document ')[1:2]
    )


def test_search_finds_words_of_question_and_choices(measured, open_page):
    """Only documents with the words are left, whatever their case."""
    said = text_of(open_page("answers", on_task="starter_facts", search="capital of france"))

    assert said.count('<article class="document">') == 1
    assert "The capital of France is" in said
    assert "No document matches" in text_of(
        open_page("answers", on_task="starter_facts", search="no such words")
    )


def test_free_continuations_show_what_was_expected(measured, open_page):
    """A last-word document has one right continuation, and says who would have said it."""
    said = text_of(open_page("answers", on_task="starter_last_word", outcome="Gained"))

    assert "gained" in said
    assert "<th>log-likelihood</th>" in said


def test_any_two_runs_can_be_read(study, open_page):
    """The reference may be another student, the run its teacher."""
    page = open_page("answers", student=study[0], reference=study[3])

    assert (page.selectbox(key="student").value, page.selectbox(key="reference").value) == (
        study[0],
        study[3],
    )
    assert "starter (teacher)" in page.selectbox(key="student").options
    assert "15 layers" in page.selectbox(key="reference").options
    said = text_of(page)
    assert "starter (teacher) lost" in said
    assert "that 15 layers had right" in said


def test_damaged_answers_leave_nothing_in_common(root, study, open_page):
    """A file that cannot be read is no crash: nothing is shared, and the page says so."""
    (root / study[1] / disk.ANSWERS).write_bytes(b"nonsense")

    said = text_of(open_page("answers", student=study[1]))

    assert "did not answer the same documents" in said


def test_the_evidence_and_the_differences_lead_here(study, open_page):
    """Explore's strip and Compare's differences link to the answers."""
    strip = open_page("explore", run=study[2])
    compare = open_page("compare", show="Differences")

    assert "Read its answers" in [link.proto.label for link in strip.get("page_link")]
    assert len(compare.get("page_link")) == len(study) - 1


def test_outcomes_are_a_partition():
    """Every shared document is in exactly one outcome."""
    answers = records.make_answers(10), records.make_answers(30)

    found = answer_flips.answer_flips(*answers, "starter_facts", "acc_norm")

    assert len(found) == 240
    assert found["doc_id"].is_monotonic_increasing
    lost = found[found["outcome"] == "lost"]
    assert (lost["run"] < lost["reference"]).all()
    assert set(found["outcome"]) <= set(answer_flips.OUTCOMES)


def test_the_page_opens_at_what_was_lost_the_largest_change_first(measured, open_page):
    """Only lost answers, those whose margin moved farthest on top; a search looks at all."""
    page = open_page("answers", on_task="starter_facts")

    said = text_of(page)
    assert page.segmented_control(key="outcome").value == "lost"
    assert said.count('class="lost"') == 10
    margins = re.findall(r"margin 20 layers ([−+]?[\d.]+), starter ([−+]?[\d.]+)", said)
    moved = [abs(_number(own) - _number(other)) for own, other in margins]
    assert len(moved) == 10
    assert all(first >= second - 0.02 for first, second in itertools.pairwise(moved))


def _number(text):
    return float(text.replace("−", "-"))


def test_the_run_that_was_looked_at_follows_to_this_page(study, open_page):
    """The run picked on Explore opens here, and is picked there again afterwards."""
    page = open_page("explore", run=study[3])
    page.query_params.clear()
    page.switch_page("../answers/answers.py").run()
    assert page.selectbox(key="student").value == study[3]

    page.selectbox(key="student").set_value(study[2]).run()
    assert page.query_params["student"] == study[2]
    page.query_params.clear()
    page.switch_page("../explore/explore.py").run()
    assert page.selectbox(key="run").value == study[2]


def test_a_picked_run_stays_picked_when_one_comes_back(study, open_page):
    """A look at another page does not lose it."""
    page = open_page("explore", run=study[3])
    page.query_params.clear()
    page.switch_page("../compare/compare.py").run()
    page.query_params.clear()
    page.switch_page("../explore/explore.py").run()

    assert page.selectbox(key="run").value == study[3]
    assert page.query_params["run"] == study[3]

"""The Published page: the chart, the evidence, the claims, the address."""

from tests.app.reading import text_of

POINT = "DeepSeek-R1-Distill-Qwen-7B · deepseek-r1-readme"


def test_the_page_needs_no_runs(root, open_page):
    """An empty store changes nothing: the facts ship with us."""
    page = open_page("published")
    said = text_of(page)

    assert "14 of 74 published comparisons keep 95 %" in said
    assert "None of this was measured here" in said
    assert len(page.dataframe[0].value) == 74


def test_the_four_claims_stand_with_their_verdicts(study, open_page):
    """Each with the points for and against, and their sources."""
    said = text_of(open_page("published"))

    assert "A 70-billion model on consumer hardware costs about $2 per hour" in said.replace(
        "\\", ""
    )
    assert said.count("<b>For</b>") == said.count("<b>Against</b>") == 4
    assert 'href="https://arxiv.org' in said


def test_a_point_in_the_address_shows_its_evidence(root, open_page):
    """Method, teacher, sizes, what is not counted, and the source one click away."""
    said = text_of(open_page("published", pair=POINT))

    assert "sequence-level KD" in said
    assert 'href="https://github.com/deepseek-ai/DeepSeek-R1/blob/main/README.md"' in said
    assert "LiveCodeBench: the settings differ" in said
    assert "7.00 B of 671 B, 96 times smaller" in said


def test_filters_and_axes_are_in_the_address(root, open_page):
    """Family, relation, axis and height come back from a link."""
    page = open_page(
        "published",
        family="OpenAI",
        relation="Smaller siblings",
        against="API price",
        kept="Corrected",
    )

    assert page.session_state["against"] == "api_usd_per_mtok_output"
    assert page.session_state["kept"] == "retention"
    assert "10 comparisons of 74" in text_of(page)


def test_filters_that_leave_nothing_say_so(root, open_page):
    """OpenAI has disclosed no distillation."""
    page = open_page("published", family="OpenAI", relation="Distilled")

    assert "No published comparison matches the filters" in page.info[0].value


def test_own_runs_are_drawn_and_told_apart(root, study, open_page):
    """Full dots beside the hollow diamonds, with a sentence; a switch takes them away."""
    said = text_of(open_page("published"))
    without = text_of(open_page("published", own="false"))

    assert "Full dots are your own runs" in said
    assert "Full dots" not in without

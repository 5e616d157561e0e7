"""Terms: the teacher's licence is carried along, and clauses about training are named."""

import pytest
import yaml

from explorer.catalogue import terms
from explorer.lm_eval_io import hub_card
from explorer.pipeline import preflight
from explorer.records.rows import row_dicts
from explorer.specs import RunSpec
from explorer.store import disk
from tests import records

LLAMA = "meta-llama/Meta-Llama-3-8B"


@pytest.mark.parametrize(
    ("name", "licence", "effect", "publisher"),
    [
        (LLAMA, None, "forbids", "Meta"),
        ("meta-llama/Llama-2-7b-hf", None, "forbids", "Meta"),
        ("meta-llama/Llama-3.1-8B-Instruct", None, "condition", "Meta"),
        ("/models/mine", "llama3.2", "condition", "Meta"),
        ("/models/mine", "Llama 3.3 Community License", "condition", "Meta"),
        ("google/gemma-3-4b-it", None, "condition", "Google"),
        ("endpoint:https://api.openai.com/v1#gpt-4.1", None, "forbids", "OpenAI"),
        ("endpoint:https://eu.api.openai.com/v1#anything", None, "forbids", "OpenAI"),
        (
            "endpoint:https://router.example/v1#anthropic/claude-opus-4",
            None,
            "forbids",
            "Anthropic",
        ),
        ("endpoint:http://localhost:8000/v1#meta-llama/Llama-3.2-1B", None, "condition", "Meta"),
        (
            "endpoint:https://generativelanguage.googleapis.com/v1beta/openai#gemini-3-pro",
            None,
            "forbids",
            "Google",
        ),
    ],
)
def test_a_known_clause_is_found_by_licence_host_or_name(name, licence, effect, publisher):
    """Licences by their id or title, APIs by their host, models by their name at another host."""
    found = terms.training_terms(name, licence)

    assert (found.effect, found.publisher) == (effect, publisher)
    sentence = found.in_words(name)
    assert found.text in sentence
    assert found.source_url in sentence
    assert found.date_seen in sentence


@pytest.mark.parametrize(
    ("name", "licence"),
    [
        ("starter", terms.STARTER_LICENCE),
        (LLAMA, "apache-2.0"),
        ("google/gemma-4-E2B", None),
        ("openai/gpt-oss-20b", None),
        ("openai-community/gpt2", None),
        ("EleutherAI/gpt-j-6b", None),
        ("/models/gpt-4-claude-finetune", None),
        ("/models/my_llama2_test", None),
        ("/llama2/models/mine", None),
        ("endpoint:http://localhost:8000/v1#openai/gpt-oss-120b", None),
        ("endpoint:https://notapi.openai.com.example/v1#mine", None),
    ],
)
def test_what_is_not_known_to_be_restricted_gives_no_warning(name, licence):
    """A stated licence counts before the name; a host must be the API's own."""
    assert terms.training_terms(name, licence) is None


def test_each_clause_has_its_words_and_a_dated_source():
    """Nothing is in the list without a quotation, an address and a day."""
    rows = row_dicts(terms.load.load_table("terms"))

    assert len(rows) >= 8
    assert all(row["licence"] or row["host"] for row in rows)
    assert all(len(row["text"]) > 40 and row["date_seen"] >= "2026" for row in rows)


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        ("---\nlicense: mit\n---\n# Model", "mit"),
        ("\ufeff---\nlicense: other\nlicense_name: my-licence\n---\n", "my-licence"),
        ("# No front matter", None),
        ("---\n: [\n---\n", None),
        ("---\nlicense: [a, b]\n---\n", None),
        (None, None),
    ],
)
def test_the_licence_is_read_from_a_models_card(tmp_path, card, licence):
    """`license`, or `license_name` where that says other; a damaged card says nothing."""
    if card is not None:
        (tmp_path / "README.md").write_text(card, encoding="utf-8")

    assert terms.licence_of(str(tmp_path)) == licence


def test_the_catalogue_knows_licences_of_published_models():
    """A model that is not on this machine has the licence of its row."""
    assert terms.licence_of("deepseek-ai/DeepSeek-R1") == "MIT"
    assert terms.licence_of("nobody/nothing") is None


def test_a_student_of_a_student_has_the_first_teachers_licence(store_root):
    """run:RUN_ID is a model made from a teacher: its record has the licence."""
    record = records.make_record(num_layers=20).model_copy(update={"teacher_licence": "gemma"})
    disk.save(store_root, record)

    assert terms.licence_of(f"run:{record.run_id}", store_root) == "gemma"
    assert terms.licence_of("run:ghost", store_root) is None


def test_the_preflight_warns_and_names_the_clause(tmp_path):
    """A warning, not an error, about a student; a teacher that is only measured has none."""
    name = "endpoint:https://api.openai.com/v1#gpt-4.1"
    alone = RunSpec(name="t", teacher=name)
    student = RunSpec.parse(
        {
            "name": "s",
            "teacher": name,
            "student": {"kind": "checkpoint", "model": "starter"},
            "distill": {"method": "text"},
        }
    )

    found = [
        finding
        for finding in preflight.findings([student], tmp_path, "quick")
        if "compete with OpenAI" in finding.message
    ]

    (warning,) = found
    assert (warning.severity, warning.field) == ("warning", "teacher")
    texts = [finding.message for finding in preflight.findings([alone], tmp_path, "quick")]
    assert not any("compete" in text for text in texts)


def test_a_students_card_names_teacher_licence_and_clause():
    """The front matter has the Hub's fields, the text the clause."""
    spec = RunSpec.parse({"teacher": LLAMA, "student": {"num_layers": 8}})
    clause = terms.training_terms(LLAMA).in_words(LLAMA)

    card = hub_card.student_card(spec, "llama3", clause)

    front = yaml.safe_load(card.split("---")[1])
    assert front == {"license": "llama3", "base_model": LLAMA}
    assert "Licence of the teacher: llama3." in card
    assert "section 1.b.v" in card
    named = hub_card.student_card(spec, "My Licence 1", None)
    assert yaml.safe_load(named.split("---")[1])["license_name"] == "My Licence 1"
    assert "unknown" in hub_card.student_card(spec, None, None)

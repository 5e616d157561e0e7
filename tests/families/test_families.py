"""Every architecture through every step, and the table of what works: docs/models.md.

make families
python -m pytest -m families tests/families -k mamba
"""

import re
from pathlib import Path

import pytest

from explorer.errors import ExplorerError
from explorer.pipeline import preflight
from tests.families import steps, tiny
from tests.families.steps import STEPS, Subject

DOCUMENT = Path(__file__).parents[2] / "docs" / "models.md"
FOR_EVERY_DECODER = ("Evaluate", "Save, reload", "Synthesise", "Time")
IN_LLAMA_CPP = {"llama", "mistral", "qwen2", "qwen3", "gemma2", "phi3", "gpt2"}
NO_DECODERS = {"gemma3_both_ways"}
KIND = "this architecture"
BEGIN, END = "<!-- the table: make families -->\n", "<!-- the end of the table -->\n"

rows: dict[str, dict[str, str]] = {}
"""What each step said of each architecture."""

pytestmark = [
    pytest.mark.families,
    pytest.mark.timeout(600),
    # transformers warns of settings that these models choose on purpose.
    pytest.mark.filterwarnings("ignore"),
]


@pytest.fixture(scope="module", autouse=True)
def llama_cpp():
    """These tests fail, rather than skip, without llama.cpp: `make families` installs it."""
    import llama_cpp

    return llama_cpp


@pytest.mark.parametrize("name", tiny.ARCHITECTURES)
def test_each_step_is_right_or_refused_before_it_starts(name, tmp_path, store_root):
    """Right, or an error of one sentence that the preflight gives, too."""
    subject = Subject(name, tiny.save(name, tmp_path / "model"), tmp_path, store_root)
    orders = steps.specs(subject)
    row: dict[str, str] = {}
    for step, do in STEPS.items():
        try:
            row[step] = do(subject)
        except ExplorerError as error:
            row[step] = f"no: {in_general(str(error), subject)}"
    rows[name] = row
    for step in orders.keys() & {step for step, said in row.items() if said.startswith("no")}:
        found = preflight.findings([orders[step]], store_root)
        errors = [finding for finding in found if finding.error]
        assert errors, f"{step} is refused, but not before it starts: {row[step]}"
    if name not in NO_DECODERS:
        refused = [step for step in FOR_EVERY_DECODER if row[step].startswith("no")]
        assert not refused, steps.described(row)
    if name in IN_LLAMA_CPP:
        assert row["GGUF"] == "yes", row["GGUF"]


def in_general(message: str, subject: Subject) -> str:
    """A refusal without this test's folder and class: what comes before its advice."""
    message = message.replace(str(subject.folder), "it")
    message = re.sub(r"\w+For(CausalLM|ConditionalGeneration)( \(model type \w+\))?", KIND, message)
    message = message.replace(f"it is a {KIND}, which", KIND)
    message = re.split(r"[.;] ", message, maxsplit=1)[0].rstrip(".")
    return message[0].upper() + message[1:]


def test_depth_students_and_training_work_for_most():
    """At least twenty families, in a run as a person would order it."""
    need_all_rows()
    for step in ("Depth students", "Train", "Run"):
        working = {tiny.ARCHITECTURES[name][0] for name, row in rows.items() if row[step] == "yes"}
        assert len(working) >= 20, f"{step}: {sorted(working)}"


def test_the_document_has_this_table(request):
    """docs/models.md says what these tests saw; `--rewrite` writes it anew."""
    need_all_rows()
    text = DOCUMENT.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    wanted = before + BEGIN + "\n" + table() + "\n" + END + after
    if request.config.getoption("--rewrite"):
        DOCUMENT.write_text(wanted, encoding="utf-8")
    assert wanted == DOCUMENT.read_text(encoding="utf-8"), (
        "docs/models.md differs; write it with `pytest -m families tests/families --rewrite` and "
        "review the diff."
    )


def need_all_rows() -> None:
    """Skip where only some architectures were asked for."""
    if len(rows) < len(tiny.ARCHITECTURES):
        pytest.skip(f"{len(rows)} of {len(tiny.ARCHITECTURES)} architectures were run")


def table() -> str:
    """The rows, with the reasons below as numbered notes."""
    reasons: dict[str, int] = {}
    lines = [
        "| Architecture | " + " | ".join(STEPS) + " |",
        "| :--- | " + " | ".join([":---"] * len(STEPS)) + " |",
    ]
    for name, row in rows.items():
        cells = []
        for said in row.values():
            reason = said.partition("no: ")[2]
            if reason:
                said = f"no [{reasons.setdefault(reason, len(reasons) + 1)}]"
            cells.append(said)
        lines.append(f"| {tiny.title(name)} | " + " | ".join(cells) + " |")
    notes = [f"{number}. {reason}." for reason, number in reasons.items()]
    return "\n".join([*lines, "", "Why not:", "", *notes, ""])

"""The main journey: order two students on the page, watch them, find them on the chart."""

import json
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from explorer import jobs
from explorer.specs import SweepSpec
from explorer.store import disk

pytestmark = [pytest.mark.browser, pytest.mark.timeout(900)]
WAIT_MS = 120_000
RUN_MS = 600_000
SENTENCE = "the cat sat on the mat. "
TASK = """\
task: cats
dataset_path: json
dataset_kwargs:
  data_files:
    test: {documents}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{text}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: "{{{{label}}}}"
target_delimiter: ""
metric_list:
  - metric: acc
metadata:
  version: 1
"""


@pytest.fixture
def teacher(tiny_llama, tmp_path: Path) -> Path:
    """A tiny model that has learned one sentence by heart, so that it is above chance."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source = tiny_llama()
    tokenizer = AutoTokenizer.from_pretrained(source)
    model = AutoModelForCausalLM.from_pretrained(source)
    ids = torch.tensor([tokenizer.encode(SENTENCE * 8)[:128]])
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(80):
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    assert loss.item() < 1.0, "the teacher has not learned its sentence"
    folder = tmp_path / "teacher"
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def tasks(tmp_path: Path) -> Path:
    """A folder with one task on which only a model that knows the sentence does well."""
    folder = tmp_path / "tasks"
    folder.mkdir()
    with (folder / "cats.jsonl").open("w", encoding="utf-8") as file:
        for number in range(24):
            start = number % (len(SENTENCE) - 4)
            right, wrong = SENTENCE[start : start + 4], "qzxv"
            label = number % 2
            document = {
                "text": SENTENCE * (1 + number // 12) + SENTENCE[:start],
                "choices": [wrong, right] if label else [right, wrong],
                "label": label,
            }
            file.write(json.dumps(document) + "\n")
    text = TASK.format(documents=folder / "cats.jsonl")
    (folder / "cats.yaml").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture
def sweep(teacher: Path, tasks: Path, tmp_path: Path) -> SweepSpec:
    """Seconds of work: students of three and two layers of the tiny teacher's four."""
    corpus = tmp_path / "corpus.txt"
    corpus.write_text((SENTENCE * 40 + "\n\n") * 40, encoding="utf-8")
    return SweepSpec.parse(
        {
            "name": "journey",
            "teacher": str(teacher),
            "students": [{"num_layers": layers, "sample_blocks": 2} for layers in (3, 2)],
            "distill": {
                "corpus": str(corpus),
                "max_tokens": 8192,
                "block_tokens": 64,
                "heldout_blocks": 4,
                "learning_rate": 3e-3,
            },
            "capability": {"tasks": ["cats"], "include_path": str(tasks), "batch_size": 4},
            "latency": {"prompt_tokens": 8, "output_tokens": 4, "repeats": 3, "warmup": 1},
            "device": "cpu",
        }
    )


@pytest.fixture
def queue(dashboard: str):
    """Whatever the dashboard's queue has started is ended with the test."""
    yield
    jobs.stop_engine()


def test_two_students_are_ordered_watched_and_found_on_the_chart(
    sweep: SweepSpec, store_root: Path, dashboard: str, queue, page: Page
):
    """From an empty store: start them on the page, watch their lines, follow one to its point."""
    page.goto(f"{dashboard}/run")
    page.get_by_text("Layers, training, timing, device").click()
    page.get_by_text("Edit as YAML instead").click()
    field = page.get_by_label("Study", exact=True)
    field.fill(sweep.to_yaml())
    field.press("Control+Enter")
    start = page.get_by_role("button", name="Start 3 runs")
    expect(start).to_be_enabled(timeout=WAIT_MS)

    start.click()

    # The first job of a machine starts the Ray head; the page answers before that.
    expect(page.get_by_role("button", name="Starting…")).to_be_disabled()
    students = [spec.run_id for spec in sweep.runs()[1:]]
    for run_id in students:
        line = page.locator(f".st-key-queue_{run_id}")
        expect(line.get_by_role("link", name="See on chart")).to_be_visible(timeout=RUN_MS)
        assert disk.load(store_root, run_id).status == "finished"

    page.locator(f".st-key-queue_{students[-1]}").get_by_role("link", name="See on chart").click()

    expect(page.get_by_text("Cut to 2 layers")).to_be_visible(timeout=WAIT_MS)
    # By size: a run that this machine was too busy to time well may lie beyond an axis of times.
    page.goto(f"{dashboard}/?run={students[0]}&x=num_parameters")
    expect(page.get_by_text("Cut to 3 layers")).to_be_visible(timeout=WAIT_MS)
    points = page.locator(".chart").first.locator(".scatterlayer .points path.point")
    expect(points.nth(2)).to_be_visible(timeout=WAIT_MS)

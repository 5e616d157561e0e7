"""`explorer lm-eval`: lm-eval's own command line with our back end and our names of models."""

import json
import os
import sys
from pathlib import Path

import pytest
import torch
import yaml

from explorer import cli
from explorer.evaluate import capability
from explorer.evaluate.backends.prefix_lm import PrefixLM
from explorer.models import loading
from explorer.specs import CapabilitySpec, RunSpec
from explorer.store import disk
from explorer.store.progress import Progress
from tests import records

TASKS = Path(__file__).parents[1] / "tasks"
BENCHMARK = Path(__file__).parents[2].parent / "shared" / "data"
"""Where the public benchmark lies beside the project; it is no part of it."""


def lm_eval(monkeypatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["explorer", "lm-eval", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code


# lm-eval's own task files take a quarter of a minute to index.
@pytest.mark.timeout(200)
def test_lm_eval_runs_with_our_model(tiny_llama, tmp_path, monkeypatch, store_root):
    """`explorer lm-eval run --model explorer-hf` writes lm-eval's files, with our own score."""
    from lm_eval.tasks import TaskManager

    own = TaskManager.__init__

    def only_local(self, *arguments, **options):
        own(self, *arguments, **{**options, "include_defaults": False})

    monkeypatch.setattr(TaskManager, "__init__", only_local)
    folder = tiny_llama(num_layers=2)
    lm_eval(
        monkeypatch,
        "run",
        "--model",
        "explorer-hf",
        "--model_args",
        f"pretrained={folder}",
        "--tasks",
        "tiny_pairs",
        "--include_path",
        str(TASKS),
        "--device",
        "cpu",
        "--batch_size",
        "4",
        "--output_path",
        str(tmp_path / "out"),
        "--log_samples",
    )

    (path,) = (tmp_path / "out").rglob("results_*.json")
    theirs = json.loads(path.read_text(encoding="utf-8"))
    assert theirs["config"]["model"] == "explorer-hf"
    ours, answers = capability.evaluate(
        loading.load(str(folder)),
        CapabilitySpec(tasks=("tiny_pairs",), include_path=str(TASKS)),
        tmp_path / "ours",
        Progress(store_root, "run-1"),
        fingerprint="f",
        device=torch.device("cpu"),
    )
    assert ours.scores[0].score == theirs["results"]["tiny_pairs"]["acc,none"]
    assert list((tmp_path / "out").rglob("samples_tiny_pairs_*.jsonl"))


def test_lm_eval_says_its_own_help(monkeypatch, capsys):
    """What follows `lm-eval` is lm-eval's, --help included."""
    lm_eval(monkeypatch, "run", "--help")

    assert "--model_args" in capsys.readouterr().out


def test_every_name_of_a_model_is_known(tiny_llama, store_root):
    """A folder and run:RUN_ID name the same weights; starter and gguf: go the same way."""
    folder = tiny_llama(num_layers=2)
    spec = RunSpec(name="student")
    disk.open_run(store_root, spec)
    records.leave_student(store_root, spec.run_id, folder)

    models = [
        PrefixLM(name, device="cpu", batch_size="auto").model
        for name in (str(folder), f"run:{spec.run_id}")
    ]

    ids = torch.tensor([[3, 4, 5]])
    assert torch.equal(models[0](ids).logits, models[1](ids).logits)


def test_our_back_end_is_declared_to_lm_eval():
    """Versions of lm-eval that read entry points find the model without our command."""
    import tomllib

    text = (Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    declared = tomllib.loads(text)["project"]["entry-points"]["lm_eval.models"]
    assert declared == {"explorer-hf": f"{PrefixLM.__module__}:{PrefixLM.__name__}"}


def test_the_public_benchmark_evaluates(tiny_llama, tmp_path, store_root, monkeypatch):
    """A local folder of tasks whose data lies beside the project evaluates with include_path."""
    data = Path(os.environ.get("EXPLORER_TEST_DATA") or BENCHMARK)
    if not (data / "tasks").is_dir():
        pytest.skip(f"{data} has no tasks/ (the public benchmark; EXPLORER_TEST_DATA names it)")
    tasks = data.resolve() / "tasks"
    name = yaml.safe_load(sorted(tasks.glob("*.yaml"))[0].read_text(encoding="utf-8"))["task"]
    # Its data paths count from a folder beside the one that holds the data.
    (tmp_path / "shared").symlink_to(tasks.parents[1])
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")

    found, answers = capability.evaluate(
        loading.load(str(tiny_llama(num_layers=2))),
        CapabilitySpec(tasks=(name,), include_path=str(tasks), limit=20),
        tmp_path / "out",
        Progress(store_root, "run-1"),
        fingerprint="f",
        device=torch.device("cpu"),
    )

    assert found.scores[0].num_documents == 20
    assert len(answers) == 20

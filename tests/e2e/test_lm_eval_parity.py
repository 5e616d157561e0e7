"""Our scores against lm-eval's own command line, on the starter teacher."""

import json
import os
import subprocess
import sys

import pytest
import torch

from explorer.evaluate import capability
from explorer.models import loading, starter
from explorer.specs import CapabilitySpec
from explorer.store.progress import Progress
from explorer.tasks import index

LIMIT = 25
BATCH_SIZE = 8


@pytest.mark.long
@pytest.mark.timeout(1500)
def test_starter_scores_equal_those_of_lm_eval_run(tmp_path, store_root):
    """`lm_eval run --model hf` on the same documents gives the same score and answers."""
    loaded = loading.load("starter")
    spec = CapabilitySpec(limit=LIMIT, batch_size=BATCH_SIZE)
    ours, answers = capability.evaluate(
        loaded,
        spec,
        tmp_path / "ours",
        Progress(store_root, "run-1"),
        fingerprint="starter",
        device=torch.device("cpu"),
    )
    tasks = sorted(set(answers.task))
    samples = {task: sorted(set(answers[answers.task == task].doc_id.tolist())) for task in tasks}
    gguf = starter.fetch_starter()

    command = [
        sys.executable,
        "-m",
        "lm_eval",
        "run",
        "--model",
        "hf",
        "--model_args",
        f"pretrained={gguf.parent},gguf_file={gguf.name},dtype=float32",
        "--tasks",
        ",".join(tasks),
        "--include_path",
        str(index.SHIPPED),
        "--samples",
        json.dumps(samples),
        "--batch_size",
        str(BATCH_SIZE),
        "--device",
        "cpu",
        "--log_samples",
        "--output_path",
        str(tmp_path / "theirs"),
    ]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-2000:]

    (path,) = (tmp_path / "theirs").rglob("results_*.json")
    theirs = json.loads(path.read_text(encoding="utf-8"))
    for score in ours.scores:
        assert score.score == theirs["results"][score.task][f"{score.metric},none"], score
        assert score.task_hash == theirs["task_hashes"][score.task]
        assert score.num_documents == LIMIT
    for task in tasks:
        (path,) = (tmp_path / "theirs").rglob(f"samples_{task}_*.jsonl")
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        mine = answers[(answers.task == task) & (answers.metric == "acc")]
        assert mine.doc_id.tolist() == [line["doc_id"] for line in lines]
        assert mine.value.tolist() == [line["acc"] for line in lines]

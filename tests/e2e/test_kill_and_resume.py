"""kill -9 in the middle of a training, then the same command again."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from explorer.specs import RunSpec
from explorer.store import disk

pytestmark = pytest.mark.e2e


def test_a_killed_training_continues_from_its_checkpoint(tiny_llama, store_root, tmp_path):
    """Killed without warning, run again, it ends with the losses of an unbroken training."""
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("\n\n".join(f"Document {i} says that {i} is a number." for i in range(200)))

    def spec(name, checkpoint_every_s):
        return RunSpec.parse(
            {
                "name": name,
                "teacher": str(tiny_llama()),
                "student": {"num_layers": 2, "choice": "uniform"},
                "distill": {
                    "corpus": str(corpus),
                    "max_tokens": 15_000,
                    "block_tokens": 32,
                    "blocks_per_step": 1,
                    "heldout_blocks": 2,
                    "eval_every_steps": 100,
                    "checkpoint_every_s": checkpoint_every_s,
                    "top_k": 8,
                },
                "capability": None,
                "latency": None,
                "device": "cpu",
                "threads": 1,
            }
        )

    broken = spec("broken", 0.5)
    command = [sys.executable, "-m", "explorer", "run"]
    disk.open_run(store_root, broken)
    process = subprocess.Popen(
        [*command, broken.run_id], stdout=subprocess.DEVNULL, start_new_session=True
    )
    deadline = time.monotonic() + 240
    students = store_root / ".work" / "students"
    while not list(students.glob("*/checkpoint/state.json")):
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline, "no checkpoint came"
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (store_root / broken.run_id / disk.RECORD).exists()
    left = json.loads(next(students.glob("*/checkpoint/state.json")).read_text())
    assert 0 < left["step"] < 483

    subprocess.run([*command, broken.run_id], check=True, timeout=240)

    whole = spec("whole", 1e6)
    # Another name and cadence decide nothing, so the student's folder must be made anew.
    finished = store_root / disk.STUDENTS
    finished.rename(finished.with_name(".students-broken"))
    disk.open_run(store_root, whole)
    subprocess.run([*command, whole.run_id], check=True, timeout=240)
    resumed = disk.load(store_root, broken.run_id).distillation
    unbroken = disk.load(store_root, whole.run_id).distillation
    assert resumed.num_resumes == 1
    assert unbroken.num_resumes == 0
    assert [(p.step, p.loss, p.heldout_kl) for p in resumed.curve] == [
        (p.step, p.loss, p.heldout_kl) for p in unbroken.curve
    ]

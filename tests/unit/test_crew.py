"""Several processes teach one student."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from explorer import store
from explorer.distill.crew import Crew
from explorer.errors import BadInput
from explorer.run import run
from explorer.specs import RunSpec
from tests.conftest import ROOT


def _launch(order: Path, root: Path, num_processes: int) -> None:
    """The run, by as many processes that meet on a free port, as a launcher starts them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    plain = os.environ | {
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
        "EXPLORER_RESULTS": str(root),
    }
    processes = []
    for rank in range(num_processes):
        meeting = {
            "WORLD_SIZE": num_processes, "RANK": rank, "LOCAL_RANK": rank,
            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "ACCELERATE_USE_CPU": "true",
        }  # fmt: skip
        processes.append(
            subprocess.Popen(
                [sys.executable, "-m", "explorer", "run", str(order)],
                env=plain | {name: str(value) for name, value in meeting.items()},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )  # fmt: skip
        )
    for process in processes:
        said, _ = process.communicate(timeout=200)
        assert process.returncode == 0, said


@pytest.mark.slow
def test_two_processes_give_the_losses_of_one(tiny_run, tmp_path, store_root):
    """Same global batch, an uneven share included: the curve agrees to rounding."""
    distill = tiny_run["distill"] | {"blocks_per_step": 3, "kd_weight": 0.7}
    spec = RunSpec.parse(tiny_run | {"distill": distill, "capability": None, "device": "cpu"})
    order = tmp_path / "order.yaml"
    order.write_text(spec.to_yaml())
    root = tmp_path / "shared"
    _launch(order, root, 2)

    found = json.loads((store.run_folder(root, spec.run_id) / "record.json").read_text())
    shared = found["distillation"]["curve"]
    one = run(spec, store_root).model_dump(mode="json")
    alone = one["distillation"]["curve"]
    assert len(alone) == len(shared) > 2
    for ours, theirs in zip(alone, shared, strict=True):
        numbers = {name: value for name, value in ours.items() if value is not None}
        assert {"loss", "heldout_kl", "scored_tokens"} <= set(numbers)
        del numbers["seconds"]
        assert {name: theirs[name] for name in numbers} == pytest.approx(numbers, rel=1e-4)


def test_without_a_launcher_one_process_does_it_all():
    """Nothing is sent anywhere."""
    alone = Crew()

    assert alone.share([4, 5, 6]) == [4, 5, 6]
    assert alone.order(7) == 7


def test_sharded_parameters_are_refused_in_words(monkeypatch):
    """FSDP is named, and what to take in its place."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")

    with pytest.raises(BadInput, match="cannot run under FSDP"):
        Crew()


@pytest.mark.parametrize("path", sorted((ROOT / "docs" / "accelerate").glob("*.yaml")), ids=str)
def test_the_configurations_are_ones_that_accelerate_reads(path):
    """Each file of docs/accelerate loads as Accelerate's own configuration."""
    from accelerate.commands.config.config_args import load_config_from_file

    found = load_config_from_file(str(path))

    assert found.num_processes == yaml.safe_load(path.read_text())["num_processes"]

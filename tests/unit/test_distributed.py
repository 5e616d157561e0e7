"""Several processes share one run: they train one student and evaluate one model."""

import json
import os
import socket
import subprocess
import sys
import time
import types
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from explorer.distill import distributed, sharding
from explorer.errors import BadInput
from explorer.pipeline import environment, run
from explorer.pipeline.context import RunContext
from explorer.pipeline.run_guard import SilentProgress
from explorer.specs import DistillSpec, RunSpec
from explorer.store import disk
from tests import local_tasks
from tests.conftest import ROOT
from tests.launching import Launch


@pytest.mark.slow
@pytest.mark.parametrize("sharded", [False, pytest.param(True, marks=pytest.mark.long)])
def test_two_processes_give_the_losses_of_one(sharded, tiny_run, tmp_path, store_root):
    """Same global batch and tokens drawn, shared evenly or not, in shards or not: one curve."""
    distill = tiny_run["distill"] | {
        "blocks_per_step": 4 if sharded else 3,
        "kd_weight": 0.7,
        "gradient_checkpointing": sharded,
        "top_k": 8,
        "vocab_sample": 40,
        "train_layers": "auto",
        "prefetch": True,
    }
    changes = {"student": {"num_layers": 2, "choice": "uniform"}, "capability": None}
    spec = RunSpec.parse(tiny_run | {"distill": distill, "device": "cpu"} | changes)
    order = tmp_path / "order.yaml"
    order.write_text(spec.to_yaml())
    root = tmp_path / "shared"
    launch = Launch(order, root, 2, sharded=sharded)
    assert launch.end() == [0, 0], launch.words()

    found = json.loads((disk.run_folder(root, spec.run_id) / "record.json").read_text())
    one = run(spec, store_root).model_dump(mode="json")
    _same_curves(one["distillation"]["curve"], found["distillation"]["curve"])


@pytest.mark.long
def test_two_processes_compile_their_layers(tiny_run, tmp_path, store_root):
    """Each decides for itself; the losses are those of one process that compiles nothing."""
    distill = tiny_run["distill"] | {"max_tokens": 30 * 30, "blocks_per_step": 2}
    plain = RunSpec.parse(tiny_run | {"distill": distill, "capability": None, "device": "cpu"})
    spec = plain.with_(distill=distill | {"compile": True})
    order = tmp_path / "order.yaml"
    order.write_text(spec.to_yaml())
    root = tmp_path / "shared"
    launch = Launch(order, root, 2)
    assert launch.end() == [0, 0], launch.words()

    found = disk.load(root, spec.run_id).model_dump(mode="json")["distillation"]
    one = run(plain, store_root).model_dump(mode="json")["distillation"]
    assert found["compilation"]["compiled_ms"] > 0
    _same_curves(one["curve"], found["curve"])


@pytest.mark.slow
def test_a_launch_runs_nothing_of_the_process_that_starts_it(tmp_path, monkeypatch):
    """Whatever script that process has run, as a test of a page does: the command is reached."""
    script = tmp_path / "page.py"
    script.write_text("raise SystemExit(77)\n")
    drawn = types.ModuleType("__main__")
    drawn.__file__ = str(script)
    monkeypatch.setitem(sys.modules, "__main__", drawn)

    launch = Launch(tmp_path / "absent.yaml", tmp_path / "shared", 1)

    assert launch.end() == [2], launch.words()
    assert "absent.yaml" in launch.words()
    assert sys.modules["__main__"] is drawn


@pytest.mark.long
def test_a_training_goes_on_in_shards_and_out_of_them(tiny_run, tmp_path, store_root):
    """Whoever is killed, and whatever held the student then: the curve is the unbroken one."""
    distill = tiny_run["distill"] | {
        "blocks_per_step": 2,
        "checkpoint_every_s": 1e-6,
        "kd_weight": 0.7,
    }
    spec = RunSpec.parse(tiny_run | {"distill": distill, "capability": None, "device": "cpu"})
    order = tmp_path / "order.yaml"
    order.write_text(spec.to_yaml())
    root = tmp_path / "shared"
    helper_dies = Launch(order, root, 2, dies={1: 3}, sharded=True)
    assert helper_dies.end() == [1, -9], helper_dies.words()
    assert "Another process of this launch exited" in helper_dies.words()
    assert disk.read_status(root, spec.run_id)["state"] == "interrupted"
    first_dies = Launch(order, root, 2, dies={0: 3})
    assert first_dies.end() == [-9, 1], first_dies.words()
    whole = Launch(order, root, 2, sharded=True)
    assert whole.end() == [0, 0], whole.words()

    found = disk.load(root, spec.run_id).model_dump(mode="json")
    one = run(spec, store_root).model_dump(mode="json")
    assert found["distillation"]["num_resumes"] == 2
    _same_curves(one["distillation"]["curve"], found["distillation"]["curve"], smallest=1e-8)


@pytest.mark.slow
def test_torchrun_gives_the_losses_of_one_process_and_goes_on_after_a_rank_died(
    tiny_run, tmp_path, store_root
):
    """A dead rank ends the launch with a sentence; the same command continues it to one curve."""
    distill = tiny_run["distill"] | {"blocks_per_step": 3, "checkpoint_every_s": 1e-6}
    spec = RunSpec.parse(tiny_run | {"distill": distill, "capability": None, "device": "cpu"})
    order = tmp_path / "order.yaml"
    order.write_text(spec.to_yaml())
    root = tmp_path / "shared"

    died = _torchrun(root, "-m", "tests.launching", str(order), "1", "3")
    whole = _torchrun(root, "-m", "explorer", "run", str(order))

    assert died.returncode != 0
    assert "error: Another process of this launch exited" in died.stderr
    assert "The same command continues the run" in died.stderr
    assert whole.returncode == 0, whole.stderr
    shared = disk.load(root, spec.run_id)
    assert shared.environment.num_processes == 2
    assert shared.distillation is not None
    assert shared.distillation.num_resumes == 1
    one = run(spec, store_root)
    assert one.environment.num_processes == 1
    _same_curves(
        one.model_dump(mode="json")["distillation"]["curve"],
        shared.model_dump(mode="json")["distillation"]["curve"],
    )


def _torchrun(root: Path, *command: str) -> subprocess.CompletedProcess[str]:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    return subprocess.run(
        [*launcher, "--nproc-per-node", "2", *command],
        cwd=ROOT,
        env=os.environ | {"EXPLORER_RESULTS": str(root), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )


def _explorer_run(order: Path, root: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "explorer", "run", str(order)],
        cwd=ROOT,
        env=os.environ | {"EXPLORER_RESULTS": str(root), "OMP_NUM_THREADS": "1"} | environment,
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.slow
def test_a_run_on_several_devices_needs_no_launcher(tiny_run, tmp_path, store_root):
    """`explorer run` starts a process for each of num_devices, which give the losses of one."""
    distill = tiny_run["distill"] | {"blocks_per_step": 3}
    spec = RunSpec.parse(tiny_run | {"distill": distill, "device": "cpu", "num_devices": 2})
    order = tmp_path / "order.yaml"
    order.write_text(spec.to_yaml())
    root = tmp_path / "shared"

    done = _explorer_run(order, root)

    assert done.returncode == 0, done.stderr
    assert "Process 1" not in done.stderr
    shared = disk.load(root, spec.run_id)
    assert shared.environment.num_processes == 2
    one = run(spec.with_(num_devices=1), store_root)
    assert one.environment.num_processes == 1
    assert one.teacher_run_id == shared.teacher_run_id
    alone, together = (
        _answers(disk.output_folder(place, str(one.teacher_run_id)) / disk.CAPABILITY)
        for place in (store_root, root)
    )
    assert together == alone
    _same_curves(
        one.model_dump(mode="json")["distillation"]["curve"],
        shared.model_dump(mode="json")["distillation"]["curve"],
    )
    # A training goes on with any number of devices, as it does not decide the weights.
    assert {path.name for path in root.glob(".students/*")} == {
        path.name for path in store_root.glob(".students/*")
    }


@pytest.mark.slow
def test_a_process_that_ends_before_all_have_met_ends_the_run(tiny_run, tmp_path):
    """Torch alone would wait for it for a week."""
    spec = RunSpec.parse(tiny_run | {"device": "cpu", "num_devices": 2})
    order = tmp_path / "order.yaml"
    order.write_text(spec.to_yaml())
    begins = "import os, sys\nif os.environ.get('RANK') == '1': sys.exit('no such library')\n"
    (tmp_path / "sitecustomize.py").write_text(begins)

    done = _explorer_run(order, tmp_path / "shared", PYTHONPATH=f"{tmp_path}{os.pathsep}{ROOT}")

    assert done.returncode == 1
    assert "no such library" in done.stderr
    assert "error: Another process of this run ended before the work began" in done.stderr


def test_another_number_of_processes_than_devices_is_refused(tiny_run, store_root):
    """By the command that starts one process, with what to write to continue anyway."""
    spec = RunSpec.parse(tiny_run | {"num_devices": 3})

    with pytest.raises(BadInput, match="start 3 or write num_devices: 1"):
        run(spec, store_root)


@pytest.mark.slow
def test_a_cancelled_training_stops_on_all_ranks_after_the_same_step(tiny_run, tmp_path):
    """The request reaches rank 0, the others hear of it with the loss; a checkpoint is left."""
    distill = tiny_run["distill"] | {"blocks_per_step": 2, "max_tokens": 1_000_000}
    spec = RunSpec.parse(tiny_run | {"distill": distill, "capability": None, "device": "cpu"})
    order = tmp_path / "order.yaml"
    order.write_text(spec.to_yaml())
    root = tmp_path / "shared"
    launch = Launch(order, root, 2, sharded=True)
    began = time.monotonic()
    while (disk.read_status(root, spec.run_id) or {}).get("stage") != "distil":
        assert time.monotonic() - began < 150, launch.words()
        time.sleep(0.1)

    disk.request_cancel(root, spec.run_id)

    assert launch.end() == [1, 1], launch.words()
    assert "Another process stopped the training" in launch.words()
    assert disk.load(root, spec.run_id).status == "cancelled"
    (state,) = root.glob(".work/students/*/checkpoint/state.json")
    assert json.loads(state.read_text())["step"] >= 1


def test_a_launcher_that_starts_one_process_is_noticed(monkeypatch):
    """`accelerate launch --cpu` shares nothing without MPI: the sentence names torchrun."""
    for name, value in {"ACCELERATE_USE_CPU": "True", "MASTER_PORT": "29500"}.items():
        monkeypatch.setenv(name, value)

    with pytest.raises(BadInput, match="torchrun --nproc-per-node 2"), distributed.joined():
        pass


def test_a_command_that_cannot_be_shared_says_so(tiny_run, store_root, monkeypatch):
    """A run outside of the commands that join its processes is refused, not done twice."""
    monkeypatch.setenv("WORLD_SIZE", "2")

    with pytest.raises(BadInput, match="only `explorer run`, `explorer sweep` and"):
        run(RunSpec.parse(tiny_run), store_root)


def test_shards_need_as_many_blocks_at_each_process():
    """Said with the number of blocks that would do."""
    with pytest.raises(BadInput, match="Write distill.blocks_per_step: 6, or launch another"):
        sharding.check_even_blocks(DistillSpec(blocks_per_step=4), 3)


def _same_curves(
    alone: list[dict[str, Any]], shared: list[dict[str, Any]], smallest: float = 1e-12
) -> None:
    assert len(alone) == len(shared) > 2
    for ours, theirs in zip(alone, shared, strict=True):
        numbers = {name: value for name, value in ours.items() if value is not None}
        assert {"loss", "heldout_kl", "scored_tokens"} <= set(numbers)
        del numbers["seconds"]
        assert {name: theirs[name] for name in numbers} == pytest.approx(
            numbers, rel=1e-4, abs=1e-8
        )


def _answers(folder: Path) -> dict[str, Any]:
    """The bytes of each task's answers, and the scores of each task's results."""
    found: dict[str, Any] = {}
    for path in folder.glob("finished_*.json"):
        marker = json.loads(path.read_text())
        results = json.loads((folder / marker["results"]).read_text())
        found[path.stem] = (folder / marker["samples"]).read_bytes(), results["results"]
    return found


@pytest.mark.slow
def test_a_shared_evaluation_ends_with_the_bytes_of_one_process(tiny_llama, tmp_path, store_root):
    """Whoever is killed, and whatever the number of processes that go on: the same answers."""
    tasks = tmp_path / "tasks"
    tasks.mkdir()
    local_tasks.write(tasks, num_rounds=10)
    spec = RunSpec.parse(
        {
            "name": "tiny",
            "teacher": str(tiny_llama()),
            "capability": {
                "tasks": local_tasks.NAMES,
                "include_path": str(tasks),
                "batch_size": 1,
            },
            "latency": None,
            "device": "cpu",
            "threads": 1,
        }
    )
    order = tmp_path / "order.yaml"
    order.write_text(spec.to_yaml())
    root = tmp_path / "shared"
    folder = disk.run_folder(root, spec.run_id) / "capability"
    helper_dies = Launch(order, root, 2, dies={1: 4})
    assert helper_dies.end() == [1, -9], helper_dies.words()
    assert "Another process of this launch exited" in helper_dies.words()
    assert disk.read_status(root, spec.run_id)["state"] == "interrupted"
    assert len((folder / "asked_local_choice.jsonl").read_bytes().splitlines()) == 6
    first_dies = Launch(order, root, 2, dies={0: 14})
    assert first_dies.end() == [-9, 1], first_dies.words()
    whole = Launch(order, root, 3)
    assert whole.end() == [0, 0, 0], whole.words()

    one = run(spec, store_root)
    expected = _answers(disk.run_folder(store_root, spec.run_id) / "capability")
    assert len(expected) == len(local_tasks.NAMES)
    assert _answers(folder) == expected
    shared = disk.load(root, spec.run_id)
    assert shared.capability is not None
    assert one.capability is not None
    assert [s.score for s in shared.capability.scores] == [s.score for s in one.capability.scores]


def test_without_a_launcher_one_process_does_it_all():
    """Nothing is sent anywhere, and no process group is made."""
    with distributed.joined():
        assert distributed.world_size() == 1
        assert distributed.is_main()
        assert distributed.from_main(lambda: 7) == 7
        assert distributed.all_gather(7) == [7]
        assert distributed.all_reduce([1.0, 2.0]) == [1.0, 2.0]
        assert not torch.distributed.is_initialized()


@pytest.mark.parametrize("path", sorted((ROOT / "docs" / "accelerate").glob("*.yaml")), ids=str)
def test_the_configurations_are_ones_that_accelerate_reads(path):
    """Each file of docs/accelerate loads as Accelerate's own configuration."""
    from accelerate.commands.config.config_args import load_config_from_file

    found = load_config_from_file(str(path))

    assert found.num_processes == yaml.safe_load(path.read_text())["num_processes"]


LISTENERS = """
import psutil, sys
from explorer.distill import distributed

with distributed.joined():
    distributed.all_gather("all are here")
    listening = [c.laddr.ip for c in psutil.Process().net_connections() if c.status == "LISTEN"]
    print(*listening)
    distributed.all_gather("all have looked")
"""


@pytest.mark.slow
def test_processes_of_one_machine_listen_on_loopback_alone():
    """Nobody on the network can reach the ranks of a launch that stays on this machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    meeting = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", LISTENERS],
            cwd=ROOT,
            env={**os.environ, **meeting, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            encoding="utf-8",
        )
        for rank in range(2)
    ]
    listening = {address for rank in ranks for address in rank.communicate(timeout=120)[0].split()}

    assert [rank.returncode for rank in ranks] == [0, 0]
    assert listening
    assert listening <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}


def test_a_launch_over_several_machines_keeps_its_network(monkeypatch):
    """Where a cluster is configured, ranks listen where the launcher says."""
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setenv("MASTER_ADDR", "10.0.0.7")
    assert not distributed.is_on_this_machine()

    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert distributed.is_on_this_machine()


@pytest.mark.parametrize(
    ("variables", "threads", "expected"),
    [
        ({}, None, 8),
        ({"OMP_NUM_THREADS": "2"}, None, 8),
        ({"LOCAL_WORLD_SIZE": "3"}, None, 2),
        ({"LOCAL_WORLD_SIZE": "20"}, None, 1),
        ({"LOCAL_WORLD_SIZE": "3", "OMP_NUM_THREADS": "5"}, None, 5),
        ({"LOCAL_WORLD_SIZE": "3", "OMP_NUM_THREADS": "5"}, 4, 4),
    ],
)
def test_processes_of_one_machine_share_its_cores(
    tiny_run, store_root, monkeypatch, variables, threads, expected
):
    """Unless the user says how many threads; timing and the record have those of one process."""
    for name in ("LOCAL_WORLD_SIZE", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(environment, "num_cpus", lambda: 8)
    before = torch.get_num_threads()
    spec = RunSpec.parse(tiny_run | {"device": "cpu", "threads": threads})
    context = RunContext(spec, store_root, SilentProgress(store_root, spec.run_id))
    try:
        context.choose_device()
        assert torch.get_num_threads() == expected
        context.use_all_threads()
        assert torch.get_num_threads() == context.environment.threads == (threads or 8)
    finally:
        torch.set_num_threads(before)

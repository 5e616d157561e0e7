"""The walk of docs/cluster.md: two Ray nodes, one store, and a node that is killed.

Each node is a host of its own where network namespaces are to be had; otherwise both are on
127.0.0.1.
"""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from explorer import jobs
from explorer.jobs import cluster_queue, queue, ray_head, states, submission
from explorer.pages.dashboard import web_guard
from explorer.specs import RunSpec
from explorer.store import disk
from tests.ray.stand_in import NAMES_ITS_DEVICE
from tests.ray.two_nodes import TwoNodes

pytestmark = [pytest.mark.ray, pytest.mark.long, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]


@pytest.fixture
def use(tmp_path, monkeypatch):
    """Point the queue at a cluster, as RAY_ADDRESS and the token's file do."""

    def point(cluster):
        monkeypatch.setenv("EXPLORER_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("RAY_ADDRESS", cluster.url)
        monkeypatch.setenv("RAY_AUTH_MODE", "token")
        monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(cluster.token))
        monkeypatch.setenv("no_proxy", "*")
        ray_head._connected.cache_clear()

    yield point
    ray_head._connected.cache_clear()


def training(name, tiny_llama, corpus, seed=0):
    """A run that trains for a while and saves a checkpoint twice a second."""
    return RunSpec.parse(
        {
            "name": name,
            "teacher": str(tiny_llama()),
            "student": {"num_layers": 2, "choice": "uniform"},
            "distill": {
                "corpus": str(corpus),
                "max_tokens": 60_000,
                "block_tokens": 32,
                "blocks_per_step": 1,
                "heldout_blocks": 2,
                "eval_every_steps": 200,
                "checkpoint_every_s": 0.5,
                "top_k": 8,
                "seed": seed,
            },
            "capability": None,
            "latency": None,
            "device": "cpu",
            "threads": 1,
        }
    )


def submit_on_the_page(specs, root):
    """Press Resume on the Run page for runs that were stopped; returns their ids."""
    ids = [spec.run_id for spec in specs]
    for spec in specs:
        disk.open_run(root, spec)
        queue.write_status(root, spec.run_id, "cancelled")
    page = AppTest.from_file(str(web_guard.SCRIPT), default_timeout=60)
    page.switch_page("../run/run.py")
    page.run()
    for run_id in ids:
        page.button(key=f"resume_{run_id}").click().run()
        assert not page.exception
    wait_for(lambda: not submission.running(root), "the page is still submitting")
    assert not submission.failed(root), submission.failed(root)
    return ids


@pytest.fixture
def corpus(tmp_path):
    path = tmp_path / "corpus.txt"
    path.write_text("\n\n".join(f"Document {i} says that {i} is a number." for i in range(200)))
    return path


def wait_for(condition, what, timeout_s=240):
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline, what
        time.sleep(0.2)
    return value


def test_the_run_of_a_killed_node_goes_on_at_the_other_with_equal_results(
    tmp_path, store_root, tiny_llama, corpus, use, monkeypatch
):
    """It is queued again by itself, says which machine was lost, and its losses are unbroken.

    The two runs wait in our queue: each node has room for one, and Ray never has more.
    """
    with TwoNodes(tmp_path, cpus=(1, 1), gpus=(0, 0)) as cluster:
        use(cluster)
        assert jobs.place() == "cluster"
        specs = [
            training(name, tiny_llama, corpus, seed)
            for seed, name in enumerate(("first", "second"))
        ]
        ids = submit_on_the_page(specs, store_root)

        def on_the_worker():
            client = ray_head.connect()
            nodes = client.all_nodes()
            for run_id, job in client.jobs_of(store_root.resolve()).items():
                node = nodes.get(job.driver_node_id or "", {})
                is_worker = node and not node.get("is_head_node")
                if is_worker and job.status.value == "RUNNING" and run_id in ids:
                    return run_id
            return None

        broken = wait_for(on_the_worker, jobs.status_table(store_root))
        students = store_root / ".work" / "students"

        def has_a_checkpoint():
            """As many as runs that train: one of the other run alone would not be continued."""
            statuses = {run_id: disk.read_status(store_root, run_id) or {} for run_id in ids}
            at_work = [key for key, status in statuses.items() if status.get("stage") == "distil"]
            checkpoints = [
                path
                for path in students.glob("*/checkpoint/state.json")
                if not (path.parents[1] / "model").exists()
            ]
            return broken in at_work and len(checkpoints) >= len(at_work)

        wait_for(has_a_checkpoint, "no checkpoint came")
        cluster.worker.kill()
        ended = jobs.wait_until_done(store_root, ids, 400)

        table = jobs.status_table(store_root).set_index("run_id")
        assert ended == dict.fromkeys(ids, "finished"), table.to_dict("index")
        lost = cluster.worker.address
        note = table.loc[broken, "note"]
        assert note.startswith(f"The machine {lost} was lost during this run."), note
        assert f"The machine {lost} was lost" in (store_root / broken / disk.LOG).read_text()
        resumed = disk.load(store_root, broken).distillation
        assert resumed.num_resumes >= 1
        wait_for(
            lambda: cluster_queue.ClusterQueue(store_root, cluster.url).dispatcher is None,
            "the dispatcher did not end",
            60,
        )
    monkeypatch.delenv("RAY_ADDRESS")
    unbroken_root = tmp_path / "unbroken"
    monkeypatch.setenv("EXPLORER_RESULTS", str(unbroken_root))
    spec = disk.read_spec(store_root, broken)
    disk.open_run(unbroken_root, spec)
    subprocess.run([sys.executable, "-m", "explorer", "run", spec.run_id], check=True, timeout=240)
    unbroken = disk.load(unbroken_root, spec.run_id).distillation
    assert unbroken.num_resumes == 0
    assert [(p.step, p.loss, p.heldout_kl) for p in resumed.curve] == [
        (p.step, p.loss, p.heldout_kl) for p in unbroken.curve
    ]


def test_each_run_gets_a_gpu_of_its_own(tmp_path, store_root, use, monkeypatch):
    """Four runs on nodes with one and two (simulated) GPUs: no device has two at one time."""
    monkeypatch.setattr(
        queue, "run_command", lambda run_id: [sys.executable, "-c", NAMES_ITS_DEVICE, run_id]
    )
    with TwoNodes(tmp_path, cpus=(1, 2), gpus=(1, 2)) as cluster:
        use(cluster)
        specs = [RunSpec(name=f"gpu-{number}", device="cuda") for number in range(4)]
        ids = jobs.submit(specs, store_root)
        ended = jobs.wait_until_done(store_root, ids, 300)

        assert set(ended.values()) == {"finished"}, jobs.status_table(store_root).to_dict("index")
        said = [json.loads((store_root / run_id / "device.json").read_text()) for run_id in ids]
        assert all("CUDA_VISIBLE_DEVICES" in jobs.log_tail(store_root, run_id, 9) for run_id in ids)
    places = {(one["host"] if cluster.separate else "", one["device"]) for one in said}
    assert all(device in ("0", "1") for _, device in places), said
    if cluster.separate:
        assert {host for host, _ in places} == {"node-a", "node-b"}
        for one in said:
            for other in said:
                together = one["began"] < other["ended"] and other["began"] < one["ended"]
                same = (one["host"], one["device"]) == (other["host"], other["device"])
                assert one is other or not (together and same), said
    assert states.state_of(store_root, ids[0]) == "finished"


def test_torchrun_on_two_nodes_gives_the_losses_of_one(tmp_path, store_root, tiny_llama, corpus):
    """Two launchers, as on two machines, meet at an address and train one student."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    spec = training("shared", tiny_llama, corpus).model_dump(mode="json")
    spec["distill"] |= {"max_tokens": 4_000, "blocks_per_step": 2, "eval_every_steps": 20}
    spec = RunSpec.parse(spec)
    order = tmp_path / "spec.yaml"
    order.write_text(spec.to_yaml())
    torchrun = str(Path(sys.executable).with_name("torchrun"))
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    launchers = [
        subprocess.Popen(
            [
                torchrun,
                "--nnodes=2",
                f"--node-rank={rank}",
                "--nproc-per-node=1",
                "--rdzv-backend=c10d",
                f"--rdzv-endpoint=127.0.0.1:{port}",
                "--local-addr=127.0.0.1",
                "-m",
                "explorer",
                "run",
                str(order),
            ],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    said = [launcher.communicate(timeout=300)[0] for launcher in launchers]
    assert [launcher.returncode for launcher in launchers] == [0, 0], said

    alone = tmp_path / "alone"
    subprocess.run(
        [sys.executable, "-m", "explorer", "run", str(order), "--results", str(alone)],
        check=True,
        timeout=240,
        env=environment,
    )
    together, single = (disk.load(root, spec.run_id) for root in (store_root, alone))
    assert together.environment.num_processes == 2
    assert [p.step for p in together.distillation.curve] == [
        p.step for p in single.distillation.curve
    ]
    for ours, other in zip(together.distillation.curve, single.distillation.curve, strict=True):
        assert ours.loss == pytest.approx(other.loss, rel=1e-4, abs=1e-8)

"""Many tiny jobs through the queue leave nothing behind.

EXPLORER_SOAK_RUNS=500 python -m pytest -m long tests/ray/test_soak.py   # `make soak`
"""

import os
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from explorer import jobs
from explorer.jobs import queue, ray_head
from explorer.specs import RunSpec
from explorer.store import disk
from tests.ray.stand_in import STAND_IN

pytestmark = [pytest.mark.ray, pytest.mark.long, pytest.mark.timeout(3 * 3600)]

NUM_RUNS = int(os.environ.get("EXPLORER_SOAK_RUNS", "50"))
WARM_UP = 10
"""Runs before the first measurement, after which Ray has started all it keeps."""
BATCH = 20
KB_PER_RUN = 400
"""Ray's own list of jobs and its log files may grow by this much memory and disk per run."""


@pytest.fixture
def head(tmp_path, monkeypatch):
    """A head of the test's own, stopped at the end."""
    monkeypatch.setenv("EXPLORER_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(
        queue, "run_command", lambda run_id: [sys.executable, "-c", STAND_IN, run_id, "1"]
    )
    yield
    jobs.stop_engine()


def measured(root):
    """What could leak: of this process, of the head's processes, on the disk."""
    head = ray_head._saved_head()
    processes = [psutil.Process(), *ray_head._processes_of(head)]
    rss = fds = 0
    for process in processes:
        with suppress(psutil.Error):
            rss += process.memory_info().rss
            fds += process.num_fds()
    session = Path(head.session_folder)
    temporary = Path(tempfile.gettempdir())
    return {
        "processes": len(processes),
        "threads of this process": threading.active_count(),
        "descriptors": fds,
        "memory_kb": rss // 1024,
        "session_kb": sum(p.lstat().st_size for p in session.rglob("*") if p.is_file()) // 1024,
        "folders in the temporary folder": sum(path.is_dir() for path in temporary.iterdir()),
        "files in .work": sum(1 for path in (root / ".work").rglob("*")),
    }


def go_through(root, numbers):
    """Submit runs, two of which go side by side, and wait for all."""
    specs = [RunSpec(name=f"soak-{number}", threads=1, latency=None) for number in numbers]
    ids = jobs.submit(specs, root)
    ended = jobs.wait_until_done(root, ids, 60 * len(ids))
    assert set(ended.values()) == {"finished"}, ended
    return ids


def settled(root):
    """A measurement once the last job's processes are gone."""
    last = measured(root)
    for _ in range(20):
        time.sleep(1)
        last, before = measured(root), last
        if last["processes"] == before["processes"]:
            break
    return last


def test_many_jobs_leave_no_process_descriptor_memory_or_folder(tmp_path, store_root, head):
    """Each run leaves its own folder in the store, its lines in Ray's list, and nothing else."""
    began = time.monotonic()
    ids = go_through(store_root, range(WARM_UP))
    before = settled(store_root)
    for first in range(WARM_UP, NUM_RUNS, BATCH):
        ids += go_through(store_root, range(first, min(first + BATCH, NUM_RUNS)))
    after = settled(store_root)
    num_more = NUM_RUNS - WARM_UP

    grown = {name: after[name] - before[name] for name in before}
    print(f"\n{NUM_RUNS} runs in {time.monotonic() - began:.0f} s")
    for name in before:
        print(f"{name}: {before[name]:,} after {WARM_UP} runs, {after[name]:,} at the end")
    assert grown["processes"] <= 2, grown  # Ray keeps a worker ready for each core.
    assert grown["threads of this process"] <= 2, grown
    assert grown["descriptors"] <= 40, grown
    assert grown["folders in the temporary folder"] <= 0, grown
    assert grown["files in .work"] <= 2, grown
    assert grown["memory_kb"] <= 50_000 + KB_PER_RUN * num_more, grown
    assert grown["session_kb"] <= KB_PER_RUN * num_more, grown
    folders = set(disk.run_ids(store_root))
    assert folders == set(ids)
    for run_id in ids:
        names = {path.name for path in (store_root / run_id).iterdir()}
        assert names == {disk.SPEC, disk.STATUS}

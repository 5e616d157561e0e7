"""The queue of a machine with four GPUs, which Ray is told of and nobody has."""

import json
import sys

import psutil
import pytest

from explorer import jobs
from explorer.errors import BadInput
from explorer.jobs import detached, queue, ray_head
from explorer.specs import RunSpec
from tests.ray.stand_in import NAMES_ITS_DEVICE

pytestmark = pytest.mark.ray

NUM_GPUS = 4


@pytest.fixture(autouse=True)
def four_gpus(tmp_path, monkeypatch):
    """A head of our own that counts four GPUs; each run says which of them it was given."""
    start = detached.start

    def with_gpus(command, environment, **options):
        return start([*command, f"--num-gpus={NUM_GPUS}"], environment, **options)

    monkeypatch.setenv("EXPLORER_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(detached, "start", with_gpus)
    monkeypatch.setattr(
        queue, "run_command", lambda run_id: [sys.executable, "-c", NAMES_ITS_DEVICE, run_id]
    )
    yield
    processes = ray_head._processes_of(ray_head._saved_head()) if ray_head._saved_head() else []
    jobs.stop_engine()
    assert not [p for p in processes if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


def test_each_run_has_devices_of_its_own(store_root):
    """Runs of one device and of two work side by side, and no device has two runs at one time."""
    single = [RunSpec(name=f"one-{number}", device="cuda") for number in range(4)]
    pair = RunSpec(name="two", device="cuda", num_devices=2)

    ids = jobs.submit([*single[:2], pair, *single[2:]], store_root)
    ended = jobs.wait_until_done(store_root, ids, 300)

    assert set(ended.values()) == {"finished"}, jobs.status_table(store_root).to_dict("index")
    said = {i: json.loads((store_root / i / "device.json").read_text()) for i in ids}
    given = {run_id: set(each["device"].split(",")) for run_id, each in said.items()}
    assert {len(devices) for run_id, devices in given.items() if run_id != pair.run_id} == {1}
    assert len(given[pair.run_id]) == 2
    assert set.union(*given.values()) == {"0", "1", "2", "3"}
    beside = [
        (one, other)
        for one in ids
        for other in ids
        if one < other
        and said[one]["began"] < said[other]["ended"]
        and said[other]["began"] < said[one]["ended"]
    ]
    assert beside
    for one, other in beside:
        assert not given[one] & given[other], said
    for run_id in ids:
        printed = f"CUDA_VISIBLE_DEVICES {said[run_id]['device']}"
        assert printed in jobs.log_tail(store_root, run_id, 9)


def test_more_devices_than_any_machine_has_are_refused(store_root):
    """At once, rather than after a wait for ever."""
    spec = RunSpec(name="five", device="cuda", num_devices=5)

    with pytest.raises(BadInput, match="asks for num_devices 5, but .* has 4. Write num_devices"):
        jobs.submit([spec], store_root)

import copy
import json

import pytest

from explorer.errors import DamagedStore
from explorer.records import SCHEMA_VERSION, RunRecord, Usage, migrate
from explorer.records.migrations import STEPS
from tests.conftest import ROOT

GOLDEN = ROOT / "tests" / "golden" / "records"


def old(name):
    return json.loads((GOLDEN / name).read_text())


def test_every_past_schema_has_a_step_and_a_golden_record():
    """The chain of migrations has no gap, and each version is tried on a real record."""
    assert sorted(STEPS) == list(range(1, SCHEMA_VERSION))
    for version in range(1, SCHEMA_VERSION + 1):
        assert old(f"schema_{version}.json")["schema_version"] == version


def test_a_number_that_meant_unknown_is_missing_in_an_old_record():
    """Schema 1 wrote 0 prompt tokens where an endpoint did not count them, and 0 for reasoning."""
    data = old("schema_1_endpoint.json")
    assert data["latency"]["own"]["prompt_tokens"] == 0

    record = RunRecord.from_json(json.dumps(data))

    assert record.latency.own.prompt_tokens is None
    assert record.capability.usage.reasoning_tokens is None
    assert record.capability.usage.num_uncounted == 3
    assert record.schema_version == SCHEMA_VERSION


def test_an_old_timing_without_a_runtime_names_the_only_one_there_was():
    """Before there were runtimes, transformers ran every model eagerly."""
    record = RunRecord.from_json(json.dumps(old("schema_1.json")))

    assert record.latency.own.runtime.name == "transformers eager"
    assert record.latency.teacher.runtime.name == "transformers eager"


def test_a_field_that_is_newer_than_a_record_is_missing_or_true_of_it():
    """Nobody counted the processes of an old run; all of its student's layers were trained."""
    record = RunRecord.from_json(json.dumps(old("schema_1.json")))

    assert record.environment.num_processes is None
    assert record.distillation.num_untrained_layers == 0


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.json")), ids=lambda p: p.stem)
def test_migrating_keeps_the_run_and_leaves_the_data_as_they_were(path):
    """Run id and spec come through every step, and the caller's data are not touched."""
    data = json.loads(path.read_text())
    before = copy.deepcopy(data)

    lifted = migrate(data)

    assert data == before
    assert (lifted["run_id"], lifted["spec"]) == (before["run_id"], before["spec"])
    assert RunRecord.from_json(path.read_text()).spec.run_id == before["run_id"]


@pytest.mark.parametrize("version", [None, "1", True, 0, -1, SCHEMA_VERSION + 1])
def test_a_version_that_does_not_exist_is_refused(version):
    """No version, or one of a newer explorer: damaged, never guessed."""
    with pytest.raises(DamagedStore, match="schema_version"):
        migrate({"schema_version": version})


def test_usage_adds_up_and_what_no_reply_says_stays_unknown():
    """A sum of unknown numbers is unknown, not 0; one known number is the sum."""
    silent = Usage(num_replies=1, prompt_tokens=5, output_tokens=2)
    thinking = Usage(num_replies=1, prompt_tokens=5, output_tokens=9, reasoning_tokens=7)

    assert (silent + silent).reasoning_tokens is None
    assert (silent + thinking).reasoning_tokens == 7
    assert (silent + thinking).prompt_tokens == 10

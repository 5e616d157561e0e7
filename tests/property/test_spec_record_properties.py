import json
from pathlib import Path

import pytest
from hypothesis import given

from explorer.records import SCHEMA_VERSION, RunRecord, migrate
from explorer.specs import RunSpec, SweepSpec
from tests import scripts

strategies = scripts.load(Path(__file__).with_name("strategies.py"))


@given(strategies.run_specs())
def test_a_run_survives_its_yaml(spec):
    """A spec saved beside its record asks for the very same run."""
    again = RunSpec.from_yaml(spec.to_yaml())

    assert again == spec
    assert again.run_id == spec.run_id


@given(strategies.sweep_specs)
def test_a_sweep_survives_its_yaml_and_names_each_run_once(sweep):
    """Reading a sweep back gives the same runs, no two of them the same, one teacher."""
    again = SweepSpec.from_yaml(sweep.to_yaml())

    assert again == sweep
    runs = again.runs()
    assert len({run.run_id for run in runs}) == len(runs) == len(sweep.students) + 1
    assert {run.teacher_run().run_id for run in runs[1:]} == {runs[0].run_id}


@given(strategies.run_specs(), strategies.run_specs())
def test_different_specs_are_different_runs(one, other):
    """No two specs share a folder."""
    assert (one == other) == (one.run_id == other.run_id)


@given(strategies.run_records())
def test_a_record_survives_its_json(record):
    """What a run leaves is read as it was written, gaps included."""
    text = record.to_json()

    assert RunRecord.from_json(text) == record
    json.loads(text, parse_constant=pytest.fail)


@given(strategies.old_records())
def test_a_record_of_any_version_loads_and_migrating_it_twice_changes_nothing(data):
    """Migrations end at the present schema, and a present record is left as it is."""
    lifted = migrate(data)

    assert lifted["schema_version"] == SCHEMA_VERSION
    assert migrate(lifted) == lifted
    record = RunRecord.from_json(json.dumps(data))
    assert RunRecord.from_json(record.to_json()) == record
    assert record.run_id == data["run_id"]

"""A tournament of a few variants of a tiny run."""

import contextlib
import sys

import pytest
import yaml

from explorer import cli, jobs, specs
from explorer.errors import BadInput, RunCancelled, RunFailed, UnknownModel
from explorer.search import local, queued, successive_halving
from explorer.specs import RunSpec, TuneSpec
from explorer.store import disk, progress


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """A cache that has never seen a Ray head."""
    monkeypatch.setenv("EXPLORER_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


@pytest.fixture
def order(tiny_run):
    """Three contenders: the run as it is, a rate far too low, one that explodes."""
    return {
        "run": tiny_run | {"distill": tiny_run["distill"] | {"learning_rate": 3e-3}},
        "variants": [
            {"distill": {"learning_rate": 1e-7}},
            {"distill": {"learning_rate": 1e30}},
        ],
        "rounds": 2,
    }


def hold(order, root):
    titles = []

    def on_run(title):
        titles.append(title)
        return lambda status: None

    return successive_halving.run_search(
        TuneSpec.parse(order), root, local.train_here(on_run)
    ), titles


def test_the_better_half_goes_on_and_the_lowest_kl_wins(order, store_root):
    """Two of three reach the second round; what failed is last, and not among them."""
    table, titles = hold(order, store_root)

    assert len(titles) == 3 + 2
    assert [len(one.kl) for one in table] == [2, 2, 1]
    assert table[0].kl[-1] < table[1].kl[-1]
    assert (table[2].changes, table[2].kl) == ("learning_rate 1e+30", [None])


def test_a_tournament_goes_on_where_it_stopped(order, store_root, monkeypatch):
    """Its trainings are runs of the store: held again, nothing is trained anew."""
    del order["variants"][1]
    first, _ = hold(order, store_root)
    monkeypatch.setattr(
        "explorer.pipeline.student_stage.train", lambda *told: pytest.fail("trained again")
    )

    again, _ = hold(order, store_root)

    assert [(result.changes, result.kl) for result in again] == [
        (result.changes, result.kl) for result in first
    ]


def test_the_last_round_has_the_whole_budget(order):
    """So the winner's student is the one that its own run would train."""
    spec = TuneSpec.parse(order | {"rounds": 3, "keep": 2})
    assert [spec.tokens_of_round(n) for n in range(3)] == [150, 300, 600]
    assert spec.in_round(spec.run, 2).distill == spec.run.distill
    assert spec.survivors(3) == 2


@pytest.mark.long
def test_the_winner_is_written_as_a_spec(order, store_root, tmp_path, monkeypatch, capsys):
    """The table on the terminal, and a file that `explorer run` takes."""
    del order["variants"][1:]
    path, out = tmp_path / "tune.yaml", tmp_path / "won.yaml"
    path.write_text(yaml.safe_dump(order))
    monkeypatch.setattr(sys, "argv", ["explorer", "tune", str(path), "--out", str(out)])

    with pytest.raises(SystemExit) as stopped:
        cli.main()

    said = capsys.readouterr().out
    assert stopped.value.code == 0
    assert "as it is" in said
    assert "KL at 600 tokens" in said
    assert specs.read_run_or_sweep(out) == RunSpec.parse(order["run"])
    assert disk.load_records(store_root)[1] == []


def test_where_all_fail_it_says_what_to_do(order, store_root):
    """No winner is made up."""
    order["run"]["distill"]["learning_rate"] = 1e30
    order["variants"] = [{"distill": {"learning_rate": 1e29}}]

    with pytest.raises(RunFailed, match="Lower distill.learning_rate"):
        hold(order, store_root)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"variants": [{"distill": {"block_tokens": 32}}]}, "may not change distill.block_tokens"),
        ({"variants": [{"teacher": "other"}]}, "may change distill and student"),
        ({"variants": [{"distill": {"learning_rate": -1}}]}, "learning_rate"),
        ({"variants": []}, "variants"),
    ],
    ids=["fixed", "teacher", "impossible", "none"],
)
def test_an_impossible_tournament_is_refused(order, change, said):
    """Before anything is trained, with the key."""
    with pytest.raises(BadInput, match=said):
        TuneSpec.parse(order | change)


@pytest.fixture
def slots(monkeypatch):
    """A queue that does what it is given at once, here; it keeps what was submitted together."""
    given = []

    def submit(runs, root):
        given.append([one.run_id for one in runs])
        for one in runs:
            with contextlib.suppress(RunFailed):
                local.run(one, root)

    monkeypatch.setattr(jobs, "submit", submit)
    return given


@pytest.mark.long
def test_the_queue_gives_the_same_table(order, store_root, tmp_path, slots):
    """A round's runs are submitted together; what is known already is not submitted again."""
    del order["variants"][1:]
    spec = TuneSpec.parse(order)
    alone, _ = hold(order, tmp_path / "other")

    table = successive_halving.run_search(spec, store_root, queued.train_in_queue)

    assert table == alone
    assert [len(together) for together in slots] == [2, 1]
    assert successive_halving.run_search(spec, store_root, queued.train_in_queue) == table
    assert len(slots) == 2
    assert list(queued.status_table(store_root)["state"]) == ["finished"]


@pytest.mark.long
def test_a_run_that_was_lost_stops_the_tournament_and_resuming_does_it(
    order, store_root, monkeypatch
):
    """A killed run is no reason to call its variant worse: the tournament waits for it."""
    del order["variants"][1:]
    spec = TuneSpec.parse(order | {"rounds": 1})
    (first, second) = successive_halving.round_status(spec, store_root).missing.values()

    def submit(runs, root):
        local.run(first, root)
        disk.open_run(root, second)
        disk.write_status(root, second.run_id, {"state": "running", "host": "gone", "pid": 1})

    monkeypatch.setattr(jobs, "submit", submit)

    with pytest.raises(RunFailed, match=f"{second.run_id} is interrupted"):
        successive_halving.run_search(spec, store_root, queued.train_in_queue)

    (row,) = queued.status_table(store_root).to_dict("records")
    assert (row["state"], second.run_id in row["error"]) == ("failed", True)
    now = successive_halving.round_status(spec, store_root)
    assert (now.title, list(now.missing.values())) == ("round 1 of 1", [second])
    table, titles = hold(order | {"rounds": 1}, store_root)
    assert len(titles) == 1
    assert len(table) == 2


def test_cancelling_stops_the_tournament_and_its_runs(order, store_root, monkeypatch):
    """The runs in the queue are asked to stop too; then both can be done again."""
    spec = TuneSpec.parse(order)
    tune_id = spec.tune_id
    runs = list(successive_halving.round_status(spec, store_root).missing.values())

    def submit(given, root):
        for one in given:
            disk.open_run(root, one)
            progress.Progress(root, one.run_id).write_status(state="running")
        queued.cancel(root, tune_id)

    monkeypatch.setattr(jobs, "submit", submit)

    with pytest.raises(RunCancelled):
        successive_halving.run_search(spec, store_root, queued.train_in_queue)

    assert all(disk.cancel_requested(store_root, one.run_id) for one in runs)
    assert list(queued.status_table(store_root)["state"]) == ["cancelled"]


def test_a_teacher_that_does_not_exist_is_no_variants_fault(order, store_root):
    """The tournament is refused before any run; nobody is called out of it."""
    order["run"]["teacher"] = "/no/such/model"

    with pytest.raises(UnknownModel, match="There is no folder"):
        hold(order, store_root)

    assert len(successive_halving.round_status(TuneSpec.parse(order), store_root).missing) == 3


def test_the_shell_queues_shows_cancels_and_lists_tournaments(
    order, store_root, tmp_path, monkeypatch, capsys
):
    """By the file or by the id that the first command prints."""
    path = tmp_path / "tune.yaml"
    path.write_text(yaml.safe_dump(order))
    given = []
    monkeypatch.setattr(jobs, "submit_command", lambda *told: given.append(told))

    def said(*words):
        monkeypatch.setattr(sys, "argv", ["explorer", *words])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        captured = capsys.readouterr()
        return stopped.value.code, captured.out + captured.err

    tune_id = TuneSpec.parse(order).tune_id
    code, words = said("tune", str(path), "--queue")
    assert (code, f"queued {tune_id}" in words) == (0, True)
    assert [told[0] for told in given] == [tune_id]
    assert given[0][1][-3:] == ["tune", "--queued", tune_id]
    assert "round 1 of 2: 3 of 3 trainings left" in said("tune", tune_id, "--standings")[1]
    assert said("tune", "--standings") == (
        0,
        "No tournaments yet. Start one: explorer tune tune.yaml\n",
    )
    progress.Progress(successive_halving.searches_folder(store_root), tune_id).write_status(
        state="running"
    )
    assert said("cancel", tune_id)[0] == 0
    assert disk.cancel_requested(successive_halving.searches_folder(store_root), tune_id)
    assert "running" in said("tune", "--standings")[1]
    assert said("resume", tune_id)[0] == 0
    assert len(given) == 2
    assert said("tune")[0] == 2
    assert "no tournament 'tune-z'" in said("tune", "tune-z", "--standings")[1]
    assert "round 1 of 2" in said("tune", tune_id[:-3], "--standings")[1]
    assert f"{tune_id} stops at its next step" in said("cancel", tune_id[:-3])[1]
    assert f"{tune_id} stops at its next step" in said("cancel", "--all")[1]
    assert "and not both" in said("cancel", tune_id, "--all")[1]
    assert "Name the run or tournament" in said("cancel")[1]

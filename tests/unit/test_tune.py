"""A tournament of a few variants of a tiny run."""

import sys

import pytest
import yaml

from explorer import cli, specs, store
from explorer.errors import BadInput, RunFailed
from explorer.specs import RunSpec, TuneSpec
from explorer.tune import in_round, tournament


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

    return tournament(TuneSpec.parse(order), root, on_run), titles


def test_the_better_half_goes_on_and_the_lowest_kl_wins(order, store_root):
    """Two of three reach the second round; what failed is last, and not among them."""
    table, titles = hold(order, store_root)

    assert len(titles) == 3 + 2
    assert [len(one.kl) for one in table] == [2, 2, 1]
    assert table[0].kl[-1] < table[1].kl[-1]
    assert (table[2].words, table[2].kl) == ("learning_rate 1e+30", [None])


def test_a_tournament_goes_on_where_it_stopped(order, store_root, monkeypatch):
    """Its trainings are runs of the store: held again, nothing is trained anew."""
    del order["variants"][1]
    first, _ = hold(order, store_root)
    monkeypatch.setattr("explorer.run.teaching.train", lambda *told: pytest.fail("trained again"))

    again, _ = hold(order, store_root)

    assert [(one.words, one.kl) for one in again] == [(one.words, one.kl) for one in first]


def test_the_last_round_has_the_whole_budget(order):
    """So the winner's student is the one that its own run would train."""
    spec = TuneSpec.parse(order | {"rounds": 3, "keep": 2})
    assert [spec.tokens_of_round(n) for n in range(3)] == [150, 300, 600]
    assert in_round(spec, spec.run, 2).distill == spec.run.distill
    assert spec.survivors(3) == 2


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
    assert specs.read(out) == RunSpec.parse(order["run"])
    assert store.records(store_root)[1] == []


def test_where_all_fail_it_says_what_to_do(order, store_root):
    """No winner is made up."""
    order["run"]["distill"]["learning_rate"] = 1e30
    order["variants"] = [{"distill": {"learning_rate": 1e29}}]

    with pytest.raises(RunFailed, match="lower distill.learning_rate"):
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

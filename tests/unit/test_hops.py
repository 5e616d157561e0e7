"""From the Start button to the loss: CONTRIBUTING.md shows the way that a run really takes."""

import inspect
import pkgutil
import re
import tomllib
import traceback
from pathlib import Path

import pytest

from explorer.distill import losses
from explorer.pipeline import stages
from explorer.specs import RunSpec

ROOT = Path(__file__).parents[2]
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
MOST_HOPS = 7


def hops() -> list[str]:
    """The functions of the table, the page's first."""
    return re.findall(r"^\| \d \| `(explorer\.[\w.]+)` \|", CONTRIBUTING, re.M)


def module_of(function: str) -> str:
    return function.rpartition(".")[0]


def layers() -> list[list[str]]:
    """The packages in the order of their imports, the topmost first."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]
    return [names.split(" | ") for names in contracts["contracts"][0]["layers"]]


def test_contributing_states_the_order_of_imports():
    """The order in CONTRIBUTING.md is the contract's, without the entry point."""
    text = re.search(r"^    (cli, pages .*?)\n\n", CONTRIBUTING, re.M | re.S)
    assert text, "CONTRIBUTING.md should state the order of imports"

    stated = [re.findall(r"\w+", names) for names in text[1].split(">")]

    assert [["__main__"], *stated] == layers()


def test_there_are_at_most_seven_hops_and_all_lead_downward():
    """Each function exists, and no package on the way is above the one before it."""
    rank = {name: number for number, names in enumerate(layers()) for name in names}

    ranks = [rank[function.split(".")[1]] for function in hops()]

    assert 5 <= len(hops()) <= MOST_HOPS
    assert ranks == sorted(ranks)
    for function in hops():
        assert callable(pkgutil.resolve_name(function)), function


def test_the_page_submits_and_the_queue_runs_the_command():
    """The first hops cross into another process: the page submits, the job runs the pipeline."""
    begin, submit, run, *_ = map(pkgutil.resolve_name, hops())
    from explorer import jobs, pipeline
    from explorer.cli import run as command
    from explorer.jobs import queue

    assert submit is jobs.submit
    assert "jobs.submit(" in inspect.getsource(begin)
    assert queue.run_command("some-run")[1:4] == ["-m", "explorer", "run"]
    assert "pipeline.run(" in inspect.getsource(command)
    assert pipeline.run is run


def test_a_run_reaches_the_loss_by_the_modules_of_the_table(
    tiny_run, store_root, monkeypatch: pytest.MonkeyPatch
):
    """The call stack inside the loss of a real run holds these modules and no other."""
    stacks: list[list[str]] = []
    plain = losses.forward_kl

    def recorded(*arguments, **options):
        stacks.append([frame.filename for frame in traceback.extract_stack()])
        return plain(*arguments, **options)

    monkeypatch.setitem(losses.DIVERGENCES, "forward_kl", recorded)
    stages.run(RunSpec.parse(tiny_run | {"capability": None}), store_root)

    package = ROOT / "explorer"
    paths = [Path(name) for name in stacks[0] if Path(name).is_relative_to(package)]
    modules = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in paths]
    taken = list(dict.fromkeys([*modules, module_of(hops()[-1])]))
    assert taken == list(dict.fromkeys(map(module_of, hops()[2:])))

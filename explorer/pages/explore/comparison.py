"""What Explore compares: its runs with retention and cost, the pick and the finding."""

import dataclasses
from collections.abc import Mapping

import pandas as pd

from explorer.analysis.cost import unit_cost
from explorer.analysis.pick.decide import Decision
from explorer.catalogue.prices import Price
from explorer.index import Snapshot, keeping
from explorer.pages.explore import pick_card
from explorer.pages.explore.needs import Needs
from explorer.records.rows import compact


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What the page shows of its runs, whatever its axes."""

    runs: pd.DataFrame
    """With the columns of `retention.add_retention` and `unit_cost.add_costs`. All sessions share
    it, so callers must not change it."""
    decided: Decision | None
    finding: str

    @property
    def picked(self) -> str | None:
        """Id of the picked run, if there is one."""
        return self.decided.pick["run_id"] if self.decided and self.decided.pick else None


def compare(
    snapshot: Snapshot,
    finished: pd.DataFrame,
    known_prices: Mapping[str, Price],
    asked: Needs,
    task: str | None,
    against: str,
) -> Comparison:
    """Compare these runs, or take what an earlier run of the page's script has found.

    Most clicks change an axis, and none of this depends on the axes.

    Args:
        snapshot: The store.
        finished: Rows of `snapshot.runs`.
        known_prices: Device name to its price.
        asked: The limits, the objective and the utilisation.
        task: Only this task counts; None takes all.
        against: What ratios compare with: a key of `baseline.CHOICES`.
    """
    prices = frozenset(known_prices.items())
    key = "explore", tuple(finished["run_id"]), prices, asked, task, against

    def anew() -> Comparison:
        index = snapshot.index
        runs = index.with_retention(finished, task)
        runs = compact(unit_cost.add_costs(runs, known_prices, utilisation=asked.utilisation))
        decided = pick_card.decision(index, runs, asked) if task is None else None
        limits = asked.limits
        finding = keeping.finding(
            index, runs, limits.min_retention, limits.confidence, task=task, against=against
        )
        return Comparison(runs, decided, finding)

    return snapshot.remembered(key, anew)

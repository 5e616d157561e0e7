"""What a distillation costs, and how long it takes until it has paid for itself."""

import dataclasses
import math
from collections.abc import Sequence

from explorer.analysis.cost.quantity import Quantity, from_value, unknown
from explorer.analysis.cost.serving_cost import check_dollars
from explorer.analysis.cost.unit_cost import SECONDS_PER_HOUR
from explorer.errors import BadInput
from explorer.records import RunRecord

PARTS = ("teacher pass", "training", "evaluation", "timing")


@dataclasses.dataclass(frozen=True)
class Bill:
    """What a student cost to make, part by part."""

    device_hours: dict[str, Quantity]
    """Part to hours of the device."""
    usd: dict[str, Quantity]
    """Part to dollars."""

    @property
    def total(self) -> Quantity:
        """Dollars of all parts; unknown where one of them is."""
        found = Quantity(0.0)
        for part in self.usd.values():
            found = found + part
        return found


def part_seconds(record: RunRecord) -> dict[str, float | None]:
    """Seconds of the device for each part, as a run measured them.

    A stage that was found finished took no time in that run, so the stage's own result comes
    first and the run's clock second. A teacher in another number format was not taught.
    """
    taught, stages = record.distillation, record.stage_seconds
    as_it_is = 0.0 if record.spec.student is None else None
    return {
        "teacher pass": taught.targets.seconds if taught and taught.targets else as_it_is,
        "training": taught.seconds if taught else stages.get("distil", as_it_is),
        "evaluation": record.capability.seconds if record.capability else stages.get("capability"),
        "timing": record.latency.seconds if record.latency else stages.get("latency"),
    }


def distillation_bill(
    seconds: dict[str, float | None], usd_per_hour: Quantity, *, shared_by: int = 1
) -> Bill:
    """Device-hours and dollars of a distillation.

    Args:
        seconds: Of each of `PARTS`; None where it is not known.
        usd_per_hour: Of the device on which it was done.
        shared_by: Students that learn from the teacher's one pass, each paying its share.

    Raises:
        BadInput: A negative price, or nobody who shares.
    """
    check_dollars(usd_per_hour.value, "device's price per hour")
    if shared_by < 1:
        raise BadInput(f"The teacher's pass is shared by 1 student or more, got {shared_by}.")
    hours = {}
    for part in PARTS:
        known = from_value(seconds.get(part), f"the seconds of the {part}")
        share = shared_by if part == "teacher pass" else 1
        hours[part] = known / SECONDS_PER_HOUR / share
    return Bill(hours, {part: usd_per_hour * one for part, one in hours.items()})


def payback_hours(
    total_usd: Quantity, teacher_usd_per_hour: Quantity, student_usd_per_hour: Quantity
) -> Quantity:
    """Hours of serving until the bill is saved; unknown where nothing is saved.

    Args:
        total_usd: The bill.
        teacher_usd_per_hour: Of the fleet that serves the traffic with the teacher.
        student_usd_per_hour: Of the fleet that serves the same traffic with the student.
    """
    saving = teacher_usd_per_hour - student_usd_per_hour
    if saving.value is None or total_usd.value is None:
        return Quantity(None, missing=tuple(dict.fromkeys((*total_usd.missing, *saving.missing))))
    if saving.value <= 0:
        return unknown("a saving: the student's fleet costs as much as the teacher's")
    if saving.low is not None and saving.low <= 0:
        # The interval reaches a saving of nothing, so the payback has no upper end.
        return Quantity(total_usd.value / saving.value)
    return total_usd / saving


def spent_after(start_usd: Quantity, usd_per_hour: Quantity, hours: Sequence[float]) -> list[float]:
    """Dollars spent after so many hours of serving, a bill at the start included.

    Not a number where the bill or the fleet's cost is not known.
    """
    if start_usd.value is None or usd_per_hour.value is None:
        return [math.nan] * len(hours)
    return [start_usd.value + usd_per_hour.value * after for after in hours]

"""What a distillation costs, and how long it takes to pay for itself."""

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
    """What making a student cost, part by part."""

    device_hours: dict[str, Quantity]
    """Hours of the device by part, see `PARTS`."""
    usd: dict[str, Quantity]
    """Dollars by part."""

    @property
    def total(self) -> Quantity:
        """Dollars of all parts; unknown if one of them is."""
        return sum(self.usd.values(), start=Quantity(0.0))


def part_seconds(record: RunRecord) -> dict[str, float | None]:
    """Device seconds of each part, as measured by a run.

    A cached stage takes no time in this run, so the stage's own result is preferred over the
    run's clock. A teacher in another number format was not trained: its training took 0 s.
    """
    training, stages = record.distillation, record.stage_seconds
    not_trained = 0.0 if record.spec.student is None else None
    return {
        "teacher pass": training.targets.seconds if training and training.targets else not_trained,
        "training": training.seconds if training else stages.get("distil", not_trained),
        "evaluation": record.capability.seconds if record.capability else stages.get("capability"),
        "timing": record.latency.seconds if record.latency else stages.get("latency"),
    }


def distillation_bill(
    seconds: dict[str, float | None], usd_per_hour: Quantity, *, shared_by: int = 1
) -> Bill:
    """Device-hours and dollars of a distillation.

    Args:
        seconds: Seconds of each of `PARTS`; None if unknown.
        usd_per_hour: Price of the device that did the work.
        shared_by: Number of students that share the cost of the teacher's pass.

    Raises:
        BadInput: A negative price, or `shared_by` below 1.
    """
    check_dollars(usd_per_hour.value, "device's price per hour")
    if shared_by < 1:
        raise BadInput(f"The teacher's pass is shared by at least 1 student, got {shared_by}.")
    hours = {}
    for part in PARTS:
        known = from_value(seconds.get(part), f"the seconds of the {part}")
        share = shared_by if part == "teacher pass" else 1
        hours[part] = known / SECONDS_PER_HOUR / share
    return Bill(
        hours, {part: usd_per_hour * hours_of_part for part, hours_of_part in hours.items()}
    )


def payback_hours(
    total_usd: Quantity, teacher_usd_per_hour: Quantity, student_usd_per_hour: Quantity
) -> Quantity:
    """Hours of serving until the savings cover the bill; unknown if there are no savings.

    Args:
        total_usd: The bill.
        teacher_usd_per_hour: Cost of the fleet that serves the traffic with the teacher.
        student_usd_per_hour: Cost of the fleet that serves the same traffic with the student.
    """
    saving = teacher_usd_per_hour - student_usd_per_hour
    if saving.value is None or total_usd.value is None:
        return Quantity(None, missing=tuple(dict.fromkeys((*total_usd.missing, *saving.missing))))
    if saving.value <= 0:
        return unknown("savings: the student's fleet costs as much as the teacher's")
    if saving.low is not None and saving.low <= 0:
        # The savings may be zero, so the payback has no upper end.
        return Quantity(total_usd.value / saving.value, uncertain=True)
    return total_usd / saving


def spent_after(start_usd: Quantity, usd_per_hour: Quantity, hours: Sequence[float]) -> list[float]:
    """Dollars spent after these hours of serving, including the bill at the start.

    NaN if the bill or the cost of the fleet is unknown.
    """
    if start_usd.value is None or usd_per_hour.value is None:
        return [math.nan] * len(hours)
    return [start_usd.value + usd_per_hour.value * after for after in hours]

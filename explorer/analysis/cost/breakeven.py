"""At what traffic a rented device becomes cheaper than an API that charges per token."""

import dataclasses

from explorer.analysis.cost.quantity import Quantity, unknown
from explorer.analysis.cost.serving_cost import Workload, check_dollars
from explorer.analysis.cost.unit_cost import UTILISATION, check_utilisation


@dataclasses.dataclass(frozen=True)
class BreakEven:
    """The traffic at which one rented device and an API cost the same."""

    api_usd_per_request: Quantity
    own_usd_per_request: Quantity
    """On one device that is always busy, the least it can cost."""
    requests_per_hour: Quantity
    """Above this, one device is cheaper than the API; unknown if it never is."""
    utilisation: Quantity
    """The share of the device's throughput that this traffic uses; above 1, the API always wins."""
    verdict: str
    """The comparison as a sentence."""


def api_usd_per_request(
    workload: Workload, usd_per_mtok_input: Quantity, usd_per_mtok_output: Quantity
) -> Quantity:
    """What an API charges for one request.

    Raises:
        BadInput: A negative price.
    """
    for price, kind in ((usd_per_mtok_input, "input"), (usd_per_mtok_output, "output")):
        check_dollars(price.value, f"API's price per million {kind} tokens")
    return usd_per_mtok_input * (workload.input_tokens / 1e6) + usd_per_mtok_output * (
        workload.output_tokens / 1e6
    )


def break_even(
    api_usd: Quantity,
    usd_per_hour: Quantity,
    requests_per_s: Quantity,
    utilisation: float = UTILISATION,
) -> BreakEven:
    """The traffic at which one device costs as much as the API.

    Args:
        api_usd: Cost of one request at the API.
        usd_per_hour: Price of one device, idle or busy.
        requests_per_s: Requests that the device can finish.
        utilisation: Planned share of that throughput; more traffic needs a second device.

    Raises:
        BadInput: A negative price, or a utilisation outside (0, 1].
    """
    check_utilisation(utilisation)
    check_dollars(usd_per_hour.value, "device's price per hour")
    most_per_hour = requests_per_s * 3600
    own = usd_per_hour / most_per_hour
    if api_usd.value == 0:
        free = unknown("an API with a price: this one is free")
        return BreakEven(api_usd, own, free, free, "The API is free, so a device never pays off.")
    needed = usd_per_hour / api_usd
    share = needed / most_per_hour
    if share.value is None:
        return BreakEven(
            api_usd, own, needed, share, f"Not known without {_joined(share.missing)}."
        )
    if share.value > 1:
        never = unknown("a faster device: even fully used, this one costs more than the API")
        return BreakEven(
            api_usd,
            own,
            never,
            share,
            "The API is cheaper at any traffic: the device would have to be "
            f"{share.value:.3g} times as fast, even if fully used.",
        )
    verdict = (
        f"The device is cheaper above {needed.value:,.0f} requests an hour, which is "
        f"{100 * share.value:.2g} % of its throughput."
    )
    if share.value > utilisation:
        verdict += (
            f" That is above the planned utilisation of {100 * utilisation:.0f} %, so the API is "
            "cheaper under this plan."
        )
    return BreakEven(api_usd, own, needed, share, verdict)


def _joined(missing: tuple[str, ...]) -> str:
    return " and ".join(missing) or "what is missing"

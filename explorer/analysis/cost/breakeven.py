"""Whether to rent a device or to pay an API by the token: from which traffic on."""

import dataclasses

from explorer.analysis.cost.quantity import Quantity, unknown
from explorer.analysis.cost.serving_cost import Workload, check_dollars
from explorer.analysis.cost.unit_cost import UTILISATION, check_utilisation


@dataclasses.dataclass(frozen=True)
class BreakEven:
    """Where one rented device and an API cost the same."""

    api_usd_per_request: Quantity
    own_usd_per_request: Quantity
    """On one device that is always busy: the least it can be."""
    requests_per_hour: Quantity
    """From here on one device is cheaper than the API; unknown where it never is."""
    utilisation: Quantity
    """The share of the device's throughput at which that is; above 1 is never."""
    verdict: str
    """In words."""


def api_usd_per_request(
    workload: Workload, usd_per_mtok_input: Quantity, usd_per_mtok_output: Quantity
) -> Quantity:
    """What an API asks for one request.

    Raises:
        BadInput: A negative price.
    """
    for price, what in ((usd_per_mtok_input, "input"), (usd_per_mtok_output, "output")):
        check_dollars(price.value, f"API's price per million {what} tokens")
    return usd_per_mtok_input * (workload.input_tokens / 1e6) + usd_per_mtok_output * (
        workload.output_tokens / 1e6
    )


def break_even(
    api_usd: Quantity,
    usd_per_hour: Quantity,
    requests_per_s: Quantity,
    utilisation: float = UTILISATION,
) -> BreakEven:
    """The traffic at which one device costs what the API asks for it.

    Args:
        api_usd: Of one request.
        usd_per_hour: Of one device, whether it is used or not.
        requests_per_s: That the device can finish.
        utilisation: Share of it that is planned with: more traffic needs a second device.

    Raises:
        BadInput: A utilisation or price that cannot be.
    """
    check_utilisation(utilisation)
    check_dollars(usd_per_hour.value, "device's price per hour")
    most_per_hour = requests_per_s * 3600
    own = usd_per_hour / most_per_hour
    if api_usd.value == 0:
        free = unknown("a price: the API is free, so nothing is cheaper")
        return BreakEven(api_usd, own, free, free, "The API is free: a device never pays.")
    needed = usd_per_hour / api_usd
    share = needed / most_per_hour
    if share.value is None:
        return BreakEven(api_usd, own, needed, share, f"Not known without {_all(share.missing)}.")
    if share.value > 1:
        never = unknown("a device that is fast enough: even fully used it costs more than the API")
        return BreakEven(
            api_usd,
            own,
            never,
            share,
            "The API is cheaper at any traffic: fully used, the device would have to be "
            f"{share.value:.3g} times as fast.",
        )
    verdict = (
        f"From {needed.value:,.0f} requests an hour on the device is cheaper: when it is used for "
        f"{100 * share.value:.2g} % of what it can do."
    )
    if share.value > utilisation:
        verdict += (
            f" That is more than the {100 * utilisation:.0f} % planned with, so the API is "
            "cheaper as planned."
        )
    return BreakEven(api_usd, own, needed, share, verdict)


def _all(missing: tuple[str, ...]) -> str:
    return " and ".join(missing) or "what is missing"

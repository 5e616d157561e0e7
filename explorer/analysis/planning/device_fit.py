"""Which devices hold a model and what they cost per hour, estimated from sizes and prices."""

import math
import re
from collections.abc import Mapping
from typing import Any

import pandas as pd

from explorer.analysis.cost import unit_cost
from explorer.analysis.planning import roofline
from explorer.analysis.planning.roofline import CEILING, Efficiency
from explorer.errors import BadInput
from explorer.records.rows import row_dicts

USABLE_MEMORY = 0.9
"""Share of a device's memory for weights and cache; also vLLM's default."""
COUNTS = (1, 2, 4, 8, 16)
"""Numbers of devices that can share a model; heads and layers divide by these."""
COLUMNS = [
    "model",
    "hardware",
    "bits",
    "num_devices",
    "weights_gb",
    "kv_gb",
    "memory_gb",
    "usd_per_hour",
    "usd_per_hour_high",
    "offer",
    "date_seen",
    "price_url",
    "ttft_ms",
    "tpot_ms",
    "tokens_per_s",
    "usd_per_mtok",
    "utilisation",
    "prompt_tokens",
    "output_tokens",
    "missing",
]


EXAMPLE_MODELS = ("DeepSeek-R1-Distill-Llama-70B", "DeepSeek-R1-Distill-Qwen-7B")
EXAMPLE_DEVICES = ("RTX 4090", "H100 SXM")
"""Defaults: a 70B and a 7B student, on a consumer card and on a data-centre GPU."""
PROMPT_TOKENS, OUTPUT_TOKENS = 512, 128
"""Default lengths of a request."""


def device_fit(
    models: pd.DataFrame,
    devices: pd.DataFrame,
    prices: pd.DataFrame,
    *,
    bits: tuple[int, ...] = (16, 8, 4),
    concurrency: int = 1,
    prompt_tokens: int = PROMPT_TOKENS,
    output_tokens: int = OUTPUT_TOKENS,
    utilisation: float = unit_cost.UTILISATION,
    efficiency: Efficiency = CEILING,
) -> pd.DataFrame:
    """One row per model, device and precision: how many devices, their cost, their speed.

    Args:
        models: `model`, `params_b`, `active_params_b` (billions), `kv_bytes_per_token`
            (not counted if missing).
        devices: Rows of hardware_specs.csv.
        prices: Rows of the price book; a device may have several offers.
        bits: Bits of a weight: 16, 8 or 4.
        concurrency: Requests in memory at once.
        prompt_tokens: Prompt length of each request.
        output_tokens: Answer length of each request.
        utilisation: Share of the paid hours in which the devices are busy.
        efficiency: Share of the devices' peaks that is reached.

    Returns:
        `num_devices` is the smallest of `COUNTS` that holds weights and cache; missing if 16
        devices do not. `usd_per_hour` and `usd_per_hour_high` are the cheapest and the dearest
        offer for that many. `usd_per_mtok` is `unit_cost.usd_per_mtok` of the estimated
        throughput. `missing` names the unknown inputs.

    Raises:
        BadInput: A length or concurrency below 1, or an impossible utilisation.
    """
    for name, value in {
        "concurrency": concurrency,
        "prompt": prompt_tokens,
        "answer": output_tokens,
    }.items():
        if value < 1:
            raise BadInput(f"The {name} must be 1 or more, got {value}.")
    unit_cost.check_utilisation(utilisation)
    context = prompt_tokens + output_tokens
    offers = {str(name): row_dicts(group) for name, group in prices.groupby("hardware")}
    rows = []
    for model in row_dicts(models):
        for device in row_dicts(devices):
            for precision in bits:
                row = _held(model, device, precision, concurrency * context) | {
                    "utilisation": utilisation,
                    "prompt_tokens": prompt_tokens,
                    "output_tokens": output_tokens,
                }
                if row["num_devices"] is not None:
                    row |= _price(row["num_devices"], offers.get(device["hardware"], []))
                    timed = roofline.estimated_speed(
                        num_parameters=1e9 * model["params_b"],
                        num_active_parameters=1e9 * _active(model),
                        kv_bytes=_kv(model) or 0.0,
                        bits=precision,
                        prompt_tokens=prompt_tokens,
                        context_tokens=context,
                        concurrency=concurrency,
                        tflops=device["dense_bf16_tflops"],
                        bandwidth_gb_s=device["mem_bandwidth_gb_s"],
                        num_devices=row["num_devices"],
                        efficiency=efficiency,
                    )
                    row |= {
                        "ttft_ms": timed.ttft_ms,
                        "tpot_ms": timed.tpot_ms,
                        "tokens_per_s": timed.tokens_per_s,
                    }
                    if row.get("usd_per_hour") is not None:
                        # Prompts are prefilled one after the other.
                        request_s = (
                            timed.ttft_ms * concurrency + timed.tpot_ms * (output_tokens - 1)
                        ) / 1e3
                        row["usd_per_mtok"] = unit_cost.usd_per_mtok(
                            row["usd_per_hour"],
                            concurrency * output_tokens / request_s,
                            utilisation,
                        )
                    else:
                        row["missing"].append(f"no price for {device['hardware']}")
                row["missing"] = "; ".join(row["missing"])
                rows.append(row)
    return pd.DataFrame(rows, columns=COLUMNS)


def cheapest_devices(fitted: pd.DataFrame, model: str, bits: int) -> pd.Series | None:
    """The cheapest devices that hold a model at a precision; None if none has a price."""
    rows = fitted[(fitted["model"] == model) & (fitted["bits"] == bits)]
    rows = rows.dropna(subset=["usd_per_hour"])
    return None if rows.empty else rows.sort_values("usd_per_hour", kind="stable").iloc[0]


def sized_models(models: pd.DataFrame, shapes: pd.DataFrame) -> pd.DataFrame:
    """The catalogue's models of known size, in the columns that `device_fit` takes.

    Args:
        models: The catalogue's table of models.
        shapes: The catalogue's table of shapes.
    """
    known = models.dropna(subset=["params_total_b"]).merge(shapes, on="model", how="left")
    kv = [
        None if math.isnan(layers) else roofline.kv_bytes_per_token(int(layers), int(values))
        for layers, values in zip(known["num_layers"], known["kv_values_per_layer"], strict=True)
    ]
    return pd.DataFrame(
        {
            "model": known["model"],
            "params_b": known["params_total_b"],
            "active_params_b": known["params_active_b"],
            "kv_bytes_per_token": pd.Series(kv, dtype=float),
        }
    )


def models_named(names: list[str], sized: pd.DataFrame) -> pd.DataFrame:
    """The models of these names; `7B` or `0.5B` is a dense model of that size.

    Args:
        names: Names in the catalogue, or sizes.
        sized: As from `sized_models`.

    Raises:
        BadInput: A name that is neither in the catalogue nor a size.
    """
    rows = []
    for name in names:
        known = sized[sized["model"].str.lower() == name.strip().lower()]
        size = re.fullmatch(r"(\d+(?:\.\d+)?)\s*[bB]", name.strip())
        if len(known):
            rows.append(known.iloc[0].to_dict())
        elif size and float(size[1]) > 0:
            rows.append({"model": name.strip(), "params_b": float(size[1])})
        else:
            raise BadInput(
                f"{name!r} is neither a model in the catalogue with a published size nor a size "
                "such as 7B. `explorer published` lists the models."
            )
    columns = ["model", "params_b", "active_params_b", "kv_bytes_per_token"]
    frame = pd.DataFrame(rows, columns=columns)
    return frame.astype(dict.fromkeys(columns[1:], float)).drop_duplicates("model")


def devices_named(names: list[str], specs: pd.DataFrame) -> pd.DataFrame:
    """The devices of these names.

    Args:
        names: Names as in hardware_specs.csv; case does not matter.
        specs: The catalogue's table of devices.

    Raises:
        BadInput: An unknown device; the message lists the known ones.
    """
    known = {str(name).lower(): name for name in specs["hardware"]}
    for name in names:
        if name.strip().lower() not in known:
            raise BadInput(
                f"The catalogue has no device {name!r}. Choose {', '.join(specs['hardware'])}."
            )
    wanted = [known[name.strip().lower()] for name in names]
    return specs.set_index("hardware").loc[list(dict.fromkeys(wanted))].reset_index()


def _held(
    model: Mapping[Any, Any], device: Mapping[Any, Any], bits: int, num_tokens: int
) -> dict[str, Any]:
    """How many devices hold the weights and the cache of `num_tokens` tokens."""
    weights_gb = roofline.weight_bytes(1e9 * model["params_b"], bits) / 1e9
    kv = _kv(model)
    kv_gb = None if kv is None else kv * num_tokens / 1e9
    needed_gb = weights_gb + (kv_gb or 0.0)
    usable_gb = USABLE_MEMORY * device["memory_gb"]
    count = next((n for n in COUNTS if n * usable_gb >= needed_gb), None)
    missing = []
    if kv_gb is None:
        missing.append("the KV cache of this model is unknown, so only weights are counted")
    if count is None:
        missing.append(f"more than {COUNTS[-1]} devices would be needed")
    return {
        "model": model["model"],
        "hardware": device["hardware"],
        "bits": bits,
        "num_devices": count,
        "weights_gb": weights_gb,
        "kv_gb": kv_gb,
        "memory_gb": needed_gb,
        "missing": missing,
    }


def _price(num_devices: int, offers: list[dict[Any, Any]]) -> dict[str, Any]:
    """The cheapest and the dearest offer for these devices; bundles are rented whole."""
    if not offers:
        return {}
    # A bundle larger than needed counts only if nothing smaller is offered.
    largest = max(num_devices, min(offer["min_units"] for offer in offers))
    rents = [
        (
            math.ceil(num_devices / offer["min_units"])
            * offer["min_units"]
            * offer["usd_per_unit_hour"],
            place,
        )
        for place, offer in enumerate(offers)
        if offer["min_units"] <= largest
    ]
    cheapest = offers[min(rents)[1]]
    return {
        "usd_per_hour": min(rents)[0],
        "usd_per_hour_high": max(rents)[0],
        "offer": f"{cheapest['provider']} {cheapest['tier']}",
        "date_seen": cheapest["date_seen"],
        "price_url": cheapest["source_url"],
    }


def _kv(model: Mapping[Any, Any]) -> float | None:
    value = model.get("kv_bytes_per_token")
    return None if value is None or math.isnan(value) else float(value)


def _active(model: Mapping[Any, Any]) -> float:
    """Billions of parameters active per token; all of them unless stated otherwise."""
    value = model.get("active_params_b")
    return float(model["params_b"] if value is None or math.isnan(value) else value)

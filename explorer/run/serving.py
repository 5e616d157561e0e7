"""A model behind an endpoint, asked and timed; its tokens are priced before and counted after."""

import dataclasses
import logging
from typing import Any, cast

from lm_eval.api.task import Task

from explorer.catalogue import api_prices
from explorer.errors import BadInput
from explorer.measure import api_lm, capability
from explorer.measure.api_cost import Spent, estimate
from explorer.measure.api_lm import ApiLM
from explorer.measure.load import time_endpoint
from explorer.models import endpoint
from explorer.models.loading import Loaded, load_tokenizer
from explorer.records import Capability
from explorer.run import measuring, state
from explorer.run.state import Run
from explorer.specs import ApiSpec, CapabilitySpec

log = logging.getLogger("explorer")


def ask(run: Run, where: endpoint.Endpoint) -> None:
    """A model that another process serves: its answers and its times, by what it says."""
    # Its price is not this machine's.
    served = {"device": "endpoint", "device_name": f"endpoint {where.host}", "driver": None}
    run.environment = run.environment.model_copy(update=served)
    if run.spec.latency and where.speaks_anthropic:
        raise BadInput(
            "Anthropic's messages are asked, not timed. Write latency: null, or name its endpoint "
            "of chat completions."
        )
    if run.spec.capability:
        run.parts["capability"] = _by_api(run, where, run.spec.capability)
    run.stage = "latency"
    if run.spec.latency:
        with run.timed("latency"):
            run.parts["latency"] = time_endpoint(where, run.spec.latency, run.progress)


@dataclasses.dataclass(frozen=True)
class _Served:
    """What an evaluation wants to know of a model whose weights nobody sees."""

    chat_template: str | None = None
    dtype: None = None

    def num_parameters(self) -> None:
        """Nobody says."""


def _by_api(run: Run, where: endpoint.Endpoint, spec: CapabilitySpec) -> Capability:
    """Ask an endpoint the tasks, with an eye on what that costs."""
    run.stage = "capability"
    api = spec.api or ApiSpec()
    if where.is_chat and not spec.apply_chat_template:
        raise BadInput(
            f"{where.url} takes chats. Write apply_chat_template: true into the spec's capability."
        )
    endpoint.key_of(where, api.key_variable)
    price = api_prices.of_endpoint(run.root, where.url, where.model)
    spent = Spent(run.folder / "capability" / "usage.jsonl")

    def before(lm: ApiLM, tasks: list[tuple[Task, list[int]]]) -> None:
        ahead = estimate(tasks, lm, spec)
        log.info("%s", api_prices.ahead_in_words(ahead, price))
        if api.max_usd is None:
            return
        if price is None:
            raise BadInput(
                f"capability.api.max_usd is set, but no price of {where.model} at {where.host} is "
                f"known. Write it into {run.root / api_prices.OVERRIDES} as "
                f"{where.host}/{where.model}, or remove max_usd."
            )
        most = price.of(ahead)
        if most > api.max_usd:
            raise BadInput(
                f"{api_prices.ahead_in_words(ahead, price)} That may be more than "
                f"capability.api.max_usd, {api.max_usd:g}: nothing was asked. Lower limit, or "
                "raise max_usd."
            )

    answers, why_not = api_lm.output_types(where, api)
    # Prompts are filled in by the server's own template, or by the tokenizer's.
    template = "the endpoint's" if where.is_chat else None
    if spec.apply_chat_template and not where.is_chat and api.tokenizer:
        template = load_tokenizer(api.tokenizer).chat_template
    served = _Served(template)
    scores = measuring.evaluate(
        run,
        Loaded(run.spec.teacher, cast(Any, served), cast(Any, served)),
        # A server says nothing by which its weights could be told apart.
        state.key({"endpoint": where.url, "model": where.model, "api": api.decides()}),
        capability.BackEnd(
            api_lm.kind(where, api),
            api_lm.VERSION,
            lambda on_progress: api_lm.make(where, api, spent.add, on_progress),
            answers,
            why_not,
            before,
        ),
    )
    return scores.model_copy(update={"usage": spent.total()})

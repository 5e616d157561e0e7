"""A model behind an endpoint, asked and timed; its tokens are priced before and counted after."""

import dataclasses
import logging
from pathlib import Path
from typing import Any, cast

from explorer.catalogue import api_prices
from explorer.errors import BadInput
from explorer.evaluate import capability
from explorer.evaluate.backends import api_lm
from explorer.evaluate.backends.api_cost import Spent
from explorer.latency.load_test import time_endpoint
from explorer.models import endpoint
from explorer.models.loading import Loaded, load_tokenizer
from explorer.pipeline import endpoint_teacher, evaluation_stage, state
from explorer.pipeline.state import Run
from explorer.records import Capability, Usage
from explorer.specs import ApiSpec, RunSpec
from explorer.store import disk

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
        # Before anything is loaded and counted.
        endpoint.key_of(where, (run.spec.capability.api or ApiSpec()).key_variable)
        run.parts["capability"] = _by_api(run)
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


def ahead(spec: RunSpec, root: Path) -> str:
    """What a run will ask of an endpoint, in a sentence: its tasks, or its student's targets.

    Raises:
        ExplorerError: They cannot be asked; the message says why.
    """
    if spec.student is not None:
        said = endpoint_teacher.ahead(spec, root)
        return f"The targets of all its students: {said}" if said else "No targets are asked for."
    if spec.capability is None:
        return "Nothing is tested, so nothing is counted."
    asked = _Asked.of(spec, root)
    folder = disk.output_folder(root, spec.run_id) / disk.CAPABILITY
    usage = capability.ahead(
        asked.model,
        spec.capability,
        folder,
        fingerprint=asked.fingerprint,
        back_end=asked.back_end,
    )
    return api_prices.ahead_in_words(usage, asked.price)


def _by_api(run: Run) -> Capability:
    """Ask an endpoint the tasks, with an eye on what that costs."""
    run.stage = "capability"
    asked = _Asked.of(run.spec, run.root)
    scores = evaluation_stage.evaluate(run, asked.model, asked.fingerprint, asked.back_end)
    return scores.model_copy(update={"usage": asked.spent.total()})


@dataclasses.dataclass(frozen=True)
class _Asked:
    """An endpoint as an evaluation sees it."""

    model: Loaded
    fingerprint: str
    back_end: capability.BackEnd
    price: api_prices.ApiPrice | None
    spent: Spent

    @classmethod
    def of(cls, spec: RunSpec, root: Path) -> "_Asked":
        """Refuses what cannot be asked: a chat without its template."""
        assert spec.capability is not None, "skipped otherwise"
        where, api = endpoint.parse(spec.teacher), spec.capability.api or ApiSpec()
        if where.is_chat and not spec.capability.apply_chat_template:
            raise BadInput(
                f"{where.url} takes chats. Write apply_chat_template: true into the spec's "
                "capability."
            )
        price = api_prices.of_endpoint(root, where.url, where.model)
        folder = disk.output_folder(root, spec.run_id) / disk.CAPABILITY
        spent = Spent(folder / "usage.jsonl")
        # Prompts are filled in by the server's own template, or by the tokenizer's.
        template = "the endpoint's" if where.is_chat else None
        if spec.capability.apply_chat_template and not where.is_chat and api.tokenizer:
            template = load_tokenizer(api.tokenizer).chat_template
        served = cast(Any, _Served(template))
        answers, why_not = api_lm.output_types(where, api)

        def before(usage: Usage) -> None:
            log.info("%s", api_prices.ahead_in_words(usage, price))
            api_prices.affordable(usage, price, api, where, root)

        return cls(
            Loaded(spec.teacher, served, served),
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
            price,
            spent,
        )

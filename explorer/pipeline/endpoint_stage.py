"""A model behind an endpoint, evaluated and timed: priced before, its tokens counted after."""

import dataclasses
import logging
from contextlib import nullcontext
from pathlib import Path
from typing import Any, cast

from explorer.catalogue import api_prices
from explorer.errors import BadInput
from explorer.evaluate import capability
from explorer.evaluate.backends import api_lm
from explorer.evaluate.backends.api_cost import UsageLog
from explorer.evaluate.backends.backend import Backend
from explorer.evaluate.task_plan import plan_tasks
from explorer.latency.load_test import time_endpoint
from explorer.models import endpoint
from explorer.models.endpoint import Endpoint
from explorer.models.loading import Loaded, load_tokenizer
from explorer.pipeline import endpoint_teacher, evaluation_stage
from explorer.pipeline.context import RunContext, stage_key
from explorer.records import Usage
from explorer.specs import ApiSpec, CapabilitySpec, RunSpec
from explorer.store import disk

log = logging.getLogger("explorer")


def measure(run: RunContext, where: Endpoint) -> None:
    """Evaluate and time a model that another process serves.

    Raises:
        BadInput: The endpoint cannot be timed, cannot answer the tasks, or wants a key.
    """
    # Named after the host, so that no price of this machine is applied to it.
    device = {"device": "endpoint", "device_name": f"endpoint {where.host}", "driver": None}
    run.environment = run.environment.model_copy(update=device)
    key_variable = endpoint_teacher.api_settings(run.spec).key_variable
    if run.spec.capability:
        run.stage = "capability"
        api = _ApiEvaluation.of(run.spec, run.root)
        scores = evaluation_stage.evaluate(run, api.model, api.fingerprint, api.backend)
        usage = api.spent.total()
        run.record_parts["capability"] = scores.model_copy(update={"usage": usage})
    run.stage = "latency"
    if run.spec.latency:
        alone = evaluation_stage.alone_on_device(run) if where.is_local else nullcontext()
        with alone, run.timed("latency"):
            run.record_parts["latency"] = time_endpoint(
                where, run.spec.latency, run.progress, key_variable=key_variable
            )


def check_can_answer(spec: RunSpec) -> None:
    """Refuse an evaluation that the endpoint cannot take, before any request is sent.

    Raises:
        BadInput: Its kind is another, or the spec has no chat template.
    """
    assert spec.capability is not None, "skipped otherwise"
    where, api = endpoint.parse_endpoint(spec.teacher), endpoint_teacher.api_settings(spec)
    api_lm.lm_eval_model_name(where, api)
    _check_template(where, spec.capability)


def _check_template(where: Endpoint, spec: CapabilitySpec) -> None:
    if where.is_chat and not spec.apply_chat_template:
        raise BadInput(
            f"{where.url} takes chats. Write apply_chat_template: true in the spec's capability."
        )


def check_requests(spec: RunSpec, root: Path) -> None:
    """Refuse tasks that the endpoint cannot answer, or not for what may be spent.

    Raises:
        ExplorerError: The message says why. No request was sent.
    """
    assert spec.capability is not None, "skipped otherwise"
    api = _ApiEvaluation.of(spec, root)
    folder = disk.output_folder(root, spec.run_id) / disk.CAPABILITY
    if spec.capability.api and spec.capability.api.max_usd:
        assert api.backend.check_usage is not None, "an API's back end has it"
        api.backend.check_usage(_usage_ahead(spec, api, folder))
    else:
        plan_tasks(api.model, spec.capability, folder, api.fingerprint, api.backend)


def _usage_ahead(spec: RunSpec, api: "_ApiEvaluation", folder: Path) -> Usage:
    assert spec.capability is not None, "skipped otherwise"
    return capability.estimate_usage(
        api.model, spec.capability, folder, fingerprint=api.fingerprint, backend=api.backend
    )


def describe_requests(spec: RunSpec, root: Path) -> str:
    """What a run will send to an endpoint and what that costs, in a sentence.

    For a student these are its teacher's targets, otherwise the tasks.

    Raises:
        ExplorerError: The endpoint cannot answer them; the message says why.
    """
    if spec.student is not None:
        targets = endpoint_teacher.describe_requests(spec, root)
        return f"Targets of all students: {targets}" if targets else "No targets are needed."
    if spec.capability is None:
        return "No tasks to evaluate, so no tokens to count."
    api = _ApiEvaluation.of(spec, root)
    folder = disk.output_folder(root, spec.run_id) / disk.CAPABILITY
    return api_prices.estimate_message(_usage_ahead(spec, api, folder), api.price)


@dataclasses.dataclass(frozen=True)
class _RemoteModel:
    """What an evaluation needs of a model whose weights are elsewhere."""

    chat_template: str | None = None
    dtype: None = None

    def num_parameters(self) -> None:
        """Unknown."""


@dataclasses.dataclass(frozen=True)
class _ApiEvaluation:
    """An endpoint as an evaluation needs it."""

    model: Loaded
    fingerprint: str
    backend: Backend
    price: api_prices.ApiPrice | None
    spent: UsageLog

    @classmethod
    def of(cls, spec: RunSpec, root: Path) -> "_ApiEvaluation":
        """Read it off a run's spec.

        Raises:
            BadInput: A chat endpoint, and the spec does not apply a chat template.
        """
        assert spec.capability is not None, "skipped otherwise"
        where, api = endpoint.parse_endpoint(spec.teacher), spec.capability.api or ApiSpec()
        _check_template(where, spec.capability)
        price = api_prices.endpoint_price(root, where.url, where.model)
        folder = disk.output_folder(root, spec.run_id) / disk.CAPABILITY
        spent = UsageLog(folder / "usage.jsonl")
        # The server applies its own template to chats, the tokenizer its own to prompts.
        template = "the endpoint's" if where.is_chat else None
        if spec.capability.apply_chat_template and not where.is_chat and api.tokenizer:
            template = load_tokenizer(api.tokenizer).chat_template
        model = cast(Any, _RemoteModel(template))
        output_types, why_not = api_lm.supported_output_types(where, api)

        def before(usage: Usage) -> None:
            log.info("%s", api_prices.estimate_message(usage, price))
            api_prices.refuse_above_budget(usage, api, where, root)

        return cls(
            Loaded(spec.teacher, model, model),
            # Nothing a server says identifies its weights, so its address and name have to do.
            stage_key({"endpoint": where.url, "model": where.model, "api": api.answer_settings()}),
            Backend(
                api_lm.lm_eval_model_name(where, api),
                api_lm.VERSION,
                lambda on_progress: api_lm.make_api_lm(where, api, spent.add, on_progress),
                output_types,
                why_not,
                before,
            ),
            price,
            spent,
        )

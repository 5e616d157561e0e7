"""What a model is asked, and how it is timed."""

from typing import Any, Literal, Self

import pydantic
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from explorer.specs.base import Spec


class ApiSpec(Spec):
    """How a model behind an endpoint is asked: lm-eval's options of its API models."""

    kind: Literal[
        "auto",
        "local-completions",
        "local-chat-completions",
        "openai-completions",
        "openai-chat-completions",
        "anthropic-chat-completions",
    ] = "auto"
    """lm-eval's model class; auto takes it from the endpoint's address."""
    tokenizer: str | None = None
    """The model's tokenizer: a hub id, a folder, starter. Needed to score given answers."""
    num_concurrent: PositiveInt = 4
    """Requests under way at the same time."""
    max_retries: PositiveInt = 6
    """Attempts at each request, later each time."""
    timeout_s: PositiveFloat = 300.0
    """A server that is silent for so long has failed the attempt."""
    max_length: PositiveInt = 4096
    """Tokens of prompt and answer; longer prompts lose their beginning."""
    max_gen_toks: PositiveInt = 256
    """Tokens of an answer where the task does not say; reasoning counts."""
    think_end_token: str | None = None
    """What ends a model's thoughts in its text; what stands before it is no answer."""
    key_variable: str | None = Field(None, pattern=r"^[A-Z][A-Z0-9_]{0,60}$")
    """NAME of the environment variable with the key; the key itself is never written down."""
    max_usd: PositiveFloat | None = None
    """Ask nothing when the estimate is above so many dollars."""

    def decides(self) -> dict[str, Any]:
        """What decides the answers; how fast and how dear they are does not."""
        apart = {"num_concurrent", "max_retries", "timeout_s", "key_variable", "max_usd"}
        return self.model_dump(mode="json", exclude=apart)


class CapabilitySpec(Spec):
    """What lm-evaluation-harness is asked."""

    added = {"api": None}

    tasks: tuple[str, ...] = Field(("starter",), min_length=1)
    """Names of lm-eval tasks or groups; `starter` is the suite that ships with us."""
    include_path: str | None = None
    """A folder with more lm-eval tasks."""
    limit: PositiveInt | None = None
    """Documents per task: a seeded, stratified sample, the same for every model. None takes all."""
    num_fewshot: NonNegativeInt | None = None
    """Examples before each question; None leaves it to the task."""
    apply_chat_template: bool = False
    """Whether prompts go through the model's chat template."""
    batch_size: PositiveInt = 16
    """Requests in one forward pass."""
    seed: NonNegativeInt = 0
    """Which documents a limit picks."""
    api: ApiSpec | None = None
    """How an endpoint is asked; None takes the defaults, and says nothing of other models."""


WORKLOADS = {"chat": (512, 128), "summarise": (2048, 256), "autocomplete": (256, 32)}
"""Workloads by name: tokens of the prompt and of the answer."""


class LatencySpec(Spec):
    """How a model is timed: alone, student and teacher in turns."""

    added = {
        "workload": None,
        "runtime": "eager",
        "concurrency": (),
        "request_rates": (),
        "requests": 30,
        "timeout_s": 60.0,
    }

    prompt_tokens: PositiveInt = 128
    """Length of the prompt."""
    output_tokens: int = Field(64, ge=2)
    """Length of the answer; always this long."""
    batch_size: PositiveInt = 1
    """Sequences answered together."""
    warmup: NonNegativeInt = 2
    """Turns that are not counted."""
    repeats: int = Field(10, ge=2)
    """Counted turns of each model."""
    seed: NonNegativeInt = 0
    """The prompt's tokens."""
    workload: Literal["chat", "summarise", "autocomplete"] | None = None
    """A named shape that sets both lengths: chat 512 + 128 tokens, summarise 2048 + 256,
    autocomplete 256 + 32. None takes the lengths as they are written."""
    runtime: Literal["eager", "compiled"] = "eager"
    """How transformers runs a model: as it is, or compiled with a static cache. GGUF files run in
    llama.cpp and endpoints run themselves, whatever is written here."""
    concurrency: tuple[PositiveInt, ...] = ()
    """Levels of a closed loop, ascending: sequences in one batch on this machine's device, clients
    that each wait for their answer at an endpoint. A sweep ends early where the device is full."""
    request_rates: tuple[PositiveFloat, ...] = ()
    """Levels of an open loop, in requests a second that arrive at random (Poisson), ascending.
    Endpoints only."""
    requests: int = Field(30, ge=3)
    """Counted requests at each level of an endpoint; at least three a client are made."""
    timeout_s: PositiveFloat = 60.0
    """An endpoint that is silent for so long has failed the request."""

    @pydantic.model_validator(mode="before")
    @classmethod
    def _lengths_of_the_workload(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("workload") in WORKLOADS:
            prompt_tokens, output_tokens = WORKLOADS[data["workload"]]
            return {"prompt_tokens": prompt_tokens, "output_tokens": output_tokens, **data}
        return data

    @pydantic.model_validator(mode="after")
    def _fits_together(self) -> Self:
        lengths = (self.prompt_tokens, self.output_tokens)
        if self.workload is not None and lengths != WORKLOADS[self.workload]:
            wanted = " + ".join(str(length) for length in WORKLOADS[self.workload])
            raise ValueError(
                f"workload {self.workload} has {wanted} tokens, got {lengths[0]} + {lengths[1]}; "
                "leave prompt_tokens and output_tokens out, or leave workload out"
            )
        for name in ("concurrency", "request_rates"):
            levels = getattr(self, name)
            if list(levels) != sorted(set(levels)):
                raise ValueError(f"{name} should rise from level to level, got {list(levels)}")
        return self

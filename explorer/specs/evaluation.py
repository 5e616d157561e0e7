"""How a model is evaluated: lm-eval tasks, questions to an API, latency."""

from typing import Any, Literal, Self

import pydantic
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from explorer.specs.base import Added, Spec
from explorer.specs.serve import ServeSpec


class ApiSpec(Spec):
    """How a model behind an endpoint is evaluated: the options of lm-eval's API models."""

    kind: Literal[
        "auto",
        "local-completions",
        "local-chat-completions",
        "openai-completions",
        "openai-chat-completions",
        "anthropic-chat-completions",
    ] = "auto"
    """lm-eval's model class. auto derives it from the endpoint's address."""
    tokenizer: str | None = None
    """The model's tokenizer: a hub id, a folder, or `starter`. Required for multiple choice, which
    scores given answers."""
    num_concurrent: PositiveInt = 4
    """Requests in flight at the same time."""
    max_retries: PositiveInt = 6
    """Attempts at each request, with growing pauses."""
    timeout_s: PositiveFloat = 300.0
    """Seconds without a reply after which an attempt has failed."""
    max_length: PositiveInt = 4096
    """Tokens of prompt and answer. Longer prompts lose their beginning."""
    max_gen_toks: PositiveInt = 256
    """Tokens of an answer, reasoning included, if the task does not say."""
    think_end_token: str | None = None
    """The text that ends a model's reasoning; everything before it is removed from the answer."""
    key_variable: str | None = Field(None, pattern=r"^[A-Z][A-Z0-9_]{0,60}$")
    """NAME of the environment variable with the API key. The key itself is never written down."""
    max_usd: PositiveFloat | None = None
    """Refuse to start if the estimated cost is above this many dollars."""

    def answer_settings(self) -> dict[str, Any]:
        """The fields that decide the answers, without those that decide speed, cost and access."""
        others = {"num_concurrent", "max_retries", "timeout_s", "key_variable", "max_usd"}
        return self.model_dump(mode="json", exclude=others)


class CapabilitySpec(Spec):
    """What lm-evaluation-harness evaluates."""

    tasks: tuple[str, ...] = Field(("starter",), min_length=1)
    """Names of lm-eval tasks or groups; `starter` is the included suite."""
    include_path: str | None = None
    """A folder with more lm-eval tasks."""
    limit: PositiveInt | None = None
    """Documents per task: a seeded, stratified sample, the same for every model. None takes all."""
    num_fewshot: NonNegativeInt | None = None
    """Examples before each question. None uses the task's own number."""
    apply_chat_template: bool = False
    """Format prompts with the model's chat template."""
    batch_size: PositiveInt = 16
    """Requests per forward pass."""
    seed: NonNegativeInt = 0
    """Decides which documents `limit` keeps."""
    api: Added[ApiSpec | None] = None
    """How a model behind an endpoint is evaluated. None uses the defaults; other models ignore
    it."""


WORKLOADS = {"chat": (512, 128), "summarise": (2048, 256), "autocomplete": (256, 32)}
"""Name of a workload to the tokens of its prompt and of its answer."""


class LatencySpec(Spec):
    """How a model is timed: alone on its device, student and teacher in turns."""

    prompt_tokens: PositiveInt = 128
    """Length of the prompt."""
    output_tokens: int = Field(64, ge=2)
    """Length of the answer, which is always exactly this long."""
    batch_size: PositiveInt = 1
    """Sequences answered together."""
    warmup: NonNegativeInt = 2
    """Requests that are not counted."""
    repeats: int = Field(10, ge=2)
    """Counted requests to each model."""
    seed: NonNegativeInt = 0
    """Decides the prompt's tokens."""
    workload: Added[Literal["chat", "summarise", "autocomplete"] | None] = None
    """A named pair of lengths: chat 512 + 128 tokens, summarise 2048 + 256, autocomplete 256 + 32.
    None uses prompt_tokens and output_tokens."""
    runtime: Added[Literal["eager", "compiled"]] = "eager"
    """How transformers runs a model: eagerly, or compiled with a static cache. GGUF files run in
    llama.cpp and endpoints run elsewhere; both ignore this."""
    concurrency: Added[tuple[PositiveInt, ...]] = ()
    """Levels of a closed loop, ascending: sequences in one batch on a device here, or clients that
    each wait for their answer at an endpoint. The sweep stops early when the device is full."""
    request_rates: Added[tuple[PositiveFloat, ...]] = ()
    """Levels of an open loop, ascending, in requests per second that arrive at random (Poisson).
    Endpoints only."""
    requests: Added[int] = Field(30, ge=3)
    """Counted requests at each level of an endpoint; never fewer than three per client."""
    timeout_s: Added[PositiveFloat] = 60.0
    """Seconds without a reply after which a request to an endpoint has failed."""
    serve: Added[ServeSpec | None] = None
    """Time the model in a server that the run starts and stops. None times it in this process.
    Endpoints have a server already and ignore this."""

    @pydantic.model_validator(mode="before")
    @classmethod
    def _fill_in_the_lengths_of_the_workload(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("workload") in [*WORKLOADS]:
            prompt_tokens, output_tokens = WORKLOADS[data["workload"]]
            return {"prompt_tokens": prompt_tokens, "output_tokens": output_tokens, **data}
        return data

    @pydantic.model_validator(mode="after")
    def _refuse_contradictions(self) -> Self:
        lengths = (self.prompt_tokens, self.output_tokens)
        if self.workload is not None and lengths != WORKLOADS[self.workload]:
            wanted = " + ".join(str(length) for length in WORKLOADS[self.workload])
            raise ValueError(
                f"workload {self.workload} has {wanted} tokens, got {lengths[0]} + {lengths[1]}; "
                "remove prompt_tokens and output_tokens, or remove workload"
            )
        if self.serve is not None and self.runtime != "eager":
            raise ValueError(
                f"runtime {self.runtime} and serve are two ways to run the model; remove one of "
                "them"
            )
        if self.serve is not None and self.batch_size != 1:
            raise ValueError(
                "batch_size has to be 1 with serve, as a server makes its own batches; set "
                "concurrency to send several requests at a time"
            )
        for name in ("concurrency", "request_rates"):
            levels = getattr(self, name)
            if list(levels) != sorted(set(levels)):
                raise ValueError(f"{name} should rise from level to level, got {list(levels)}")
        return self

"""What a model is asked, and how it is timed."""

from pydantic import Field, NonNegativeInt, PositiveInt

from explorer.specs.base import Spec


class CapabilitySpec(Spec):
    """What lm-evaluation-harness is asked."""

    tasks: tuple[str, ...] = Field(("starter",), min_length=1)
    """Names of lm-eval tasks or groups; `starter` is the suite that ships with us."""
    include_path: str | None = None
    """A folder with more lm-eval tasks."""
    limit: PositiveInt | None = None
    """Documents per task: a seeded sample, the same for every model. None takes all."""
    num_fewshot: NonNegativeInt | None = None
    """Examples before each question; None leaves it to the task."""
    apply_chat_template: bool = False
    """Whether prompts go through the model's chat template."""
    batch_size: PositiveInt = 16
    """Requests in one forward pass."""
    seed: NonNegativeInt = 0
    """Which documents a limit picks."""


class LatencySpec(Spec):
    """How a model is timed: alone, student and teacher in turns."""

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

"""lm-eval's options on `explorer run`: they replace parts of the spec's capability."""

import dataclasses
from typing import Annotated, Any

import typer

from explorer.specs import CapabilitySpec, RunSpec

Tasks = Annotated[
    str | None, typer.Option("--tasks", "-t", help="Tasks or groups, comma-separated.")
]
Limit = Annotated[
    int | None,
    typer.Option("--limit", "-L", help="Documents per task, a stratified random sample."),
]
Fewshot = Annotated[
    int | None,
    typer.Option("--num_fewshot", "--num-fewshot", "-f", help="Solved examples in each prompt."),
]
BatchSize = Annotated[
    int | None,
    typer.Option("--batch_size", "--batch-size", "-b", help="Requests per forward pass."),
]
Template = Annotated[
    bool | None,
    typer.Option(
        "--apply_chat_template/--no-chat_template",
        "--apply-chat-template/--no-chat-template",
        help="Whether to apply the model's chat template to prompts.",
    ),
]
Folder = Annotated[
    str | None,
    typer.Option("--include_path", "--include-path", help="A folder with more lm-eval tasks."),
]
Seed = Annotated[int | None, typer.Option("--seed", help="Seed of the sample that --limit takes.")]


@dataclasses.dataclass(frozen=True)
class Flags:
    """The options given on the command line; None keeps the spec's value."""

    tasks: str | None
    limit: int | None
    num_fewshot: int | None
    batch_size: int | None
    apply_chat_template: bool | None
    include_path: str | None
    seed: int | None

    def applied_to(self, spec: RunSpec) -> RunSpec:
        """The spec with these options; the same one if none was given.

        Raises:
            BadInput: A value is not valid.
        """
        given: dict[str, Any] = {k: v for k, v in vars(self).items() if v is not None}
        if not given:
            return spec
        if self.tasks is not None:
            given["tasks"] = [name.strip() for name in self.tasks.split(",") if name.strip()]
        capability = (spec.capability or CapabilitySpec()).with_(**given)
        return spec.with_(capability=capability.model_dump())

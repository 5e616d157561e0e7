"""lm-eval's own flags, on the commands that ask a model: they replace a spec's capability part."""

import dataclasses
from typing import Annotated, Any

import typer

from explorer.specs import CapabilitySpec, RunSpec

Tasks = Annotated[
    str | None, typer.Option("--tasks", "-t", help="Names of tasks or groups, comma-separated.")
]
Limit = Annotated[
    int | None,
    typer.Option("--limit", "-L", help="Documents per task: a seeded, stratified sample."),
]
Fewshot = Annotated[
    int | None,
    typer.Option("--num_fewshot", "--num-fewshot", "-f", help="Examples before each question."),
]
BatchSize = Annotated[
    int | None, typer.Option("--batch_size", "--batch-size", "-b", help="Requests in one pass.")
]
Template = Annotated[
    bool | None,
    typer.Option(
        "--apply_chat_template/--no-chat_template",
        "--apply-chat-template/--no-chat-template",
        help="Whether prompts go through the model's chat template.",
    ),
]
Folder = Annotated[
    str | None,
    typer.Option("--include_path", "--include-path", help="A folder with more lm-eval tasks."),
]
Seed = Annotated[int | None, typer.Option("--seed", help="Which documents a limit picks.")]


@dataclasses.dataclass(frozen=True)
class Asked:
    """What was given on the command line; None leaves it as the spec has it."""

    tasks: str | None
    limit: int | None
    num_fewshot: int | None
    batch_size: int | None
    apply_chat_template: bool | None
    include_path: str | None
    seed: int | None

    def of(self, spec: RunSpec) -> RunSpec:
        """The run that these flags make of another: the same one where none was given.

        Raises:
            BadInput: A value that cannot be.
        """
        given: dict[str, Any] = {k: v for k, v in vars(self).items() if v is not None}
        if not given:
            return spec
        if self.tasks is not None:
            given["tasks"] = [name.strip() for name in self.tasks.split(",") if name.strip()]
        asked = (spec.capability or CapabilitySpec()).with_(**given)
        return spec.with_(capability=asked.model_dump())

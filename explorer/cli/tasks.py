"""Commands about tasks: list and search, look at a prompt, fetch the data, add one's own."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from explorer.analysis.tables import task_table as words
from explorer.cli.common import ResultsDir, Wide, app, console, root_of
from explorer.cli.tables import print_table
from explorer.errors import BadInput
from explorer.tasks import custom, dataset_cache, index, presets, task_list

tasks_app = typer.Typer(help="List the tasks that a run can ask.", invoke_without_command=True)
app.add_typer(tasks_app, name="tasks")
Include = Annotated[Path | None, typer.Option(help="A folder with more lm-eval tasks.")]
SHOWN = 50
"""Rows on a terminal; --json and --all give all."""


def indexed(include_path: Path | None, *, refresh: bool = False) -> index.TaskIndex:
    """The list of tasks, with a bar while it is made."""
    from explorer.cli.progress_bar import stage_bar

    include = str(include_path) if include_path else None
    found = None if refresh else index.read(include)
    if found is not None:
        return found
    with stage_bar(Console(stderr=True)) as bar:
        return index.build(
            include,
            lambda done, total: bar(
                {"stage": "read tasks", "done": done, "total": total, "unit": "files"}
            ),
            anew=refresh,
        )


@tasks_app.callback()
def list_tasks(
    context: typer.Context,
    search: Annotated[str, typer.Option(help="Words of name, group, data, description.")] = "",
    preset: Annotated[str, typer.Option(help="A set: starter, common_sense, knowledge, …")] = "",
    output_type: Annotated[str, typer.Option(help="As lm-eval: multiple_choice, …")] = "",
    only_here: Annotated[
        bool, typer.Option("--here", help="Only with data on this machine.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON array of all that fit.")
    ] = False,
    everything: Annotated[bool, typer.Option("--all", help="Every row, however many.")] = False,
    include_path: Include = None,
    refresh: Annotated[bool, typer.Option(help="Read the task files again.")] = False,
    results: ResultsDir = None,
    wide: Wide = False,
) -> None:
    """List the tasks that a run can ask: ours, lm-eval's, your own and those of a folder."""
    root_of(results)
    if context.invoked_subcommand is not None:
        return
    wanted = presets.preset(preset).tasks if preset else None
    tasks = indexed(include_path, refresh=refresh)
    found = task_list.chosen(
        task_list.table(tasks, dataset_cache.held()),
        words=search,
        names=wanted,
        output_type=output_type,
        here_only=only_here,
    )
    if as_json:
        print(json.dumps(json.loads(found.to_json(orient="records")), indent=1, ensure_ascii=False))
        return
    if found.empty:
        console.print("No task fits. Use fewer words, or see all: explorer tasks --all")
        return
    shown = found if everything else found.head(SHOWN)
    print_table(
        words.task_table(shown).drop(columns=["Groups", "Description"]),
        identifying=["Task"],
        importance=["Type", "Here", "Data", "Kind", "Metric", "Shots"],
        wide=wide,
    )
    if len(found) > len(shown):
        console.print(f"and {len(found) - len(shown):,} more: narrow the search, or --all.")
    for problem in tasks.problems[:10]:
        console.print(problem, markup=False)


@tasks_app.command()
def fetch(
    names: Annotated[list[str], typer.Argument(help="Tasks, groups, tags or patterns.")],
    include_path: Include = None,
) -> None:
    """Fetch the documents of tasks, so that they can be asked offline."""
    from explorer.tasks import task_loading

    found = task_loading.load(names, str(include_path) if include_path else None)
    for name, task in found.items():
        console.print(f"{name}: {len(task.eval_docs):,} documents are here.", markup=False)


@tasks_app.command()
def preview(
    name: Annotated[str, typer.Argument(help="A task, or a group, whose first task is shown.")],
    num: Annotated[int, typer.Option(min=1, max=100, help="Documents.")] = 3,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
    include_path: Include = None,
    results: ResultsDir = None,
) -> None:
    """Print what a model is asked by the first documents of a task, and what is right."""
    root_of(results)
    from explorer.tasks import render_prompts

    leaves = indexed(include_path).leaves(name)
    # Of a part that only its group can ask, the file is the group's.
    leaf = next((row for row in leaves if row.kind == "task"), None)
    if leaf is None:
        raise BadInput(f"{name} has no task that can be asked alone, so there is no prompt.")
    include = str(include_path) if include_path else None
    found = render_prompts.preview(leaf.name, include, source=leaf.source, num=num)
    if as_json:
        print(found.model_dump_json(indent=1))
        return
    console.print(
        f"{found.task}: {found.num_documents:,} documents, {found.num_fewshot} shots", markup=False
    )
    for one in found.questions:
        print(f"\n--- document {one.doc_id} ---\n{one.prompt}")
        for place, choice in enumerate(one.choices):
            print(f"  {'->' if place in one.right else '  '} {choice!r}")
        if one.target:
            print(f"  -> {one.target!r}, ends at {one.until}")


@tasks_app.command()
def add(
    file: Annotated[Path, typer.Argument(help="A .jsonl or .csv file, a row a question.")],
    name: Annotated[str, typer.Option(help="What specs call it; else the file's name.")] = "",
    question: Annotated[str, typer.Option(help="Column of the question or prompt.")] = "",
    choices: Annotated[str, typer.Option(help="A column of lists, or columns as a,b,c.")] = "",
    answer: Annotated[str, typer.Option(help="Column of the answer.")] = "",
    written: Annotated[bool, typer.Option("--written", help="The model writes.")] = False,
    replace: Annotated[bool, typer.Option("--replace", help="Replace one of that name.")] = False,
    results: ResultsDir = None,
) -> None:
    """Make a task of your own from a file; columns that are not named are guessed."""
    root_of(results)
    try:
        rows = custom.read(file.name, file.read_bytes())
    except OSError as error:
        raise BadInput(f"Could not read {file}: {error.strerror}.") from error
    found = custom.guess(custom.columns_of(rows))
    listed = tuple(one.strip() for one in choices.split(",") if one.strip()) or found.choices
    columns = custom.Columns(
        way="written" if written or not listed else "choices",
        question=question or found.question,
        choices=() if written else listed,
        answer=answer or found.answer,
    )
    documents = custom.documents(file.name, rows, columns)
    called = name or custom.name_of(file.name)
    taken = indexed(None).rows
    path = custom.add(called, documents, origin=file.name, taken=taken, replace=replace)
    console.print(
        f"{called}: {len(documents):,} documents, question from {columns.question}, answer from "
        f"{columns.answer}{', choices from ' + ', '.join(columns.choices) if listed else ''}. "
        f"Its file is {path}. Look at it: explorer tasks preview {called}",
        markup=False,
        soft_wrap=True,
    )

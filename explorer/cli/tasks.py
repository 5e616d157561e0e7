"""Commands on tasks: tasks, tasks preview, tasks add, tasks fetch."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from explorer.analysis.tables.task_table import task_table
from explorer.cli.common import AsJson, ResultsDir, Wide, app, console, root_of
from explorer.cli.tables import print_table
from explorer.errors import BadInput
from explorer.tasks import custom, dataset_cache, index, presets, task_list

tasks_app = typer.Typer(help="List, preview, add or fetch tasks.", invoke_without_command=True)
app.add_typer(tasks_app, name="tasks")
Include = Annotated[Path | None, typer.Option(help="A folder with more lm-eval tasks.")]
SHOWN = 50
"""Rows that the table shows without --all."""


def task_index(include_path: Path | None, *, refresh: bool = False) -> index.TaskIndex:
    """The index of all tasks, with a progress bar while it is built."""
    from explorer.cli.progress_bar import stage_bar

    include = str(include_path) if include_path else None
    stored = None if refresh else index.read_cached(include)
    if stored is not None:
        return stored
    with stage_bar(Console(stderr=True)) as bar:
        return index.build_index(
            include,
            lambda done, total: bar(
                {"stage": "read tasks", "done": done, "total": total, "unit": "files"}
            ),
            anew=refresh,
        )


@tasks_app.callback()
def list_tasks(
    context: typer.Context,
    search: Annotated[
        str, typer.Option(help="Words from the name, group, data set or description.")
    ] = "",
    preset: Annotated[str, typer.Option(help="A preset: starter, common_sense, knowledge, …")] = "",
    output_type: Annotated[
        str, typer.Option(help="An output type of lm-eval, such as multiple_choice.")
    ] = "",
    only_here: Annotated[
        bool, typer.Option("--here", help="Only tasks whose data is on this machine.")
    ] = False,
    as_json: AsJson = False,
    show_all: Annotated[bool, typer.Option("--all", help="Show every row.")] = False,
    include_path: Include = None,
    refresh: Annotated[bool, typer.Option(help="Rebuild the index from the task files.")] = False,
    results: ResultsDir = None,
    wide: Wide = False,
) -> None:
    """List tasks: the starter suite, lm-eval's, your own and those of a folder."""
    root_of(results)
    if context.invoked_subcommand is not None:
        return
    wanted = presets.find_preset(preset).tasks if preset else None
    tasks = task_index(include_path, refresh=refresh)
    matches = task_list.filter_tasks(
        task_list.task_table(tasks, dataset_cache.cached_datasets()),
        words=search,
        names=wanted,
        output_type=output_type,
        here_only=only_here,
    )
    if as_json:
        print(
            json.dumps(json.loads(matches.to_json(orient="records")), indent=1, ensure_ascii=False)
        )
        return
    if matches.empty:
        console.print("No task matches. Use fewer words, or list all tasks: explorer tasks --all")
        return
    shown = matches if show_all else matches.head(SHOWN)
    print_table(
        task_table(shown).drop(columns=["Groups", "Description"]),
        identifying=["Task"],
        importance=["Type", "Here", "Data", "Kind", "Metric", "Shots"],
        wide=wide,
    )
    if len(matches) > len(shown):
        console.print(f"and {len(matches) - len(shown):,} more. Narrow the search, or add --all.")
    for problem in tasks.problems[:10]:
        console.print(problem, markup=False)


@tasks_app.command()
def fetch(
    names: Annotated[list[str], typer.Argument(help="Tasks, groups, tags or patterns.")],
    include_path: Include = None,
) -> None:
    """Download the documents of tasks for offline use."""
    from explorer.tasks import task_loading

    tasks = task_loading.load_tasks(names, str(include_path) if include_path else None)
    for name, task in tasks.items():
        num_documents = len(task.eval_docs)
        console.print(f"{name}: {num_documents:,} documents are on this machine.", markup=False)


@tasks_app.command()
def preview(
    name: Annotated[str, typer.Argument(help="A task; of a group, its first task.")],
    num: Annotated[int, typer.Option(min=1, max=100, help="Documents to print.")] = 3,
    as_json: AsJson = False,
    include_path: Include = None,
    results: ResultsDir = None,
) -> None:
    """Print the first prompts of a task, with the right answers."""
    root_of(results)
    from explorer.tasks import render_prompts

    leaves = task_index(include_path).leaves(name)
    # A part that runs only within its group has the group's file.
    leaf = next((row for row in leaves if row.kind == "task"), None)
    if leaf is None:
        raise BadInput(f"{name} has no task that runs on its own, so it has no prompt to show.")
    include = str(include_path) if include_path else None
    shown = render_prompts.render_preview(leaf.name, include, source=leaf.source, num=num)
    if as_json:
        print(shown.model_dump_json(indent=1))
        return
    console.print(
        f"{shown.task}: {shown.num_documents:,} documents, {shown.num_fewshot} shots", markup=False
    )
    for question in shown.questions:
        print(f"\n--- document {question.doc_id} ---\n{question.prompt}")
        for number, choice in enumerate(question.choices):
            print(f"  {'->' if number in question.right else '  '} {choice!r}")
        if question.target:
            print(f"  -> {question.target!r}, ends at {question.until}")


@tasks_app.command()
def add(
    file: Annotated[Path, typer.Argument(help="A .jsonl or .csv file with one question per row.")],
    name: Annotated[
        str, typer.Option(help="The task's name in specs; by default the file's name.")
    ] = "",
    question: Annotated[str, typer.Option(help="Column with the question or prompt.")] = "",
    choices: Annotated[
        str, typer.Option(help="Column with lists of choices, or one column per choice: a,b,c.")
    ] = "",
    answer: Annotated[str, typer.Option(help="Column with the right answer.")] = "",
    written: Annotated[
        bool, typer.Option("--written", help="The model writes its answer instead of choosing.")
    ] = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace an existing task of this name.")
    ] = False,
    results: ResultsDir = None,
) -> None:
    """Create a task of your own from a file. Columns you do not name are guessed."""
    root_of(results)
    try:
        rows = custom.read_rows(file.name, file.read_bytes())
    except OSError as error:
        raise BadInput(f"Could not read {file}: {error.strerror}.") from error
    guess = custom.guess_columns(custom.columns_of(rows))
    named = tuple(column.strip() for column in choices.split(",") if column.strip())
    choice_columns = named or guess.choices
    columns = custom.TaskColumns(
        way="written" if written or not choice_columns else "choices",
        question=question or guess.question,
        choices=() if written else choice_columns,
        answer=answer or guess.answer,
    )
    documents = custom.documents(file.name, rows, columns)
    task_name = name or custom.suggest_name(file.name)
    taken = task_index(None).rows
    path = custom.add_task(task_name, documents, origin=file.name, taken=taken, replace=replace)
    choices_from = f", choices from {', '.join(columns.choices)}" if columns.choices else ""
    console.print(
        f"{task_name}: {len(documents):,} documents, question from {columns.question}, answer from "
        f"{columns.answer}{choices_from}. Its file is {path}. Preview it: explorer tasks preview "
        f"{task_name}",
        markup=False,
        soft_wrap=True,
    )

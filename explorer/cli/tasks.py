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
from explorer.tasks import (
    custom,
    dataset_cache,
    index,
    presets,
    question_columns,
    question_files,
    task_list,
)
from explorer.tasks.answer_keys import AmbiguousAnswers, Reading
from explorer.tasks.preview import Question
from explorer.tasks.question_columns import TaskColumns
from explorer.tasks.question_files import BadHeader, Row

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
        print(json.dumps(json.loads(matches.to_json(orient="records")), indent=1))
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
        # In ASCII, so that no terminal has to show a stand-in.
        print(json.dumps(shown.model_dump(mode="json"), indent=1))
        return
    console.print(
        f"{shown.task}: {shown.num_documents:,} documents, {shown.num_fewshot} shots", markup=False
    )
    for question in shown.questions:
        _print_question(question)


@tasks_app.command()
def add(
    file: Annotated[
        Path, typer.Argument(help="A .jsonl, .csv or .tsv file with one question per row.")
    ],
    name: Annotated[
        str, typer.Option(help="The task's name in specs; by default the file's name.")
    ] = "",
    question: Annotated[str, typer.Option(help="Column with the question or prompt.")] = "",
    choices: Annotated[
        str, typer.Option(help="Column with lists of choices, or one column per choice: a,b,c.")
    ] = "",
    answer: Annotated[str, typer.Option(help="Column with the right answer.")] = "",
    answer_as: Annotated[
        Reading | None,
        typer.Option(
            help="How answers name a choice, if the file leaves it open: by its text, its letter, "
            "its column's name, or its number from 0 or from 1."
        ),
    ] = None,
    written: Annotated[
        bool, typer.Option("--written", help="The model writes its answer instead of choosing.")
    ] = False,
    no_header: Annotated[
        bool,
        typer.Option(
            "--no-header",
            help='The first row of a CSV file is a question: the columns are "column 1" and so on.',
        ),
    ] = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace an existing task of this name.")
    ] = False,
    results: ResultsDir = None,
) -> None:
    """Create a task of your own from a file. Columns with usual names need not be named."""
    root_of(results)
    try:
        rows = question_files.read_file(file, header=not no_header)
    except BadHeader as error:
        raise BadInput(f"{error} Or add --no-header and name the columns.") from error
    columns = _columns(
        file.name, rows, question, choices, answer, answer_as, written, header=not no_header
    )
    try:
        questions = custom.read_questions(file.name, rows, columns)
    except AmbiguousAnswers as error:
        options = " or ".join(f"--answer-as {reading}" for reading in error.readings)
        raise BadInput(f"{error} As an option: {options}.") from error
    task_name = name or custom.suggest_name(file.name)
    taken = task_index(None).rows
    path = custom.add_task(
        task_name, questions.documents, origin=file.name, taken=taken, replace=replace
    )
    console.print(
        f"{task_name}: {len(questions.documents):,} documents. {questions.in_words()} Its file is "
        f"{path}. Preview it: explorer tasks preview {task_name}",
        markup=False,
        soft_wrap=True,
    )
    for shown in custom.preview_questions(questions.documents):
        _print_question(shown)


def _columns(
    file: str,
    rows: list[Row],
    question: str,
    choices: str,
    answer: str,
    answer_as: Reading | None,
    written: bool,
    *,
    header: bool,
) -> TaskColumns:
    """The columns that the options name, and for the rest those whose names leave no doubt.

    Raises:
        BadInput: The role of a column is open; the message names the options.
    """
    guess = question_columns.guess_columns(file, rows, question=question, answer=answer)
    named = tuple(column.strip() for column in choices.split(",") if column.strip())
    if written and (named or answer_as):
        raise BadInput("--written has no choices. Leave out --choices and --answer-as.")
    stated = {"question": question, "choices": named or written, "answer": answer}
    options = {
        "header": "Write a row of names above it, or add --no-header and name the columns.",
        "question": "Name it with --question.",
        "choices": "Name them with --choices, or add --written if the model writes its answer.",
        "answer": "Name it with --answer.",
    }
    if open_roles := [role for role in guess.doubts if not stated.get(role)]:
        sentences = " ".join(f"{guess.doubts[role]} {options[role]}" for role in open_roles)
        names = ", ".join(f"{column!r:.40}" for column in question_files.columns_of(rows)[:20])
        there = "" if "header" in open_roles else f" The columns are {names}."
        if header and question_columns.may_lack_header(file, guess):
            there += " If they are a question, add --no-header."
        raise BadInput(f"{file}: {sentences}{there}")
    choice_columns = () if written else named or guess.columns.choices
    return TaskColumns(
        way="choices" if choice_columns else "written",
        question=question or guess.columns.question,
        choices=choice_columns,
        answer=answer or guess.columns.answer,
        answer_as=answer_as,
    )


def _print_question(question: Question) -> None:
    print(f"\n--- document {question.doc_id} ---\n{question.prompt}")
    for number, choice in enumerate(question.choices):
        print(f"  {'->' if number in question.right else '  '} {choice!r}")
    if question.target:
        print(f"  -> {question.target!r}, ends at {question.until}")

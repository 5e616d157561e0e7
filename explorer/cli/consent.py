"""Commands for what may act on this machine: trust, keys."""

import os
from typing import Annotated

import typer

from explorer.cli.common import app, console
from explorer.consent import host_keys, trust
from explorer.errors import BadInput
from explorer.models import own_code

keys_app = typer.Typer(
    help="List or set which host gets which API key.",
    invoke_without_command=True,
)
app.add_typer(keys_app, name="keys")


@app.command("trust")
def allow_code(
    source: Annotated[
        str | None,
        typer.Argument(
            help="A task file, a folder of tasks, a model's folder, a hub id, or run:RUN_ID. "
            "Without it, what is allowed is listed."
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Allow it without asking.")] = False,
    remove: Annotated[bool, typer.Option("--remove", help="Take the permission back.")] = False,
    show_list: Annotated[bool, typer.Option("--list", help="List what is allowed.")] = False,
) -> None:
    """Show the code that a task or model brings, and allow it.

    It is allowed as it is now. A file that changes later asks again.
    """
    if source is None or show_list:
        if remove or yes:
            raise BadInput("Name the source, as in: explorer trust my-tasks --yes")
        _list_permissions()
        return
    if remove:
        trust.withdraw(source)
        console.print(f"The code of {source} may not run any more.", markup=False)
        return
    code = [trust.CodeFile.of(path) for path in own_code.files_that_run(source)]
    if not code:
        console.print(f"{source} brings no Python code: there is nothing to allow.", markup=False)
        return
    _print_code(source, code)
    if not yes and not _confirmed():
        console.print("Nothing was allowed.")
        raise typer.Exit(1)
    trust.record(own_code.source_key(source), code)
    console.print(f"Allowed, as it is now. Noted in {trust.trust_file()}.", markup=False)


def _print_code(source: str, code: list[trust.CodeFile]) -> None:
    console.print(f"This code of {source} would run as you, with all you may do:", markup=False)
    for item in code:
        same = trust.allowed_anywhere(item.path)
        state = "the same bytes are allowed already" if same else "not allowed"
        line = f"  {item.sha256}  {item.num_bytes:>9,} bytes  {item.path}  ({state})"
        console.print(line, markup=False, soft_wrap=True, highlight=False)


def _confirmed() -> bool:
    try:
        return typer.confirm("Have you read it, and may it run?")
    except typer.Abort as error:
        raise BadInput(
            "Nothing was allowed, as there was no answer. Read the files; if you trust them, add "
            "--yes."
        ) from error


def _list_permissions() -> None:
    grants = trust.in_force()
    if not grants:
        console.print("No code is allowed but that of the explorer and of lm-eval's tasks.")
    for source, grant in sorted(grants.items()):
        files = f"{len(grant.files)} file{'' if len(grant.files) == 1 else 's'}"
        how = "listed in the configuration, first used" if grant.listed else "allowed"
        line = f"{source}: {files}, {how} on {grant.allowed_at[:10]}"
        console.print(line, markup=False, soft_wrap=True)


@keys_app.callback()
def list_keys(context: typer.Context) -> None:
    """List the hosts and the variables with their keys, never the keys."""
    if not context.invoked_subcommand:
        _print_keys()


@keys_app.command("list")
def list_keys_by_name() -> None:
    """List the hosts and the variables with their keys, never the keys."""
    _print_keys()


def _print_keys() -> None:
    own = host_keys.allowed_keys()
    built_in = {host: name for host, name in host_keys.PROVIDERS.items() if host not in own}
    for host, variable in sorted(own.items()):
        _print_key(host, variable, "yours")
    for host, variable in [*built_in.items(), ("servers on this machine", host_keys.KEY_VARIABLE)]:
        _print_key(host, variable, "by default")


def _print_key(host: str, variable: str, whose: str) -> None:
    state = "set" if os.environ.get(variable, "").strip() else "not set"
    console.print(f"{host}: {variable} ({whose}; {state} in this shell)", markup=False)


@keys_app.command("allow")
def allow_key(
    host: Annotated[str, typer.Argument(help="A host, as in api.example.com or 127.0.0.1:8000.")],
    variable: Annotated[str, typer.Argument(help="NAME of the environment variable with its key.")],
) -> None:
    """Let a host have the API key in an environment variable."""
    name = host_keys.allow(host, variable)
    console.print(
        f"{name} gets the key in {variable}, for tasks, targets and timing alike. Noted in "
        f"{host_keys.keys_file()}.",
        markup=False,
    )


@keys_app.command("remove")
def remove_key(
    host: Annotated[str, typer.Argument(help="A host of the list.")],
) -> None:
    """Take a host's key away."""
    host_keys.remove(host)
    console.print(f"{host} has no key of yours any more.", markup=False)

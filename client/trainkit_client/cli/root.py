"""The root of the command line, with the commands that other distributions add."""

from __future__ import annotations

import sys
from importlib.metadata import entry_points
from typing import Annotated

import typer

from trainkit_client.version import __version__

COMMANDS_GROUP = "trainkit.commands"
"""Entry points of this group name a `typer.Typer` whose commands join this one. The server's distribution has one."""


def print_version(requested: bool) -> None:
    """Print the version and exit."""
    if requested:
        typer.echo(f"trainkit {__version__}")
        raise typer.Exit


def options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=print_version, is_eager=True)
    ] = False,
) -> None:
    """A self-hosted service that trains deep networks."""


def build_app() -> typer.Typer:
    """Return the command with everything that is installed."""
    root = typer.Typer(
        name="trainkit",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        add_completion=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    root.callback()(options)
    for entry in sorted(entry_points(group=COMMANDS_GROUP), key=lambda entry: entry.name):
        try:
            root.add_typer(entry.load())
        except ImportError as error:
            print(f"trainkit: the commands of {entry.value} cannot be loaded: {error}", file=sys.stderr)
    return root


app = build_app()


def main() -> None:
    """Entry point: a refusal (an exception with `hint` and `exit_code`) prints its message, not a traceback."""
    try:
        app()
    except Exception as error:
        if not (hasattr(error, "hint") and hasattr(error, "exit_code")):
            raise
        from rich.console import Console
        from rich.markup import escape

        errors = Console(stderr=True, soft_wrap=True, highlight=False)
        errors.print(f"[red]trainkit: {escape(str(error))}[/]")
        errors.print(escape(error.hint))
        raise SystemExit(error.exit_code) from None

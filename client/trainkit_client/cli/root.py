"""The root of the command line. A command is imported when it is used, and not to be listed."""

from __future__ import annotations

import sys
from collections.abc import Iterator, MutableMapping
from importlib import import_module
from typing import Annotated, Any, NamedTuple

import typer
from typer.main import get_command, get_group

from trainkit_client.cli.help import HelpCommand, HelpGroup
from trainkit_client.version import __version__

COMMANDS_GROUP = "trainkit.commands"
"""Entry points of this group name a `typer.Typer` whose commands join this one. The server's distribution has one."""
JOBS, DATA, SERVICE, SERVER = "Train and look", "Data and models", "The service", "The server, on this machine"


class Listed(NamedTuple):
    """A command as the list shows it."""

    place: str
    """`MODULE`, whose `app` it is, or `MODULE.ATTRIBUTE`; below `trainkit_client.cli`."""
    summary: str
    panel: str


COMMANDS = {
    "jobs": Listed("jobs", "Submit, list, watch, stop, compare and change jobs.", JOBS),
    "diagnose": Listed("diagnose", "Say what is wrong with a run, and what to try next.", JOBS),
    "experiments": Listed("experiments", "Sweeps, folds, ensembles and the autopilot.", JOBS),
    "init": Listed("init", "Write a commented spec for a dataset.", JOBS),
    "datasets": Listed("datasets", "Upload data, list it, read what was found in it.", DATA),
    "models": Listed("models", "List, use, evaluate, download and name models.", DATA),
    "queue": Listed("service.queue_app", "Show the jobs that wait, train or are paused.", SERVICE),
    "workers": Listed("service.workers_app", "Show the workers that were seen lately.", SERVICE),
    "projects": Listed("service.projects_app", "List, create and show projects.", SERVICE),
    "keys": Listed("service.keys_app", "List, create and revoke API keys.", SERVICE),
    "mcp": Listed("mcp", "Serve tools for an agent on standard input and output (MCP).", SERVICE),
    "doctor": Listed("doctor", "Find what is wrong with the set-up.", SERVICE),
}
"""This distribution's commands, in the order of the list."""


class LazyCommands(MutableMapping[str, Any]):
    """Commands by name; one is imported when it is looked up."""

    def __init__(self, more: MutableMapping[str, Any] | None = None) -> None:
        self.loaded: dict[str, Any] = dict(more or {})
        self._added: dict[str, Any] | None = None

    @property
    def added(self) -> dict[str, Any]:
        """The commands of other distributions."""
        if self._added is None:
            self._added = added_commands()
        return self._added

    def __getitem__(self, name: str) -> Any:
        if name in self.loaded:
            return self.loaded[name]
        if name in COMMANDS:
            module, _, attribute = COMMANDS[name].place.partition(".")
            app = getattr(import_module(f"trainkit_client.cli.{module}"), attribute or "app")
            command = get_command(app)
            command.name = name
            self.loaded[name] = command
            return command
        return self.added[name]

    def __setitem__(self, name: str, command: Any) -> None:
        self.loaded[name] = command

    def __delitem__(self, name: str) -> None:
        del self.loaded[name]

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys([*COMMANDS, *self.added, *self.loaded]))

    def __len__(self) -> int:
        return len(list(iter(self)))


def added_commands() -> dict[str, Any]:
    """Return the commands of other distributions. One that cannot be loaded is named on stderr and left out."""
    from importlib.metadata import entry_points

    found: dict[str, Any] = {}
    for entry in sorted(entry_points(group=COMMANDS_GROUP), key=lambda entry: entry.name):
        try:
            app = entry.load()
        except ImportError as error:
            print(f"trainkit: the commands of {entry.value} cannot be loaded: {error}", file=sys.stderr)
            continue
        take_help(app)
        group = get_group(app)
        found |= {name: command for name, command in group.commands.items() if name not in COMMANDS}
    return found


def take_help(app: typer.Typer) -> None:
    """Give the commands of another distribution the help pages of these."""
    for command in app.registered_commands:
        command.cls = HelpCommand
    for group in app.registered_groups:
        if group.typer_instance is not None:
            group.cls = HelpGroup
            group.typer_instance.info.cls = HelpGroup
            take_help(group.typer_instance)
    for instance in (app, *(group.typer_instance for group in app.registered_groups)):
        if instance is not None:
            instance.rich_markup_mode = None


class Root(HelpGroup):
    """The group of all commands."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = LazyCommands(self.commands)

    def summaries(self, ctx: Any) -> Iterator[tuple[str, str, str]]:
        """Yield name, text and heading of each command, without importing this distribution's."""
        yield from ((name, listed.summary, listed.panel) for name, listed in COMMANDS.items())
        for name, command in self.commands.added.items():  # type: ignore[attr-defined]
            if not command.hidden:
                yield name, command.get_short_help_str(limit=200), SERVER


def print_version(requested: bool) -> None:
    """Print the version and exit."""
    if requested:
        typer.echo(f"trainkit {__version__}")
        raise typer.Exit


app = typer.Typer(
    name="trainkit",
    cls=Root,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="trainkit jobs submit job.yaml --watch\ntrainkit jobs watch @last",
)


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=print_version, is_eager=True)
    ] = False,
) -> None:
    """Train deep networks on a trainkit service.

    A job, dataset, model or experiment is named by its name, its id, a unique beginning of its id, or @last for the newest.
    """


def main() -> None:
    """Entry point: a refusal (an exception with `hint` and `exit_code`) prints its message, not a traceback."""
    try:
        app(prog_name="trainkit")
    except Exception as error:
        if not (hasattr(error, "hint") and hasattr(error, "exit_code")):
            raise
        print(f"trainkit: {error}\n{error.hint}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None

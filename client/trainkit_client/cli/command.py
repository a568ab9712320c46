"""How a command is declared: its example, the options that all commands share, its errors as exit codes."""

from __future__ import annotations

import inspect
import json
import os
import sys
from collections.abc import Callable, Iterator
from functools import cached_property, update_wrapper
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trainkit_client.cli.help import HelpCommand, HelpGroup
from trainkit_client.cli.output import Output

if TYPE_CHECKING:
    from trainkit_client import Client, Job

SUCCEEDED, FAILED, USAGE, NOT_FOUND, REFUSED, UNREACHABLE, INTERRUPTED = 0, 1, 2, 3, 4, 5, 130
"""Exit codes of all commands (EXIT_CODES in docs/generate.py)."""
AWAY = frozenset({502, 503, 504})
"""Statuses of a service, or of a proxy before it, that cannot be used now."""
LISTS = {
    "jobs": ("/v1/jobs", "job", True),
    "datasets": ("/v1/datasets", "ds", False),
    "models": ("/v1/models", "mdl", False),
    "experiments": ("/v1/experiments", "exp", True),
    "projects": ("/v1/projects", "prj", True),
}
"""Kind of a thing -> path of its list, prefix of its ids, whether names are looked up here and not by the service."""


class CommandError(Exception):
    """What a command cannot do: a message, what to do, an exit code."""

    def __init__(self, message: str, exit_code: int = USAGE, hint: str = "") -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.hint = hint


class Session:
    """One call of a command: the service, and where the answer goes."""

    def __init__(self, output: Output, url: str | None, profile: str | None) -> None:
        self.output = output
        self.url = url
        self.profile = profile

    @cached_property
    def client(self) -> Client:
        """The service."""
        from trainkit_client import Client

        return Client(self.url, profile=self.profile)

    def get(self, path: str, **params: Any) -> Any:
        """Return the document at a path."""
        return self.client.request("GET", path, params=_given(params))

    def post(self, path: str, body: Any = None) -> Any:
        """Send a document to a path and return the answer."""
        return self.client.request("POST", path, json=body)

    def rows(self, path: str, **filters: Any) -> Iterator[dict[str, Any]]:
        """Yield the rows of a list; `limit` bounds their number."""
        from trainkit_client._sync.resource import page_rows

        return page_rows(self.client, path, filters)

    def find(self, kind: str, reference: str) -> dict[str, Any]:
        """Return the document that a reference means. Raises NotFound and AmbiguousReference."""
        from trainkit_client._sync.resource import find

        path, prefix, by_name = LISTS[kind]
        document: dict[str, Any] = find(self.client, path, prefix, reference, by_name=by_name)
        return document

    def job(self, reference: str) -> Job:
        """Return the job that a reference means."""
        return self.client.jobs.get(reference)


def _given(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def group(text: str) -> typer.Typer:
    """Return a group of commands."""
    return typer.Typer(help=text, cls=HelpGroup, no_args_is_help=True, rich_markup_mode=None, add_completion=False)


def single() -> typer.Typer:
    """Return a group that holds one command and so is that command."""
    return typer.Typer(rich_markup_mode=None, add_completion=False)


SHARED = (
    inspect.Parameter(
        "as_json",
        inspect.Parameter.KEYWORD_ONLY,
        default=False,
        annotation=Annotated[bool, typer.Option("--json", help="Print JSON, as the HTTP API documents it.")],
    ),
    inspect.Parameter(
        "quiet",
        inspect.Parameter.KEYWORD_ONLY,
        default=False,
        annotation=Annotated[bool, typer.Option("--quiet", "-q", help="Print ids alone, or nothing.")],
    ),
    inspect.Parameter(
        "url",
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[str | None, typer.Option("--url", help="Address of the service; else TRAINKIT_URL.")],
    ),
    inspect.Parameter(
        "profile",
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[str | None, typer.Option("--profile", help="Profile of the configuration file.")],
    ),
)


def command(
    app: typer.Typer, name: str | None, example: str
) -> Callable[[Callable[..., int | None]], Callable[..., None]]:
    """Declare a command. Its function takes a Session first, and may return an exit code.

    Args:
        app: The group.
        name: Its name; None in a group of one.
        example: Command lines that work, one a line.
    """

    def declare(function: Callable[..., int | None]) -> Callable[..., None]:
        parameters = list(inspect.signature(function, eval_str=True).parameters.values())[1:]

        def run(**values: Any) -> None:
            as_json, quiet, url, profile = (values.pop(parameter.name) for parameter in SHARED)
            if as_json and quiet:
                raise typer.BadParameter("--json and --quiet exclude each other.")
            raise typer.Exit(call(function, Session(Output(as_json, quiet), url, profile), values))

        update_wrapper(run, function)
        del run.__wrapped__  # type: ignore[attr-defined]
        keywords = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in parameters]
        parameters = [*keywords, *SHARED]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        app.command(name, cls=HelpCommand, epilog=example)(run)
        return run

    return declare


def call(function: Callable[..., int | None], session: Session, values: dict[str, Any]) -> int:
    """Run a command and return its exit code; an error is printed."""
    try:
        return function(session, **values) or SUCCEEDED
    except BrokenPipeError:  # the reader has closed the pipe: nothing may be flushed into it at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return SUCCEEDED
    except KeyboardInterrupt:
        return INTERRUPTED
    except CommandError as error:
        print_error(session.output, str(error), error.hint, {"detail": str(error)}, error.exit_code)
        return error.exit_code
    except Exception as error:
        from trainkit_client import TrainkitError

        if not isinstance(error, TrainkitError):
            raise
        code = exit_code_of(error)
        document = getattr(error, "document", None) or {"detail": str(error), "code": type(error).__name__}
        print_error(session.output, str(error), "", document, code)
        return code


def exit_code_of(error: Exception) -> int:
    """Return the exit code of an error of the SDK."""
    from trainkit_client import errors

    status = getattr(error, "status", None)
    if isinstance(error, errors.Unreachable) or status in AWAY:
        return UNREACHABLE
    if isinstance(error, errors.NotFound):
        return NOT_FOUND
    if isinstance(error, errors.Refused):
        return REFUSED
    if isinstance(error, errors.ConfigError | errors.AmbiguousReference | errors.MissingExtra | ValueError):
        return USAGE
    return FAILED


def print_error(output: Output, message: str, hint: str, document: dict[str, Any], code: int) -> None:
    """Print an error to stderr: as text, or with --json as the problem document and the exit code."""
    if output.as_json:
        print(json.dumps({**document, "exit_code": code}), file=sys.stderr)
        return
    output.error(message)
    if hint:
        output.note(hint)

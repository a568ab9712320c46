"""Help pages: plain text with bold headings. They must be quick, and rich's own need 0.2 s to import."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import Any

from typer.core import TyperCommand, TyperGroup

SHARED_OPTIONS = frozenset({"as_json", "quiet", "url", "profile", "help"})
"""Parameters that are on every page: listed after the command's own."""
DEFAULT_PANEL = "Commands"


def uses_color(stream: Any = None) -> bool:
    """Whether to write colors: to a terminal, unless NO_COLOR is set (https://no-color.org)."""
    stream = stream or sys.stdout
    return bool(not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb" and stream.isatty())


def bold(text: str) -> str:
    """Return the text in bold where colors are written."""
    return f"\033[1m{text}\033[0m" if uses_color() else text


def list_options(command: Any, ctx: Any, formatter: Any) -> None:
    """Write arguments, the command's own options, and those that all commands have."""
    sections: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": [], "Options of all commands": []}
    for parameter in command.get_params(ctx):
        record = parameter.get_help_record(ctx)
        if record is None:
            continue
        if parameter.param_type_name == "argument":
            sections["Arguments"].append(record)
        elif parameter.name in SHARED_OPTIONS:
            sections["Options of all commands"].append(record)
        else:
            sections["Options"].append(record)
    for heading, records in sections.items():
        if records:
            with formatter.section(bold(heading)):
                formatter.write_dl(records, col_max=34)


def list_examples(command: Any, formatter: Any) -> None:
    """Write the examples, one command a line."""
    if command.epilog:
        with formatter.section(bold("Examples" if "\n" in command.epilog.strip() else "Example")):
            for line in command.epilog.strip().splitlines():
                formatter.write(f"{' ' * formatter.current_indent}{line.strip()}\n")


class HelpCommand(TyperCommand):
    """A command whose epilog is its examples, one a line."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write usage, text, options and examples."""
        self.format_usage(ctx, formatter)
        self.format_help_text(ctx, formatter)
        list_options(self, ctx, formatter)
        list_examples(self, formatter)


class HelpGroup(TyperGroup):
    """A group that lists its commands under headings, their `rich_help_panel`."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write usage, text, commands, options and examples."""
        self.format_usage(ctx, formatter)
        self.format_help_text(ctx, formatter)
        sections: dict[str, list[tuple[str, str]]] = {}
        for name, text, panel in self.summaries(ctx):
            sections.setdefault(panel, []).append((name, text))
        for heading, rows in sections.items():
            with formatter.section(bold(heading)):
                formatter.write_dl(rows)
        list_options(self, ctx, formatter)
        list_examples(self, formatter)

    def summaries(self, ctx: Any) -> Iterator[tuple[str, str, str]]:
        """Yield name, first sentence and heading of each command."""
        for name in self.list_commands(ctx):
            command = self.get_command(ctx, name)
            if command is not None and not command.hidden:
                panel = getattr(command, "rich_help_panel", None)
                yield name, command.get_short_help_str(limit=200), panel if isinstance(panel, str) else DEFAULT_PANEL

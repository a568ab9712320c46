"""What a command prints: text for people, JSON with --json, ids with --quiet. Colors and fitted tables in a terminal only."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from trainkit_client.cli.help import uses_color

CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
"""Characters that a terminal reads as commands, or that turn the direction of writing around."""
STYLES = {
    "succeeded": "32",
    "ready": "32",
    "running": "36",
    "starting": "36",
    "failed": "31",
    "invalid": "31",
    "error": "31",
    "stopped": "33",
    "paused": "33",
    "warning": "33",
    "queued": "2",
    "validating": "2",
    "cancelled": "2",
}
"""States and severities -> SGR codes."""
GAP = "  "


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table.

    Args:
        title: Its heading.
        value: The text of a row.
        shrinks: Whether it is cut where the terminal is too narrow.
        min_width: Of the terminal. In a narrower one the column is left out where the table does not fit.
        right: Whether its values end at the same place.
    """

    title: str
    value: Callable[[dict[str, Any]], Any]
    shrinks: bool = False
    min_width: int = 0
    right: bool = False


class Output:
    """Where a command's answer goes."""

    def __init__(self, as_json: bool = False, quiet: bool = False) -> None:
        self.as_json = as_json
        self.quiet = quiet

    @property
    def terminal(self) -> bool:
        """Whether a person looks: text may be cut, and redrawn."""
        return sys.stdout.isatty() and not self.as_json and not self.quiet

    @property
    def width(self) -> int:
        """Columns of the terminal."""
        return shutil.get_terminal_size((80, 24)).columns

    def json(self, document: Any) -> None:
        """Print a document as JSON."""
        print(json.dumps(document, indent=2, ensure_ascii=False))

    def json_line(self, document: Any) -> None:
        """Print a document as a line of JSON Lines."""
        print(json.dumps(document, ensure_ascii=False), flush=True)

    def line(self, text: str = "") -> None:
        """Print a line of text for people."""
        if not self.as_json and not self.quiet:
            print(printable(text), flush=True)

    def styled(self, text: str) -> None:
        """Print text that holds codes of colors."""
        if not self.as_json and not self.quiet:
            print(text, flush=True)

    def note(self, text: str) -> None:
        """Print something beside the answer: to stderr."""
        if not self.quiet:
            print(multiline(text), file=sys.stderr, flush=True)

    def error(self, text: str) -> None:
        """Print why a command ends: to stderr, also with --quiet."""
        mark = "\033[31mtrainkit:\033[0m" if uses_color(sys.stderr) else "trainkit:"
        print(f"{mark} {multiline(text)}", file=sys.stderr, flush=True)

    def document(self, document: dict[str, Any], text: str | None = None, identity: str | None = None) -> None:
        """Print one thing: its document, its id, or a text."""
        if self.as_json:
            self.json(document)
        elif self.quiet:
            print(printable(str(identity if identity is not None else document.get("id", ""))))
        elif text is not None:
            self.line(text)

    def rows(self, rows: Iterable[dict[str, Any]], columns: Sequence[Column], empty: str, key: str = "id") -> None:
        """Print a list: a JSON array, ids alone, or a table."""
        if self.as_json:
            self.json(list(rows))
        elif self.quiet:
            for row in rows:
                print(printable(str(row.get(key, ""))))
        elif found := list(rows):
            self.table(found, columns)
        else:
            self.note(empty)

    def table(self, rows: Sequence[dict[str, Any]], columns: Sequence[Column]) -> None:
        """Print a table: fitted to a terminal; elsewhere whole, without colors, for other programs."""
        shown = list(columns)
        width = self.width if self.terminal else 10_000
        while True:
            cells = [[printable(shown_value(column.value(row))) for column in shown] for row in rows]
            widths = [
                max([display_width(column.title), *(display_width(line[number]) for line in cells)])
                for number, column in enumerate(shown)
            ]
            over = sum(widths) + len(GAP) * (len(shown) - 1) - width
            droppable = [column for column in shown if column.min_width > width]
            if over <= 0 or not droppable:
                break
            shown.remove(max(droppable, key=lambda column: column.min_width))
        for number in sorted(range(len(shown)), key=lambda number: -widths[number]):
            if over > 0 and shown[number].shrinks:
                cut = min(over, max(0, widths[number] - max(6, display_width(shown[number].title))))
                widths[number] -= cut
                over -= cut
        self.styled(bold_line(_row([column.title.upper() for column in shown], shown, widths, color=False)))
        for line in cells:
            self.styled(_row(line, shown, widths, color=uses_color()))

    def fields_for_people(self, pairs: Iterable[tuple[str, Any]]) -> None:
        """Print names and values below one another; pairs without a value are left out."""
        if self.as_json or self.quiet:
            return
        found = [(name, shown_value(value)) for name, value in pairs if value not in (None, "", [], {})]
        size = max((len(name) for name, _ in found), default=0)
        for name, value in found:
            lines = multiline(value).splitlines() or [""]
            text = f"\n{' ' * (size + 2)}".join(colored(line, value) if uses_color() else line for line in lines)
            self.styled(f"{name.ljust(size)}  {text}")


def _row(texts: Sequence[str], columns: Sequence[Column], widths: Sequence[int], *, color: bool) -> str:
    parts = []
    for text, column, width in zip(texts, columns, widths, strict=True):
        fitted = cut(text, width)
        space = " " * (width - display_width(fitted))
        shown = colored(fitted, text) if color else fitted
        parts.append(space + shown if column.right else shown + space)
    return GAP.join(parts).rstrip()


def colored(text: str, value: str) -> str:
    """Return a state in its color."""
    style = STYLES.get(value)
    return f"\033[{style}m{text}\033[0m" if style else text


def bold_line(text: str) -> str:
    """Return a heading."""
    return f"\033[1m{text}\033[0m" if uses_color() else text


def printable(text: str) -> str:
    """Return text of others with control characters as escapes: none of them works in a terminal."""
    return text if text.isprintable() else CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def multiline(text: str) -> str:
    """Return the same of text whose line ends are meant."""
    return "\n".join(printable(line) for line in text.split("\n"))


def display_width(text: str) -> int:
    """Return how many cells of a terminal a text takes."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def cut(text: str, width: int) -> str:
    """Return the text in at most so many cells; what is cut ends in an ellipsis."""
    if display_width(text) <= width:
        return text
    while text and display_width(text) > width - 1:
        text = text[:-1]
    return f"{text}…" if width > 0 else ""


def shown_value(value: Any) -> str:
    """Return a value as text."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return number(value)
    if isinstance(value, dict):
        return ", ".join(f"{name}={shown_value(item)}" for name, item in value.items())
    if isinstance(value, list):
        return ", ".join(shown_value(item) for item in value)
    return str(value)


def number(value: float | None) -> str:
    """Return a number in four digits."""
    return "-" if value is None else f"{value:.4g}"


def size(count: float | None) -> str:
    """Return a number of bytes, such as `4.2 MB`."""
    if count is None:
        return "-"
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def duration(seconds: float | None) -> str:
    """Return a time span: `48 s`, `3 min`, `2 h 5 min`, `4 d`."""
    if seconds is None:
        return "-"
    seconds = max(0.0, seconds)
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    if minutes < 2880:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes // 1440} d"


def parsed_time(text: str | None) -> datetime | None:
    """Return a time of the service."""
    return datetime.fromisoformat(text) if text else None


def age(text: str | None) -> str:
    """Return how long ago a time was."""
    moment = parsed_time(text)
    return "-" if moment is None else duration((datetime.now(UTC) - moment).total_seconds())


def local_time(text: str | None) -> str | None:
    """Return a time of the service on the clock of this machine."""
    moment = parsed_time(text)
    return None if moment is None else moment.astimezone().strftime("%Y-%m-%d %H:%M:%S")

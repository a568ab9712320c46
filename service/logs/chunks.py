"""Lines of a log, and many of them in one body: zlib over a JSON array of [at, level, source, text]."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

Level = Literal["debug", "info", "warning", "error"]
Source = Literal["training", "supervisor"]
LEVELS: tuple[Level, ...] = ("debug", "info", "warning", "error")
SOURCES: tuple[Source, ...] = ("training", "supervisor")
LINE_CHARACTERS = 4000
CUT = " ... (cut)"
# Colours and cursor movements, then whatever else would move a reader's terminal or does not fit a text column.
UNSEEN = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]|[\x00-\x08\x0a-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line as it was said; `at` in Unix seconds."""

    at: float
    level: Level
    source: Source
    text: str


def clean(line: LogLine) -> LogLine:
    """The line without control characters, and not too long."""
    text = UNSEEN.sub("", line.text[: 4 * LINE_CHARACTERS])
    if len(text) > LINE_CHARACTERS:
        text = text[:LINE_CHARACTERS] + CUT
    return replace(line, text=text)


def encode(lines: Sequence[LogLine]) -> bytes:
    """Lines to a body, in their order."""
    rows = [[round(line.at, 3), LEVELS.index(line.level), SOURCES.index(line.source), line.text] for line in lines]
    return zlib.compress(json.dumps(rows, ensure_ascii=False, separators=(",", ":")).encode(), 6)


def decode(body: bytes) -> list[LogLine]:
    """A body to its lines, in their order."""
    rows = json.loads(zlib.decompress(body))
    return [LogLine(at, LEVELS[level], SOURCES[source], text) for at, level, source, text in rows]

"""A training process's log file as lines, read while it grows: bounded in memory, in lines and in bytes.

The file is the spool: what has not been read lies there. Beyond the limits nothing is decoded any more; lines are
counted, and the last ones kept, for the end of a log says why a process died.
"""

from __future__ import annotations

import re
import time
from datetime import datetime
from pathlib import Path

from service.logs.chunks import LINE_CHARACTERS, Level, Line

BLOCK = 1 << 16
MOST_LINES = 50_000
MOST_BYTES = 8 << 20
LINE_BYTES = 4 * LINE_CHARACTERS + 16
LAST_LINES = 200
LAST_BYTES = 1 << 15
SKIPPED_AT_ONCE = 64
"""Blocks of 1 MiB that one call passes over: a disk that is slow must not keep the lease waiting."""
TIMED = re.compile(r"(\d{4}-\d\d-\d\dT[\d:.]{8,15}(?:Z|[+-]\d\d:?\d\d)) (debug|info|warning|error) (.*)", re.DOTALL)
WARNING = re.compile(r"\w*Warning: ")


class LogTail:
    """Follows the log file of one attempt; it need not exist yet."""

    def __init__(self, path: Path, most_lines: int = MOST_LINES, most_bytes: int = MOST_BYTES) -> None:
        self.path = path
        self.offset = 0
        self._most_lines = most_lines
        self._most_bytes = most_bytes
        self._rest = b""
        self._lines = 0
        self._full = False
        self._dropped = 0
        self._cut = False
        self._in_traceback = False

    def read(self) -> list[Line]:
        """The next whole lines; [] when there is nothing new, or too much was said before."""
        if self._full:
            self._skip()
            return []
        *whole, rest = (self._rest + self._block(BLOCK)).split(b"\n")
        # of a line that has not ended only so much is kept as would be shown
        self._rest = rest[rest.rfind(b"\r", 0, -1) + 1 :][:LINE_BYTES]
        lines = [self._line(raw) for raw in whole]
        self._lines += len(lines)
        if self._lines >= self._most_lines or self.offset >= self._most_bytes:
            self._full = True
            said = f"... {self._lines} lines have been said: of what follows only the last {LAST_LINES} are kept"
            lines.append(Line(time.time(), "warning", "supervisor", said))
        return lines

    def end(self) -> list[Line]:
        """What is left when the process has ended and all was read: a line without its end, or the last of too many."""
        raw, self._rest = self._rest, b""
        if not self._full:
            return [self._line(raw)] if raw else []
        *shown, unfinished = raw.split(b"\n")
        if unfinished:
            shown.append(unfinished)
            self._dropped += 1
        if self._cut:
            shown = shown[1:]  # only the end of a line
        shown = shown[-LAST_LINES:]
        dropped, self._dropped, self._cut = self._dropped - len(shown), 0, False
        lines = [Line(time.time(), "warning", "supervisor", f"... {dropped} lines dropped")] if dropped > 0 else []
        return lines + [self._line(raw) for raw in shown]

    def _block(self, size: int) -> bytes:
        try:
            with self.path.open("rb") as file:
                file.seek(self.offset)
                block = file.read(size)
        except OSError:
            return b""
        self.offset += len(block)
        return block

    def _skip(self) -> None:
        for _ in range(SKIPPED_AT_ONCE):
            block = self._block(1 << 20)
            if not block:
                return
            self._dropped += block.count(b"\n")
            self._cut = self._cut or len(self._rest) + len(block) > LAST_BYTES
            self._rest = (self._rest + block)[-LAST_BYTES:]

    def _line(self, raw: bytes) -> Line:
        """A line of ours has time and level; others are judged by how they look. Of a progress bar the last state."""
        text = raw.rstrip(b"\r").rpartition(b"\r")[2][:LINE_BYTES].decode(errors="replace")
        if ours := TIMED.fullmatch(text):
            try:
                at = datetime.fromisoformat(ours[1]).timestamp()
            except ValueError:
                at = time.time()
            self._in_traceback = False
            level: Level = ours[2]  # type: ignore[assignment]
            return Line(at, level, "training", ours[3])
        return Line(time.time(), self._level(text), "training", text)

    def _level(self, text: str) -> Level:
        if text.startswith(("Traceback (most recent call last)", "Fatal Python error")):
            self._in_traceback = True
            return "error"
        if self._in_traceback:
            # the first line at the margin is the exception itself
            self._in_traceback = not text or text[0].isspace()
            return "error"
        return "warning" if WARNING.search(text) else "info"

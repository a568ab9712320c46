"""A process's log file as lines: as they come, with the levels they show, and never without bounds."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.logs.chunks import LogLine
from worker import log_shipper
from worker.log_shipper import LogTail


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "log.txt"


def say(file: Path, text: str) -> None:
    with file.open("a") as end:
        end.write(text)


def texts(lines: list[LogLine]) -> list[str]:
    return [line.text for line in lines]


def test_whole_lines_come_once_and_the_last_at_the_end(file: Path) -> None:
    tail = LogTail(file)
    assert tail.read() == [], "the file need not be there"
    say(file, "one\ntw")
    assert texts(tail.read()) == ["one"]
    assert tail.read() == []
    say(file, "o\nthree")
    assert texts(tail.read()) == ["two"]
    assert tail.read() == []
    assert texts(tail.end()) == ["three"]
    assert tail.end() == []


def test_a_progress_bar_is_its_last_state(file: Path) -> None:
    tail = LogTail(file)
    for percent in range(0, 100_000, 7):
        say(file, f"\r{percent} of 100000") if percent % 7000 == 0 else None
    say(file, "\rdone\nnext\r\n")
    assert texts(tail.read()) == ["done", "next"]


def test_levels_are_those_said_or_shown(file: Path) -> None:
    say(
        file,
        "2026-01-02T03:04:05.678+00:00 warning slow disk\n"
        "plain\n"
        "x.py:3: UserWarning: careful\n"
        "Traceback (most recent call last):\n"
        '  File "x.py", line 1, in <module>\n'
        "ValueError: no\n"
        "plain again\n"
        "2026-01-02T03:04:05+0000 debug d\n"
        "2026-99-99T03:04:05+0000 error e\n",
    )
    lines = LogTail(file).read()
    levels = ["warning", "info", "warning", "error", "error", "error", "info", "debug", "error"]
    assert [line.level for line in lines] == levels
    assert (lines[0].at, lines[0].text) == (1767323045.678, "slow disk")
    assert lines[-1].text == "e"


def test_a_line_without_an_end_is_bounded(file: Path) -> None:
    tail = LogTail(file)
    for _ in range(40):
        say(file, "x" * 65536)
        assert tail.read() == []
        assert len(tail._rest) <= log_shipper.LINE_BYTES
    say(file, "\nafter\n")
    first, second = tail.read()
    assert (set(first.text), second.text) == ({"x"}, "after")


@pytest.mark.parametrize(("lines", "size"), [(100, 1 << 30), (1 << 30, 1000)])
def test_beyond_the_limit_lines_are_counted_and_the_last_kept(file: Path, lines: int, size: int) -> None:
    tail = LogTail(file, max_lines=lines, max_bytes=size)
    say(file, "".join(f"line {n}\n" for n in range(150)))
    first = tail.read()
    assert texts(first[:-1]) == [f"line {n}" for n in range(150)]
    assert (first[-1].source, first[-1].level) == ("supervisor", "warning")
    assert "150 lines so far" in first[-1].text
    say(file, "".join(f"line {n}\n" for n in range(150, 20_000)) + "ValueError: why")
    assert tail.read() == []
    dropped, *last = tail.end()
    kept = len(last)
    assert 0 < kept <= log_shipper.LAST_LINES
    assert dropped.text == f"... {20_000 - 150 + 1 - kept} lines dropped"
    assert texts(last) == [f"line {n}" for n in range(20_000 - kept + 1, 20_000)] + ["ValueError: why"]
    assert tail.end() == []


def test_bytes_that_are_no_text_are_shown_as_such(file: Path) -> None:
    file.write_bytes(b"\xff\xfe ok\n")
    assert texts(LogTail(file).read()) == ["\ufffd\ufffd ok"]

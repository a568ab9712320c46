"""Text of users that renderers would interpret: terminals, logs, spreadsheets; and paths in tracebacks."""

from __future__ import annotations

import json
import sys

import pytest

import trainkit.spec.text as texts
from trainkit.tracebacks import ROOT, traceback_of, without_paths

HOSTILE = (
    "\x1b[2J",
    "\x07",
    "a\nb",
    "a\rb",
    "a\u2028b",
    "a\u2029b",
    "\u202ea",
    "\u2066a",
    "\x85",
    "\x9b31m",
    "\x00",
    "\u200f",
)


@pytest.mark.parametrize("text", HOSTILE)
def test_nothing_is_left_that_a_terminal_would_run(text: str) -> None:
    for shown in (texts.one_line(text), texts.escaped(text)):
        assert shown.isprintable()
        assert len(shown.splitlines()) == 1
    assert json.loads(f'"{texts.escaped(text)}"') == text, "an escape says what was there"


@pytest.mark.parametrize("text", ["plain", "Zürich", "日本語", "👩\u200d👧", "a\\b", "שלום"])
def test_other_text_stays(text: str) -> None:
    assert texts.one_line(text) == texts.escaped(text) == text


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "\uff1d1"])
def test_a_spreadsheet_runs_no_cell(text: str) -> None:
    assert texts.csv_text(text) == "'" + text


@pytest.mark.parametrize("text", ["", "val_loss", "a=b", "1-2", "'=1"])
def test_other_cells_stay(text: str) -> None:
    assert texts.csv_text(text) == text


def test_a_traceback_names_files_but_not_where_the_server_lies() -> None:
    try:
        json.loads("{")
    except ValueError as error:
        shown = traceback_of(error)
    assert 'File "tests/trainkit/spec/test_text.py", line' in shown
    assert "json/decoder.py" in shown
    for path in (str(ROOT), sys.base_prefix, sys.prefix):
        assert path not in shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("[Errno 2] No such file: '/srv/trainkit/storage/models/x.bin'", "[Errno 2] No such file: '.../x.bin'"),
        (
            '  File "/opt/v/lib/python3.11/site-packages/torch/x.py", line 3',
            '  File "site-packages/torch/x.py", line 3',
        ),
        ("see https://host/a/b/c and a/b/c, 3/4 or /a", "see https://host/a/b/c and a/b/c, 3/4 or /a"),
    ],
)
def test_paths_of_the_server_are_cut(text: str, shown: str) -> None:
    assert without_paths(text) == shown

"""The history as Markdown, for people and for agents that read it whole."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from service.history.schemas import HistoryOut, HistoryReason, HistoryResult, HistoryRun
from service.timestamps import rfc3339

MOST_CHARACTERS = 200
"""Of one cell."""
ESCAPED = {
    "&": "&amp;",
    "<": "&lt;",
    "|": "\\|",
    "`": "\\`",
    "*": "\\*",
    "_": "\\_",
    "[": "\\[",
    "]": "\\]",
    "#": "\\#",
}


def as_markdown(history: HistoryOut) -> str:
    """Return what JSON has: a summary, a row a run, then the notes. Texts of users are shown as text."""
    return "\n".join([*_summary(history), "", *_table(history), *_notes(history)]) + "\n"


def _summary(history: HistoryOut) -> Iterator[str]:
    kind = f" ({history.kind}, {history.state})" if history.kind else ""
    yield f"# History of {_text(history.name or history.group)}{kind}"
    yield ""
    states = ", ".join(f"{count} {state}" for state, count in history.states.items())
    yield f"- Runs: {history.total} ({states})"
    better = "smaller" if history.direction == "min" else "larger"
    yield f"- Compared by {history.metric.replace('_', chr(92) + '_')}, {better} is better"
    if history.best is not None:
        yield f"- Best: run {history.best}"
    if (plateau := history.plateau) is not None and plateau.since is not None:
        since = f"{plateau.runs} ended since the last improvement, run {plateau.since}"
        yield f"- Plateau: {'reached' if plateau.reached else 'not reached'}; {since}. Rule: {_text(plateau.rule, 1000)}"
    if history.reason:
        yield f"- Ended: {_text(history.reason)}"


def _table(history: HistoryOut) -> Iterator[str]:
    if not history.data:
        return
    yield "| run | job | state | tried | result | note |"
    yield "|---|---|---|---|---|---|"
    for run in history.data:
        cells = [str(run.index), run.job or "", _state(run), _tried(run), _result(run.result), _text(run.note or "")]
        yield f"| {' | '.join(cells)} |"
    first, last = history.data[0].index, history.data[-1].index
    more = f"; go on with `after={history.next}`" if history.next else ""
    yield ""
    yield f"Runs {first} to {last} of {history.total}{more}."


def _notes(history: HistoryOut) -> Iterator[str]:
    if not history.notes:
        return
    yield ""
    yield "## Notes"
    if history.notes_total > len(history.notes):
        yield f"The newest {len(history.notes)} of {history.notes_total}."
    yield ""
    for note in history.notes:
        yield f"- {rfc3339(note.at)} {_text(note.actor)}: {_text(note.text, len(note.text))}"


def _state(run: HistoryRun) -> str:
    why = run.error or run.stop_reason
    return f"{run.state} ({_text(why)})" if why else run.state


def _tried(run: HistoryRun) -> str:
    return "; ".join(part for part in (_text(run.name), _why(run.why)) if part)


def _why(why: HistoryReason) -> str:
    code = f" {_text(why.code)}" if why.code and why.source == "autopilot" else ""
    reason = f"{why.source}{code}: {_text(why.text)}" if why.text else ""
    patch = _text(json.dumps(why.patch, ensure_ascii=False)) if why.patch else ""
    return "; ".join(part for part in (reason, patch) if part)


def _result(result: HistoryResult | None) -> str:
    if result is None:
        return ""
    interval = f" ({result.low:.4g} to {result.high:.4g})" if result.low is not None and result.high is not None else ""
    return f"{result.value:.4g}{interval}{' improved' if result.improved else ''}"


def _text(text: Any, most: int = MOST_CHARACTERS) -> str:
    """One line in which nothing is Markdown or HTML."""
    line = " ".join(str(text).split())
    line = line if len(line) <= most else line[: most - 3] + "..."
    return "".join(ESCAPED.get(character, character) for character in line)

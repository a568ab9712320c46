"""JSON Lines, or one JSON list of objects: from text to records."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from trainkit.data.errors import data_error
from trainkit.data.limits import check_cells, check_names
from trainkit.data.table.delimited import check_bad_rows
from trainkit.spec.json_errors import json_reason

JSON_ARRAY = re.compile(r"\s*\[\s*\{")
ABSENT: Any = type("Absent", (), {"__repr__": lambda self: "ABSENT"})()
"""The value of a field that a record leaves out."""


class DuplicateKeyError(ValueError):
    """A JSON object that gives one field twice."""


def unique_keys(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Build an object, as json's `object_pairs_hook`. Raises DuplicateKeyError."""
    built = dict(pairs)
    if len(built) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise DuplicateKeyError(f'the field "{twice}" is there twice')
    return built


def json_lines(text: str, bad: list[dict[str, str]]) -> tuple[list[dict[str, Any]], list[int]]:
    """Return (records, their lines). Lines that are no JSON object are appended to `bad`; too many raise DataError."""
    records: list[dict[str, Any]] = []
    lines: list[int] = []
    total = 0
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        total += 1
        try:
            record = json.loads(line, object_pairs_hook=unique_keys)
        except (ValueError, RecursionError) as error:
            reason = str(error) if isinstance(error, DuplicateKeyError) else f"not JSON: {json_reason(error)}"
            bad.append({"where": f"line {number}", "reason": reason})
            continue
        if not isinstance(record, dict):
            bad.append({"where": f"line {number}", "reason": "not a JSON object"})
            continue
        records.append(record)
        lines.append(number)
    check_bad_rows(bad, len(bad), total)
    return records, lines


def json_list(text: str, where: str) -> list[dict[str, Any]]:
    """Return the records of one JSON list. Raises DataError."""
    try:
        records = json.loads(text, object_pairs_hook=unique_keys)
    except DuplicateKeyError as error:
        raise data_error("bad_json", str(error), where, "Name each field of a row once.") from None
    except (ValueError, RecursionError) as error:
        hint = "Write one list of objects, or one object on each line."
        raise data_error("bad_json", f"not JSON: {json_reason(error)}", where, hint) from None
    for row, record in enumerate(records, 1):
        if not isinstance(record, dict):
            raise data_error("bad_json", "not a JSON object", f"row {row}", "Each entry of the list must be one row.")
    return list(records)


def fields_of(records: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Return the values of each field, ABSENT where a record leaves it out, in order of appearance.

    Raises DataError for too many fields, and for records of so many different fields that most would be absent.
    """
    names = dict.fromkeys(name for record in records for name in record)
    check_cells(len(records), len(names), "")
    check_names(names, "")
    return {name: [record.get(name, ABSENT) for record in records] for name in names}

"""What a dataset's report says of how each column was read: type, missing words, what did not fit, what is ambiguous."""

from __future__ import annotations

from typing import Any

from trainkit.data.findings import Finding, finding
from trainkit.data.table.column_detection import MOST_EXAMPLES, DetectedColumn, listed
from trainkit.data.table.column_format import shown

NOUNS = {"number": "numbers", "date": "dates", "boolean": "booleans", "category": "values of text"}
MOST_WORDS = 20


def reading_of(detected: DetectedColumn) -> dict[str, Any]:
    """Return what the report lists of one column, as plain data."""
    column, missing = detected.format, detected.missing
    present = detected.total - sum(missing.values())
    words = sorted(missing.items(), key=lambda item: -item[1])
    entry: dict[str, Any] = {
        "read_as": column.type,
        "chosen": detected.chosen,
        "summary": _summary(detected, present, missing),
        "missing_words": dict(words[:MOST_WORDS]),
    }
    if column.type == "number" and not column.typed:
        entry |= {"decimal": column.decimal, "thousands": column.thousands, "unit": column.unit or None}
    if column.type == "date":
        entry["date_format"] = column.date_format or "ISO 8601"
    if detected.misfits:
        count = sum(detected.misfits.values())
        examples = [word for word, _ in sorted(detected.misfits.items(), key=lambda item: -item[1])][:MOST_EXAMPLES]
        entry["did_not_fit"] = {
            "type": detected.misfit_type,
            "count": count,
            "share": round(count / max(1, present), 6),
            "examples": {word: detected.misfits[word] for word in examples},
        }
    if detected.alternatives:
        entry["alternatives"] = list(detected.alternatives)
    return entry


def _summary(detected: DetectedColumn, present: int, missing: dict[str, int]) -> str:
    """`52,281 numbers; 1,061 times `nil``."""
    column = detected.format
    noun = NOUNS[column.type]
    parts = [f"{present:,} {noun[:-1] if present == 1 and column.type != 'category' else noun}"]
    for word, count in sorted(missing.items(), key=lambda item: -item[1])[:MOST_EXAMPLES]:
        times = "once" if count == 1 else f"{count:,} times"
        parts.append(f"{times} `{word}`" if word else f"{times} empty")
    text = "; ".join(parts)
    if column.type == "number" and (column.decimal != "." or column.thousands):
        text += f'; decimal "{column.decimal}"' + (f', thousands "{column.thousands}"' if column.thousands else "")
    if column.unit:
        text += f", each with `{column.unit}` taken off"
    if column.type == "date":
        text += f"; read as {column.date_format or 'ISO 8601'}, a model gets days since the first one in training"
    return text


def findings_of(detected: DetectedColumn) -> list[Finding]:
    """Return what a user should look at: how it was read is said, and how to say otherwise."""
    column, found = detected.format, []
    name = column.name
    words = {word: count for word, count in detected.missing.items() if word}
    if words:
        message = f"read as missing: {listed(words)}; set the column's `missing` if these are values"
        found.append(finding("info", "missing_words", message, name))
    if detected.misfits:
        present = detected.total - sum(detected.missing.values())
        count = sum(detected.misfits.values())
        nouns = NOUNS[detected.misfit_type]
        message = (
            f"all but {count} of {present} values are {nouns}: {listed(detected.misfits)}. The column is read as text. If "
            f'these mean "no value", set columns: {{{shown(name)}: {{"type": "{detected.misfit_type}", "missing": [...]}}}}'
        )
        found.append(finding("warning", "mostly_numbers" if nouns == "numbers" else "mostly_dates", message, name))
    if detected.codes:
        message = (
            "whole numbers with leading zeros, or beyond 2^53, are kept as text; set the type number if they count"
        )
        found.append(finding("info", "codes_as_text", message, name))
    if column.unit and not detected.chosen:
        message = (
            f"all values are numbers with `{column.unit}`, and are read as the numbers beside it, without scaling; set the "
            "type category if they name things"
        )
        found.append(finding("info", "numbers_with_a_sign", message, name))
    if detected.number_texts:
        message = "the values are numbers written as text, so they are categories; set the type number if they count"
        found.append(finding("info", "numbers_as_text", message, name))
    if detected.alternatives and column.type == "number":
        message = (
            f'read with decimal "{column.decimal}" and thousands "{column.thousands}"; but {detected.alternatives[0]}: '
            "set the column's `decimal` and `thousands` if that is meant"
        )
        found.append(finding("warning", "ambiguous_separator", message, name))
    elif detected.alternatives:
        message = (
            f"may be dates, as {' or '.join(detected.alternatives)}; set the column's type date and its `date_format`"
        )
        found.append(finding("warning", "ambiguous_date", message, name))
    if column.type == "date":
        date_format = column.date_format or "ISO 8601"
        message = f"dates ({date_format}): a model gets days since the first one of its training part"
        found.append(finding("info", "dates", message, name))
    return found

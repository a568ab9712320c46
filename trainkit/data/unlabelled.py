"""Samples without a label, where labels are chosen at intake: left out with a finding, refused where they are most."""

from __future__ import annotations

from collections.abc import Sequence

from trainkit.data.errors import data_error
from trainkit.data.findings import Finding, finding
from trainkit.spec.facts import MOST_UNLABELLED

MOST_EXAMPLES = 5


def unlabelled_finding(places: Sequence[str], total: int, noun: str, column: str) -> list[Finding]:
    """Return what the report says of `places` without a label among `total`. Raises DataError if most have none."""
    count = len(places)
    if not count:
        return []
    listed = ", ".join(places[:MOST_EXAMPLES]) + (" ..." if count > MOST_EXAMPLES else "")
    message = f'{count} of {total} {noun} have no value in the label column "{column}" ({listed})'
    if count > MOST_UNLABELLED * total:
        hint = "Remove them, name another `target`, or set the column's `missing` if one of its values was read as missing."
        raise data_error("missing_labels", message, column, hint)
    return [finding("warning", "unlabelled_rows", f"{message}: they are left out", column)]

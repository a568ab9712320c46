"""What held-out samples have told before: copies of them in training, and features that give the target away."""

from __future__ import annotations

from trainkit.diagnose.record import Record, leading_number
from trainkit.diagnose.verdicts import Verdict, graded
from trainkit.spec.shapes import feature_columns

LEAKED = 0.01
"""Share of the held-out samples that training has seen."""
COPIES = 0.05
"""Share of exact copies in data that is cut at random."""


def leakage(record: Record) -> Verdict | None:
    """Samples of the training part, or near copies of them, are 1 % or more of the shipped held-out parts; or exact
    copies are 5 % or more of data that is cut at random (some fall on both sides); or the report says of a feature in
    use that it alone tells the target."""
    found = [one for one in (_given_away(record), _copied(record)) if one is not None]
    return max(found, key=lambda one: one.confidence, default=None)


def giveaway_columns(record: Record) -> list[str]:
    """Features in use that tell the target by themselves: names of columns, of arrays `feature 3`."""
    told = [one["where"] for one in record.findings("target_leak")]
    if record.facts.kind != "table":
        return told
    used = {column.name for column in feature_columns(record.spec, record.facts)}
    return [name for name in told if name in used]


def _given_away(record: Record) -> Verdict | None:
    names = giveaway_columns(record)
    if not names:
        return None
    found = [one["message"] for one in record.findings("target_leak") if one["where"] in names]
    return Verdict(
        "leakage",
        0.9,
        None,
        f"{found[0][0].upper()}{found[0][1:]}",
        {
            "features": names[:20],
            "findings": found[:10],
            "cannot_tell": "Whether it is there when a prediction is asked for: if so, it is no leak but an easy task.",
            "series": ["val_loss", "val_accuracy"] if record.classification else ["val_loss", "val_r2"],
        },
    )


def _copied(record: Record) -> Verdict | None:
    if record.spec.split.copies == "drop":
        return None
    shipped = bool(record.facts.splits) and record.spec.split.keeps_shipped
    held = max(1, sum(record.parts[1:]))
    if shipped:
        found = record.findings("leakage", "near_leakage")
        share = sum(leading_number(one["message"]) for one in found) / held
        confidence = graded(share, LEAKED, 0.2, 0.7)
        limit = LEAKED
    else:
        found = record.findings("duplicates")
        share = sum(leading_number(one["message"]) for one in found) / max(1, record.facts.samples)
        confidence, limit = graded(share, COPIES, 0.5, 0.5, 0.75), COPIES
    if not found or share < limit:
        return None
    return Verdict(
        "leakage",
        confidence,
        None,
        f"{found[0]['message'][0].upper()}{found[0]['message'][1:]}.",
        {
            "share": share,
            "threshold": limit,
            "findings": [one["message"] for one in found[:10]],
            "cannot_tell": None if shipped else "How many copies fell on both sides of the random cut is not recorded.",
            "series": ["val_loss", "val_accuracy"],
        },
    )

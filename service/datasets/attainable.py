"""Keep what reference models attain with a dataset: in its report, one entry for each split."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy.orm import Session

from service.datasets import repository

MOST_KEPT = 32
"""Entries of one dataset; beyond it the oldest goes. A job's evaluation has a copy."""
FIELD = "attainable"


def kept(report: Mapping[str, Any] | None, key: str) -> dict[str, Any] | None:
    """Return the entry of a dataset's report that has this key (`trainkit.diagnose.attainable.attainable_key`)."""
    return next((entry for entry in (report or {}).get(FIELD, ()) if entry["key"] == key), None)


def keep(session: Session, dataset_id: str, found: dict[str, Any]) -> None:
    """Add an entry, or replace one with its key that was incomplete; a complete one stays. Nothing for a deleted dataset.

    The row is locked, so that jobs which measure at the same time lose none of each other's entries.
    """
    dataset = repository.locked(session, dataset_id)
    if dataset is None or dataset.state != "ready":
        return
    report = dataset.report or {}
    before = kept(report, found["key"])
    if before is not None and before["complete"]:
        return
    others = [entry for entry in report.get(FIELD, ()) if entry["key"] != found["key"]]
    repository.set_report(session, dataset_id, {**report, FIELD: [*others, found][-MOST_KEPT:]})

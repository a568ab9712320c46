"""Rename the optimizer kind momentum to ema_momentum in stored documents, and write out that they preprocess nothing"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

JSON = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

DOCUMENTS: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "jobs": (("id",), dict.fromkeys(("spec", "resolved", "error"), JSON)),
    "attempts": (("job_id", "fence"), {"error": JSON}),
    "experiments": (("id",), {"plan": sa.JSON()}),
    "experiment_trials": (("experiment_id", "number"), dict.fromkeys(("params", "spec", "rationale"), JSON)),
    "recommendations": (("job_id",), {"patch": JSON}),
}
"""Table -> its key, and the columns that hold a spec or a part of one; an error's evidence may offer a next spec."""
OLD, NEW, POINTER = "momentum", "ema_momentum", "/optimizer/kind"


def upgrade() -> None:
    connection = op.get_bind()
    for name, (keys, columns) in DOCUMENTS.items():
        table = sa.table(name, *map(sa.column, keys), *(sa.column(column, kind) for column, kind in columns.items()))
        for column in (table.c[name] for name in columns):
            found = connection.execute(sa.select(*(table.c[key] for key in keys)).where(column.is_not(None))).all()
            for values in found:
                row = sa.and_(*(table.c[key] == value for key, value in zip(keys, values, strict=True)))
                document = connection.execute(sa.select(column).where(row)).scalar_one()
                connection.execute(sa.update(table).where(row).values({column.name: renamed(document)}))


def renamed(document: Any) -> Any:
    """The document with the new kind, at any depth, in the same order: in optimizers and in values for their kind."""
    if isinstance(document, list):
        return [renamed(item) for item in document]
    if not isinstance(document, dict):
        return document
    changed = {name: renamed(value) for name, value in document.items()}
    optimizer = changed.get("optimizer")
    if isinstance(optimizer, dict) and optimizer.get("kind") == OLD:
        changed["optimizer"] = {**optimizer, "kind": NEW}
    if {"model", "dataset"} <= set(changed) and "preprocess" not in changed:
        changed["preprocess"] = []  # left out, it now means z_score for tables
    if POINTER in changed:
        values = changed[POINTER]
        changed[POINTER] = [_kind(value) for value in values] if isinstance(values, list) else _kind(values)
    return changed


def _kind(value: Any) -> Any:
    return NEW if value == OLD else value

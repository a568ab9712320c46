"""Rename spec fields and the series of sanity checks in stored documents"""

from __future__ import annotations

import json
import struct
from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

JSON = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

DOCUMENTS: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "jobs": (
        ("id",),
        dict.fromkeys(("spec", "resolved", "error", "metrics_last", "metrics_best", "result", "evaluation"), JSON),
    ),
    "attempts": (("job_id", "fence"), {"error": JSON}),
    "experiments": (("id",), {"plan": sa.JSON()}),
    "experiment_trials": (
        ("experiment_id", "number"),
        dict.fromkeys(("params", "spec", "outcome", "rationale"), JSON),
    ),
    "recommendations": (("job_id",), dict.fromkeys(("patch", "expected", "compared", "measured"), JSON)),
}
"""Table -> its key, and the columns that hold a spec, a part of one, or names of series."""
FIELDS = {
    "train": {"accumulate": "gradient_accumulation_steps", "probes": "sanity_checks", "record": "log_stats"},
    "split": {"copies": "duplicates"},
}
"""Section of a spec, or of a patch of one -> its field -> the new name."""
POINTERS = {f"/{section}/{old}": f"/{section}/{new}" for section, names in FIELDS.items() for old, new in names.items()}
SERIES = ("probe_first_batch_", "probe_small_model_")
OLD = ("accumulate", "probe", "record", "copies", "experiment")
CHUNKS = sa.table("metric_chunks", sa.column("job_id"), sa.column("first_seq"), sa.column("body", sa.LargeBinary))


def upgrade() -> None:
    for name, (keys, columns) in DOCUMENTS.items():
        table = sa.table(name, *map(sa.column, keys), *(sa.column(column, kind) for column, kind in columns.items()))
        for column in table.c:
            if column.name in columns:
                _rewrite(table, [table.c[key] for key in keys], column)
    _rewrite_chunks()


def _rewrite(table: sa.TableClause, keys: list[sa.ColumnClause[Any]], column: sa.ColumnClause[Any]) -> None:
    """Rename the fields in every value of the column that may hold one."""
    connection = op.get_bind()
    text = sa.cast(column, sa.Text)
    found = connection.execute(sa.select(*keys).where(sa.or_(*(text.like(f"%{word}%") for word in OLD)))).all()
    for values in found:
        row = sa.and_(*(key == value for key, value in zip(keys, values, strict=True)))
        document = connection.execute(sa.select(column).where(row)).scalar_one()
        connection.execute(sa.update(table).where(row).values({column.name: renamed(document)}))


def renamed(document: Any) -> Any:
    """The document with the new names, at any depth, in the same order."""
    if isinstance(document, str):
        return _pointer(document)
    if isinstance(document, list):
        return [renamed(item) for item in document]
    if not isinstance(document, dict):
        return document
    changed: dict[str, Any] = {}
    for name, value in document.items():
        value = renamed(value)
        if name in FIELDS and isinstance(value, dict):
            value = {FIELDS[name].get(field, field): inner for field, inner in value.items()}
        if name == "experiment" and "model" in document:  # a spec; the plan of an ensemble names an experiment, too
            name = "group"
        changed["sanity_checks" if name == "probes" else _pointer(name)] = value
    return changed


def _pointer(text: str) -> str:
    """A JSON pointer to a field, or the name of a series, as it is now."""
    if text.startswith(SERIES):
        return f"sanity_check_{text.removeprefix('probe_')}"
    for old, new in POINTERS.items():
        if text == old or text.startswith(f"{old}/"):
            return f"{new}{text.removeprefix(old)}"
    return text


def _rewrite_chunks() -> None:
    """Rename the split of the sanity checks in the JSON header of every chunk: its length (4 bytes), the header, columns."""
    connection = op.get_bind()
    for job_id, first_seq in connection.execute(sa.select(CHUNKS.c.job_id, CHUNKS.c.first_seq)).all():
        row = sa.and_(CHUNKS.c.job_id == job_id, CHUNKS.c.first_seq == first_seq)
        body = connection.execute(sa.select(CHUNKS.c.body).where(row)).scalar_one()
        if b'["probe",' in body:
            connection.execute(sa.update(CHUNKS).where(row).values(body=_chunk(body)))


def _chunk(body: bytes) -> bytes:
    end = 4 + struct.unpack_from("<I", body)[0]
    header = json.loads(body[4:end])
    header["series"] = [["sanity_check" if split == "probe" else split, name] for split, name in header["series"]]
    text = json.dumps(header).encode()
    return struct.pack("<I", len(text)) + text + body[end:]

"""Drop the batching of jobs and the spec field `resources.gpus`"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

JSON = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

DOCUMENTS: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "jobs": (("id",), {"spec": JSON, "resolved": JSON, "error": JSON}),
    "attempts": (("job_id", "fence"), {"error": JSON}),
    "experiments": (("id",), {"plan": sa.JSON()}),
    "experiment_trials": (("experiment_id", "number"), {"document": JSON, "outcome": JSON, "why": JSON}),
    "prescriptions": (("job_id",), {"patch": JSON}),
}
"""Table -> its key, and the columns that hold a spec or a part of one. A spec with an unknown field is refused."""


def upgrade() -> None:
    op.drop_index("jobs_by_batch", table_name="jobs")
    # not by batch_alter_table: it would make the table anew, and dropping the old one deletes what refers to it
    op.drop_column("jobs", "batch_leader")
    for name, (keys, columns) in DOCUMENTS.items():
        table = sa.table(name, *map(sa.column, keys), *(sa.column(column, kind) for column, kind in columns.items()))
        for column in table.c:
            if column.name in columns:
                _rewrite(table, [table.c[key] for key in keys], column)


def _rewrite(table: sa.TableClause, keys: list[sa.ColumnClause[Any]], column: sa.ColumnClause[Any]) -> None:
    """Remove the fields from every value of the column that holds one."""
    connection = op.get_bind()
    text = sa.cast(column, sa.Text)
    found = connection.execute(sa.select(*keys).where(text.like('%"gpus"%') | text.like('%"batch"%'))).all()
    for values in found:
        row = sa.and_(*(key == value for key, value in zip(keys, values, strict=True)))
        document = connection.execute(sa.select(column).where(row)).scalar_one()
        if column.name == "plan":
            document.pop("batch", None)
        connection.execute(sa.update(table).where(row).values({column.name: without_gpus(document)}))


def without_gpus(document: Any) -> Any:
    """The document without `resources.gpus`, at any depth."""
    if isinstance(document, list):
        return [without_gpus(item) for item in document]
    if not isinstance(document, dict):
        return document
    kept = {name: without_gpus(value) for name, value in document.items()}
    if isinstance(kept.get("resources"), dict):
        kept["resources"].pop("gpus", None)
    return kept

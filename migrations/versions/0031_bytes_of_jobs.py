"""Count the bytes of each job's metric log, log and records, for the quota of its project"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0031"
down_revision = "0030"
branch_labels = None
depends_on = None

COUNTERS = ("metric_bytes", "log_bytes", "record_bytes")


def upgrade() -> None:
    for name in COUNTERS:
        op.add_column("jobs", sa.Column(name, sa.BigInteger(), nullable=False, server_default="0"))
    sizes = {
        "metric_bytes": _sum("metric_chunks", "length(body)"),
        "log_bytes": _sum("log_chunks", "length(body)"),
        "record_bytes": " + ".join(
            [
                *map(_json, ("spec", "resolved", "evaluation")),
                _sum("decisions", f"{_json('rule')} + {_json('inputs')}"),
                _sum("job_events", _json("data")),
            ]
        ),
    }
    op.execute("UPDATE jobs SET " + ", ".join(f"{name} = {size}" for name, size in sizes.items()))
    op.drop_index("jobs_by_end", table_name="jobs")
    ended = sa.text("finished_at IS NOT NULL")
    columns = ["project_id", "finished_at", "id", "next_seq", *COUNTERS]
    op.create_index("jobs_by_end", "jobs", columns, sqlite_where=ended, postgresql_where=ended)


def _json(column: str) -> str:
    """SQL of how many bytes a document has as text; 0 without one, also where JSON's null stands for none."""
    text = f"CAST({column} AS TEXT)"
    return f"CASE WHEN {text} IS NULL OR {text} = 'null' THEN 0 ELSE length({text}) END"


def _sum(table: str, expression: str) -> str:
    return f"COALESCE((SELECT sum({expression}) FROM {table} WHERE {table}.job_id = jobs.id), 0)"

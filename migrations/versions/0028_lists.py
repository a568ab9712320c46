"""Sort names by their bytes, find jobs by name and start, and keep their best metrics where lists find them"""

from __future__ import annotations

import json

import sqlalchemy as sa
from alembic import op

revision = "0028"
down_revision = "0027"
branch_labels = None
depends_on = None

NAMED = ("jobs", "datasets", "experiments")
PAGE = 1000


def upgrade() -> None:
    connection = op.get_bind()
    if connection.dialect.name == "postgresql":
        for table in NAMED:
            op.alter_column(table, "name", type_=sa.String(200, collation="C"))
    op.create_index("jobs_by_name", "jobs", ["project_id", "name", "id"])
    started = sa.text("started_at IS NOT NULL")
    columns = ["project_id", "started_at", "id"]
    op.create_index("jobs_by_start", "jobs", columns, sqlite_where=started, postgresql_where=started)
    op.create_index("experiments_by_name", "experiments", ["project_id", "name", "id"])
    op.create_table(
        "job_best_metrics",
        sa.Column("job_id", sa.String(40), sa.ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("name", sa.String(200), primary_key=True),
        sa.Column("project_id", sa.String(64), sa.ForeignKey("projects.id"), nullable=False),
        sa.Column("value", sa.Double(), nullable=False),
    )
    op.create_index("job_best_metrics_by_value", "job_best_metrics", ["project_id", "name", "value", "job_id"])
    jobs = sa.table("jobs", *map(sa.column, ("id", "project_id", "metrics_best")))
    best = sa.table("job_best_metrics", *map(sa.column, ("job_id", "name", "project_id", "value")))
    after = ""
    while True:
        statement = sa.select(jobs.c.id, jobs.c.project_id, jobs.c.metrics_best).where(jobs.c.id > after)
        page = connection.execute(statement.order_by(jobs.c.id).limit(PAGE)).all()
        if not page:
            return
        after = page[-1].id
        rows = [
            {"job_id": job, "name": name, "project_id": project, "value": float(value)}
            for job, project, stored in page
            for name, value in (json.loads(stored) if isinstance(stored, str) else stored or {}).items()
            if isinstance(value, int | float)
        ]
        if rows:
            connection.execute(sa.insert(best), rows)

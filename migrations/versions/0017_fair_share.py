"""Keep when each project was served last, and by which process a lease is held; find a project's waiting work by index"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

LEASED = ("jobs", "datasets", "inference_requests")
INDICES: dict[str, tuple[str, list[str]]] = {
    "jobs_by_queue": ("jobs", ["state", "queue", "project_id", "priority DESC", "created_at", "id"]),
    "datasets_by_state": ("datasets", ["state", "project_id", "created_at"]),
    "inference_requests_by_state": ("inference_requests", ["state", "project_id", "created_at"]),
}
"""Index -> its table and columns, each now by project, whose first waiting row is one look-up."""


def upgrade() -> None:
    op.create_table(
        "queue_shares",
        sa.Column("project_id", sa.String(64), sa.ForeignKey("projects.id"), primary_key=True),
        sa.Column("queue", sa.String(40), primary_key=True),
        sa.Column("served_at", sa.DateTime(timezone=True), nullable=False),
    )
    for name in LEASED:
        op.add_column(name, sa.Column("lease_process", sa.String(200), nullable=True))
    for index, (table, columns) in INDICES.items():
        op.drop_index(index, table_name=table)
        op.create_index(index, table, [sa.text(column) if " " in column else column for column in columns])

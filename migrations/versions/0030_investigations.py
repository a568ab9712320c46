"""Let lists and diagnoses find the investigations of a job"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0030"
down_revision = "0029"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("investigation_of", sa.String(length=40), nullable=True))
    investigations = sa.text("investigation_of IS NOT NULL")
    columns = ["project_id", "investigation_of", "id"]
    op.create_index(
        "jobs_by_investigation_of",
        "jobs",
        columns,
        sqlite_where=investigations,
        postgresql_where=investigations,
    )

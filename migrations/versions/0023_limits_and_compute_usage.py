"""Keep the operator's limits of each project, and the GPU and CPU time that projects have used"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None

JSON = sa.JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")


def upgrade() -> None:
    op.add_column("projects", sa.Column("limits", JSON, nullable=True))
    projects = sa.table("projects", sa.column("id"), sa.column("settings", JSON))
    connection = op.get_bind()
    for identifier, settings in connection.execute(sa.select(projects.c.id, projects.c.settings)).all():
        if settings and "quota_bytes" in settings:
            settings["max_storage_bytes"] = settings.pop("quota_bytes")
            connection.execute(sa.update(projects).where(projects.c.id == identifier).values(settings=settings))
    op.create_table(
        "compute_usage",
        sa.Column("project_id", sa.String(64), sa.ForeignKey("projects.id"), primary_key=True),
        sa.Column("month", sa.String(7), primary_key=True),
        sa.Column("gpu_seconds", sa.Double(), nullable=False),
        sa.Column("cpu_seconds", sa.Double(), nullable=False),
    )

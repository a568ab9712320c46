"""Copy jobs to other trackers, and send webhooks as chat messages or mail"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0035"
down_revision = "0034"
branch_labels = None
depends_on = None

JSON = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")
TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.add_column("webhooks", sa.Column("format", sa.String(20), nullable=False, server_default="standard"))
    op.create_table(
        "mirrors",
        sa.Column("id", sa.String(40), primary_key=True),
        sa.Column("project_id", sa.String(64), sa.ForeignKey("projects.id"), nullable=False),
        sa.Column("kind", sa.String(20), nullable=False),
        sa.Column("description", sa.String(500), nullable=False),
        sa.Column("url", sa.String(2000)),
        sa.Column("host", sa.String(300), nullable=False),
        sa.Column("experiment", sa.String(500)),
        sa.Column("username", sa.String(200)),
        sa.Column("token", sa.Text()),
        sa.Column("artifacts", sa.Boolean(), nullable=False),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("updated_at", TIME, nullable=False),
    )
    op.create_index("mirrors_by_project", "mirrors", ["project_id", "id"])
    op.create_table(
        "mirrored_jobs",
        sa.Column("mirror_id", sa.String(40), sa.ForeignKey("mirrors.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("job_id", sa.String(40), sa.ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("state", sa.String(20), nullable=False),
        sa.Column("external_id", sa.String(200)),
        sa.Column("metric_seq", sa.BigInteger(), nullable=False),
        sa.Column("event_seq", sa.Integer(), nullable=False),
        sa.Column("position", JSON, nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("fence", sa.Integer(), nullable=False),
        sa.Column("claimed_until", TIME),
        sa.Column("next_attempt_at", TIME),
        sa.Column("last_attempt_at", TIME),
        sa.Column("last_success_at", TIME),
        sa.Column("error", sa.Text()),
        sa.Column("created_at", TIME, nullable=False),
    )
    pending = sa.text("state = 'pending'")
    op.create_index(
        "mirrored_jobs_due",
        "mirrored_jobs",
        ["mirror_id", "next_attempt_at", "job_id"],
        sqlite_where=pending,
        postgresql_where=pending,
    )
    op.create_index("mirrored_jobs_by_state", "mirrored_jobs", ["mirror_id", "state", "job_id"])
    op.create_index("mirrored_jobs_by_job", "mirrored_jobs", ["job_id"])

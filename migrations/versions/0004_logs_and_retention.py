"""Lines of every attempt; what a project has set for itself, and what retention has taken from a job"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

JSON = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "log_chunks",
        sa.Column("job_id", sa.String(length=40), nullable=False),
        sa.Column("first_seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("last_seq", sa.BigInteger(), nullable=False),
        sa.Column("fence", sa.Integer(), nullable=False),
        sa.Column("worst", sa.Integer(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id", "first_seq"),
    )
    with op.batch_alter_table("jobs") as batch:
        batch.add_column(sa.Column("removed", JSON, nullable=True))
        batch.add_column(sa.Column("next_log_seq", sa.BigInteger(), server_default="1", nullable=False))
    with op.batch_alter_table("attempts") as batch:
        batch.add_column(sa.Column("resume", JSON, nullable=True))
    op.create_index("jobs_by_end", "jobs", ["project_id", "finished_at"], unique=False)
    with op.batch_alter_table("projects") as batch:
        batch.add_column(sa.Column("settings", JSON, nullable=True))

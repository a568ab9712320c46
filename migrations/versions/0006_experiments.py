"""The experiment that a job belongs to, and the evaluations by which its jobs are compared"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

JSON = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("jobs") as batch:
        batch.add_column(sa.Column("experiment", sa.String(length=200), nullable=True))
        batch.add_column(sa.Column("across_decisions", sa.Integer(), server_default="0", nullable=False))
    op.create_index("jobs_by_experiment", "jobs", ["project_id", "experiment"], unique=False)
    op.create_table(
        "experiment_clocks",
        sa.Column("project_id", sa.String(length=64), nullable=False),
        sa.Column("experiment", sa.String(length=200), nullable=False),
        sa.Column("ticks", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"]),
        sa.PrimaryKeyConstraint("project_id", "experiment"),
    )
    op.create_table(
        "experiment_members",
        sa.Column("project_id", sa.String(length=64), nullable=False),
        sa.Column("experiment", sa.String(length=200), nullable=False),
        sa.Column("job_id", sa.String(length=40), nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"]),
        sa.PrimaryKeyConstraint("project_id", "experiment", "job_id"),
    )
    op.create_table(
        "evaluations",
        sa.Column("job_id", sa.String(length=40), nullable=False),
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("step", sa.BigInteger(), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("tick", sa.BigInteger(), nullable=False),
        sa.Column("gone", sa.BigInteger(), nullable=True),
        sa.Column("tallies", JSON, nullable=False),
        sa.PrimaryKeyConstraint("job_id", "seq"),
    )
    op.create_index("evaluations_by_epoch", "evaluations", ["job_id", "epoch", "seq"], unique=False)

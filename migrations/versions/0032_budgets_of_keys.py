"""Let a key have a budget of jobs and of compute seconds"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0032"
down_revision = "0031"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("api_keys", sa.Column("max_jobs", sa.Integer(), nullable=True))
    op.add_column("api_keys", sa.Column("max_compute_seconds", sa.Double(), nullable=True))
    op.add_column("api_keys", sa.Column("used_jobs", sa.Integer(), nullable=False, server_default="0"))
    for name in ("used_compute_seconds", "reserved_compute_seconds"):
        op.add_column("api_keys", sa.Column(name, sa.Double(), nullable=False, server_default="0"))
    op.add_column("jobs", sa.Column("budget_key_id", sa.String(length=16), nullable=True))
    op.add_column("jobs", sa.Column("reserved_seconds", sa.Double(), nullable=True))

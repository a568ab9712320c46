"""Jobs that may be trained in one go with another"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("jobs") as batch:
        batch.add_column(sa.Column("batch_leader", sa.String(length=40), nullable=True))
    op.create_index("jobs_by_batch", "jobs", ["batch_leader"], unique=False)

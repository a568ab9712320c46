"""Jobs know which job they were made from; datasets how they are to be read"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

JSON = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("jobs") as batch:
        batch.add_column(sa.Column("parent", JSON, nullable=True))
    for table in ("datasets", "uploads"):
        with op.batch_alter_table(table) as batch:
            batch.add_column(sa.Column("reading", JSON, nullable=True))

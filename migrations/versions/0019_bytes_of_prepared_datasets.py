"""Add the bytes of a dataset's prepared form, which count against its project's quota"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # 0 of those that are prepared already: garbage collection measures them
    op.add_column("datasets", sa.Column("prepared_bytes", sa.BigInteger, nullable=False, server_default="0"))
    rows = sa.text("prepared_key IS NOT NULL AND prepared_bytes = 0")
    op.create_index("datasets_unmeasured", "datasets", ["id"], unique=False, sqlite_where=rows, postgresql_where=rows)

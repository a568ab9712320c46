"""How far a job's metric log lies in large chunks; bodies of chunks without PostgreSQL's own compression"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("jobs") as batch:
        batch.add_column(sa.Column("compact_seq", sa.BigInteger(), server_default="0", nullable=False))
    if op.get_bind().dialect.name == "postgresql":
        # floats do not shrink: trying costs most of the time of an insert
        op.execute("ALTER TABLE metric_chunks ALTER COLUMN body SET STORAGE EXTERNAL")

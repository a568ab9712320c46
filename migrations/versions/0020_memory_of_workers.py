"""Keep how much memory a worker and its accelerators have"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for name in ("memory_bytes", "accelerator_bytes"):
        op.add_column("workers", sa.Column(name, sa.BigInteger(), nullable=True))

"""Make room for encrypted secrets of webhooks; `service/migrate.py` encrypts those that are there"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0029"
down_revision = "0028"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("webhooks") as webhooks:
        webhooks.alter_column("secret", existing_type=sa.String(120), type_=sa.Text(), existing_nullable=False)
        webhooks.alter_column("previous_secret", existing_type=sa.String(120), type_=sa.Text(), existing_nullable=True)

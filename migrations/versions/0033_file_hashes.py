"""Keep the SHA-256 of artifacts and of models' files; housekeeping fills in those that are there already"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0033"
down_revision = "0032"
branch_labels = None
depends_on = None

JSON = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")


def upgrade() -> None:
    op.add_column("artifacts", sa.Column("sha256", sa.String(64), nullable=True))
    op.add_column("models", sa.Column("digests", JSON, nullable=True))
    for name, table, columns, column in (
        ("artifacts_without_hash", "artifacts", ["job_id", "name"], "sha256"),
        ("models_without_digests", "models", ["storage_key"], "digests"),
    ):
        unhashed = sa.text(f"{column} IS NULL")
        op.create_index(name, table, columns, sqlite_where=unhashed, postgresql_where=unhashed)

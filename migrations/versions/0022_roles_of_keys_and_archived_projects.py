"""Give keys a role instead of scopes, and projects a time since when they are archived"""

from __future__ import annotations

from collections.abc import Collection

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

JSON = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None

ROLES = {"admin": "admin", "write": "developer", "read": "viewer"}
"""Scope -> the role that includes it, the one that may do most first."""


def upgrade() -> None:
    op.add_column("projects", sa.Column("archived_at", sa.DateTime(timezone=True), nullable=True))
    with op.batch_alter_table("api_keys") as batch:
        batch.add_column(sa.Column("description", sa.String(1000), nullable=False, server_default=""))
        batch.add_column(sa.Column("role", sa.String(20), nullable=True))
        batch.add_column(sa.Column("operator", sa.Boolean(), nullable=False, server_default=sa.false()))
        batch.add_column(sa.Column("last_used_from", sa.String(64), nullable=True))
        batch.alter_column("project_id", existing_type=sa.String(64), nullable=True)
    keys = sa.table("api_keys", *map(sa.column, ("id", "project_id", "role", "operator")), sa.column("scopes", JSON))
    connection = op.get_bind()
    for identifier, scopes in connection.execute(sa.select(keys.c.id, keys.c.scopes)).all():
        role = role_of(scopes)
        values: dict[str, object] = {"role": role, "operator": "operator" in scopes}
        if role is None:
            values["project_id"] = None  # a key of the operator alone saw nothing of its project
        connection.execute(sa.update(keys).where(keys.c.id == identifier).values(**values))
    with op.batch_alter_table("api_keys") as batch:
        batch.drop_column("scopes")
        batch.alter_column("description", existing_type=sa.String(1000), server_default=None)
        batch.alter_column("operator", existing_type=sa.Boolean(), server_default=None)
    with op.batch_alter_table("experiments") as batch:
        batch.alter_column(
            "key_id", new_column_name="actor", existing_type=sa.String(40), type_=sa.String(64), nullable=False
        )
    experiments = sa.table("experiments", sa.column("actor", sa.String()))
    op.execute(sa.update(experiments).values(actor=sa.literal("key:").concat(experiments.c.actor)))


def role_of(scopes: Collection[str]) -> str | None:
    """Return the role that may do what a key with those scopes could; None for the operator's alone."""
    return next((role for scope, role in ROLES.items() if scope in scopes), None)

"""Add users, their roles in projects and their browser sessions; a key may belong to a user"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "users",
        sa.Column("id", sa.String(40), primary_key=True),
        sa.Column("kind", sa.String(20), nullable=False),
        sa.Column("issuer", sa.String(500), nullable=True),
        sa.Column("subject", sa.String(255), nullable=True),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("email", sa.String(320), nullable=True),
        sa.Column("operator", sa.Boolean(), nullable=False),
        sa.Column("claims_at", TIME, nullable=True),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("last_seen_at", TIME, nullable=True),
        sa.Column("disabled_at", TIME, nullable=True),
    )
    op.create_index("users_by_subject", "users", ["issuer", "subject"], unique=True)
    op.create_index("users_by_email", "users", ["email"])
    user = sa.ForeignKey("users.id", ondelete="CASCADE")
    op.create_table(
        "memberships",
        sa.Column("user_id", sa.String(40), user, primary_key=True),
        sa.Column("project_id", sa.String(64), sa.ForeignKey("projects.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("source", sa.String(20), primary_key=True),
        sa.Column("role", sa.String(20), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
    )
    op.create_index("memberships_by_project", "memberships", ["project_id"])
    op.create_table(
        "browser_sessions",
        sa.Column("token_hash", sa.String(64), primary_key=True),
        sa.Column("user_id", sa.String(40), sa.ForeignKey("users.id", ondelete="CASCADE"), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("expires_at", TIME, nullable=False),
    )
    op.create_index("browser_sessions_by_user", "browser_sessions", ["user_id"])
    op.create_index("browser_sessions_by_end", "browser_sessions", ["expires_at"])
    with op.batch_alter_table("api_keys") as batch:
        batch.add_column(sa.Column("user_id", sa.String(40), nullable=True))
        batch.create_foreign_key("api_keys_user_id_fkey", "users", ["user_id"], ["id"])

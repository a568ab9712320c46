"""Keep the host of each webhook, and the failures in a row at each host"""

from __future__ import annotations

from urllib.parse import urlsplit

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None

PORTS = {"https": 443, "http": 80}


def upgrade() -> None:
    op.add_column("webhooks", sa.Column("host", sa.String(300), nullable=False, server_default="unknown"))
    webhooks = sa.table("webhooks", *map(sa.column, ("id", "url", "host")))
    connection = op.get_bind()
    for identifier, url in connection.execute(sa.select(webhooks.c.id, webhooks.c.url)).all():
        parts = urlsplit(url)
        host = f"{(parts.hostname or '').rstrip('.')}:{parts.port or PORTS.get(parts.scheme, 443)}"
        connection.execute(sa.update(webhooks).where(webhooks.c.id == identifier).values(host=host))
    op.create_index("webhooks_by_host", "webhooks", ["project_id", "host"])
    op.create_table(
        "webhook_circuits",
        sa.Column("project_id", sa.String(64), sa.ForeignKey("projects.id"), primary_key=True),
        sa.Column("host", sa.String(300), primary_key=True),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("open_until", sa.DateTime(timezone=True), nullable=True),
    )

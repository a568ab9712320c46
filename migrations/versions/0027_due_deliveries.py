"""Index the deliveries of each webhook by the time when they are due, and keys by their users"""

from __future__ import annotations

from alembic import op

revision = "0027"
down_revision = "0026"
branch_labels = None
depends_on = None


def upgrade() -> None:
    columns = ["webhook_id", "state", "next_attempt_at", "id"]
    op.create_index("webhook_deliveries_by_webhook_due", "webhook_deliveries", columns)
    op.create_index("api_keys_by_user", "api_keys", ["user_id"])

"""Add the audit log, which the database itself keeps from being changed"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0026"
down_revision = "0025"
branch_labels = None
depends_on = None

MESSAGE = "the audit log is append-only"
INDEXED = ("project_id", "actor", "resource_id", "operation", "outcome", "created_at")
NAMES = {"project_id": "project", "resource_id": "resource", "created_at": "time"}
CUT = "COALESCE((SELECT MAX(seq) FROM audit_anchors), 0)"


def upgrade() -> None:
    op.create_table(
        "audit_pending",
        sa.Column("id", sa.String(40), primary_key=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("document", sa.Text(), nullable=False),
    )
    op.create_table(
        "audit_log",
        sa.Column("seq", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("project_id", sa.String(64), nullable=True),
        sa.Column("actor", sa.String(200), nullable=False),
        sa.Column("operation", sa.String(100), nullable=True),
        sa.Column("outcome", sa.String(20), nullable=False),
        sa.Column("resource_id", sa.String(300), nullable=True),
        sa.Column("document", sa.Text(), nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
    )
    for column in INDEXED:
        op.create_index(f"audit_log_by_{NAMES.get(column, column)}", "audit_log", [column, "seq"])
    op.create_table(
        "audit_anchors",
        sa.Column("seq", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("hash", sa.String(64), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
    )
    if op.get_bind().dialect.name == "postgresql":
        _refuse_on_postgresql()
    else:
        _refuse_on_sqlite()


def _refuse_on_sqlite() -> None:
    refuse = f"BEGIN SELECT RAISE(ABORT, '{MESSAGE}'); END"
    for table in ("audit_log", "audit_anchors"):
        op.execute(f"CREATE TRIGGER {table}_no_update BEFORE UPDATE ON {table} {refuse}")
    op.execute(f"CREATE TRIGGER audit_log_no_delete BEFORE DELETE ON audit_log WHEN OLD.seq > {CUT} {refuse}")
    op.execute(f"CREATE TRIGGER audit_anchors_no_delete BEFORE DELETE ON audit_anchors {refuse}")


def _refuse_on_postgresql() -> None:
    op.execute(
        f"""
        CREATE FUNCTION audit_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF TG_OP = 'DELETE' AND TG_TABLE_NAME = 'audit_log' THEN
                IF OLD.seq <= {CUT} THEN RETURN OLD; END IF;
            END IF;
            RAISE EXCEPTION '{MESSAGE}' USING ERRCODE = 'insufficient_privilege';
        END $$
        """
    )
    for table in ("audit_log", "audit_anchors"):
        op.execute(
            f"CREATE TRIGGER {table}_no_change BEFORE UPDATE OR DELETE ON {table} "
            "FOR EACH ROW EXECUTE FUNCTION audit_append_only()"
        )
        op.execute(
            f"CREATE TRIGGER {table}_no_truncate BEFORE TRUNCATE ON {table} "
            "FOR EACH STATEMENT EXECUTE FUNCTION audit_append_only()"
        )

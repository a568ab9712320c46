"""Name tables and columns by the field's words"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

JSON = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

COLUMNS = {
    "jobs": {
        "experiment": "group_name",
        "decided": "runtime",
        "wanted": "requested_action",
        "removed": "purged",
        "compact_seq": "compacted_seq",
        "across_decisions": "peer_decisions",
        "rung_at": "notified_at",
    },
    "datasets": {"reading": "read_options", "rung_at": "notified_at"},
    "uploads": {"said": "metadata_header", "reading": "read_options"},
    "questions": {"answer": "response", "answer_type": "response_type", "rung_at": "notified_at"},
    "log_chunks": {"worst": "max_level"},
    "prescriptions": {"edition": "ruleset_version"},
    "experiments": {"more": "has_pending", "wanted": "requested_action"},
    "experiment_trials": {"document": "spec", "why": "rationale"},
    "experiment_clocks": {"experiment": "group_name", "ticks": "version"},
    "experiment_members": {"experiment": "group_name"},
    "evaluations": {"tick": "valid_from", "gone": "superseded_at", "tallies": "running_stats"},
    "webhook_deliveries": {"tries": "round_attempts"},
}
TABLES = {
    "questions": "inference_requests",
    "prescriptions": "recommendations",
    "experiment_clocks": "peer_groups",
    "experiment_members": "peer_group_members",
    "evaluations": "peer_evaluations",
}
INDEXES = {
    "jobs_by_experiment": ("jobs_by_group", "jobs", ["project_id", "group_name"]),
    "questions_by_state": ("inference_requests_by_state", "inference_requests", ["state", "created_at"]),
    "prescriptions_by_code": (
        "recommendations_by_code",
        "recommendations",
        ["project_id", "ruleset_version", "code"],
    ),
    "evaluations_by_epoch": ("peer_evaluations_by_epoch", "peer_evaluations", ["job_id", "epoch", "seq"]),
}
"""Old name -> new name, table, columns."""


def upgrade() -> None:
    # not by batch_alter_table: it would make the tables anew, and dropping an old one deletes what refers to it
    quote = op.get_bind().dialect.identifier_preparer.quote
    for table, columns in COLUMNS.items():
        for old, new in columns.items():
            op.execute(f"ALTER TABLE {quote(table)} RENAME COLUMN {quote(old)} TO {quote(new)}")
    for old, new in TABLES.items():
        op.rename_table(old, new)
    for old, (new, table, names) in INDEXES.items():
        op.drop_index(old, table_name=table)
        op.create_index(new, table, names, unique=False)
    op.execute("UPDATE housekeeping SET name = 'housekeeping' WHERE name = 'house'")
    _rename_outcome_metrics()


def _rename_outcome_metrics() -> None:
    """Call `figures` of every trial's outcome `metrics`."""
    trials = sa.table(
        "experiment_trials",
        sa.column("experiment_id", sa.String),
        sa.column("number", sa.Integer),
        sa.column("outcome", JSON),
    )
    connection = op.get_bind()
    for experiment_id, number, outcome in connection.execute(sa.select(trials)).all():
        if not isinstance(outcome, dict):  # NULL, or JSON's null
            continue
        renamed: dict[str, Any] = {"metrics" if name == "figures" else name: value for name, value in outcome.items()}
        row = (trials.c.experiment_id == experiment_id) & (trials.c.number == number)
        connection.execute(sa.update(trials).where(row).values(outcome=renamed))

"""Indexes for every list and every round of housekeeping, labels of jobs by digest; nothing is noted per message"""

from __future__ import annotations

import hashlib

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

JSON = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

REPLACED = {
    "jobs": ("jobs_by_dataset", "jobs_by_end", "jobs_by_group"),
    "models": ("ix_models_project_id",),
    "recommendations": ("recommendations_by_code",),
}
INDEXES: tuple[tuple[str, str, tuple[str, ...], str | None], ...] = (
    ("jobs_by_dataset", "jobs", ("dataset_id", "id"), None),
    ("jobs_by_project_state", "jobs", ("project_id", "state", "id"), None),
    ("jobs_by_update", "jobs", ("project_id", "updated_at", "id"), None),
    ("jobs_by_end", "jobs", ("project_id", "finished_at", "id", "next_seq"), "finished_at IS NOT NULL"),
    ("jobs_by_group", "jobs", ("project_id", "group_name", "id"), "group_name IS NOT NULL"),
    ("jobs_by_retry_of", "jobs", ("retry_of", "state"), "retry_of IS NOT NULL"),
    ("jobs_by_lease", "jobs", ("lease_expires_at",), "lease_expires_at IS NOT NULL"),
    ("jobs_by_pause", "jobs", ("not_before",), "not_before IS NOT NULL"),
    ("jobs_to_compact", "jobs", ("id",), "compacted_seq < next_seq - 1"),
    ("datasets_by_project", "datasets", ("project_id", "id"), None),
    ("datasets_by_project_state", "datasets", ("project_id", "state", "id"), None),
    ("datasets_by_name", "datasets", ("project_id", "name", "id"), None),
    ("datasets_by_blob", "datasets", ("blob_sha256",), None),
    ("datasets_by_lease", "datasets", ("lease_expires_at",), "lease_expires_at IS NOT NULL"),
    ("uploads_by_project_state", "uploads", ("project_id", "state", "id"), None),
    ("uploads_by_expiry", "uploads", ("expires_at",), None),
    ("inference_requests_by_age", "inference_requests", ("created_at",), None),
    ("inference_requests_by_lease", "inference_requests", ("lease_expires_at",), "lease_expires_at IS NOT NULL"),
    ("idempotency_keys_by_age", "idempotency_keys", ("created_at",), None),
    ("idempotency_keys_by_resource", "idempotency_keys", ("resource_id",), None),
    ("webhook_deliveries_by_webhook_state", "webhook_deliveries", ("webhook_id", "state", "id"), None),
    ("webhook_deliveries_by_webhook_type", "webhook_deliveries", ("webhook_id", "type", "id"), None),
    ("webhook_deliveries_by_age", "webhook_deliveries", ("created_at",), None),
    ("webhook_crossings_by_job", "webhook_crossings", ("job_id",), None),
    ("models_by_project", "models", ("project_id", "id"), None),
    ("models_by_storage_key", "models", ("storage_key",), None),
    ("recommendations_by_code", "recommendations", ("project_id", "ruleset_version", "code", "outcome"), None),
    ("recommendations_unmeasured", "recommendations", ("project_id",), "outcome IS NULL"),
)
"""(name, table, columns, the rows that it holds)"""
LEASED = ("jobs", "datasets", "inference_requests")
BATCH = 1000


def upgrade() -> None:
    for table, names in REPLACED.items():
        for name in names:
            op.drop_index(name, table)
    for table in LEASED:
        op.drop_column(table, "notified_at")
    op.add_column("jobs", sa.Column("retry_of", sa.String(length=40), nullable=True))
    op.create_table(
        "job_labels",
        sa.Column("project_id", sa.String(length=64), nullable=False),
        sa.Column("digest", sa.String(length=32), nullable=False),
        sa.Column("job_id", sa.String(length=40), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"]),
        sa.PrimaryKeyConstraint("project_id", "digest", "job_id"),
    )
    op.create_index("job_labels_by_job", "job_labels", ["job_id"], unique=False)
    fill(op.get_bind())
    for name, table, columns, where in INDEXES:
        rows = None if where is None else sa.text(where)
        op.create_index(name, table, list(columns), unique=False, sqlite_where=rows, postgresql_where=rows)


def fill(connection: sa.Connection) -> None:
    """Write digests of labels and the parents of retries, some jobs at a time."""
    jobs = sa.table("jobs", *map(sa.column, ("id", "project_id", "retry_of")), *(sa.column(c, JSON) for c in COLUMNS))
    job_labels = sa.table("job_labels", *map(sa.column, ("project_id", "digest", "job_id")))
    last = ""
    while True:
        columns = (jobs.c.id, jobs.c.project_id, jobs.c.labels, jobs.c.parent)
        found = connection.execute(sa.select(*columns).where(jobs.c.id > last).order_by(jobs.c.id).limit(BATCH)).all()
        if not found:
            return
        labels = [
            {"project_id": job.project_id, "digest": digest(key, value), "job_id": job.id}
            for job in found
            for key, value in (job.labels or {}).items()
        ]
        if labels:
            connection.execute(sa.insert(job_labels), labels)
        for job in found:
            if job.parent and job.parent.get("relation") == "retry":
                retried = sa.update(jobs).where(jobs.c.id == job.id)
                connection.execute(retried.values(retry_of=job.parent["job"]))
        last = found[-1].id


COLUMNS = ("labels", "parent")


def digest(key: str, value: str) -> str:
    return hashlib.sha256(f"{key}\0{value}".encode(errors="surrogatepass")).hexdigest()[:32]

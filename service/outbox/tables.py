"""Webhooks, what they are told, and every attempt at telling it; mirrors, and how far each job's copy has come."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Double, ForeignKey, Index, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from service.database import Audited, Base, Json, UtcDateTime, partial_index


class Webhook(Base):
    """Where a project's events are posted to, which of them, and the key they are signed with."""

    __tablename__ = "webhooks"
    audited = Audited("webhook", omitted=frozenset({"host"}), secret=frozenset({"secret", "previous_secret"}))
    __table_args__ = (
        Index("webhooks_by_project", "project_id", "id"),
        Index("webhooks_by_host", "project_id", "host"),
    )
    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    url: Mapped[str] = mapped_column(String(2000))
    host: Mapped[str] = mapped_column(String(300), server_default="unknown")
    """Host and port of the URL: attempts are counted together by it."""
    format: Mapped[str] = mapped_column(String(20), server_default="standard")
    """`standard`, `slack` or `email`: what a message is sent as."""
    description: Mapped[str] = mapped_column(String(500))
    events: Mapped[list[Any]] = mapped_column(Json)
    thresholds: Mapped[list[Any] | None] = mapped_column(Json)
    """`{metric, above}` or `{metric, below}` each; NULL when there is none, so that a flush asks for few rows."""
    job_id: Mapped[str | None] = mapped_column(String(40))
    """Events of this job alone."""
    labels: Mapped[dict[str, Any] | None] = mapped_column(Json)
    """Events of jobs that have all these labels."""
    secret: Mapped[str] = mapped_column(Text)
    """Encrypted (`service/webhooks/stored_secrets.py`), like the next one."""
    previous_secret: Mapped[str | None] = mapped_column(Text)
    previous_until: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """Until then messages are signed with the previous secret too."""
    active: Mapped[bool]
    disabled_reason: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)


class WebhookCircuit(Base):
    """Failed attempts in a row at one host, by all webhooks of a project together. No row: the last one went well.

    It is the project's: a URL that fails holds up no other project's messages to the same host.
    """

    __tablename__ = "webhook_circuits"
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"), primary_key=True)
    host: Mapped[str] = mapped_column(String(300), primary_key=True)
    failures: Mapped[int]
    open_until: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """Nothing is sent to the host before; then one attempt decides whether the others follow."""


class WebhookDelivery(Base):
    """One message to one webhook; its id is the `webhook-id` of every attempt, its body the same bytes in each.

    It holds all that is sent, so it outlives its job. `round_attempts` counts the attempts of this round; `redeliver` begins
    another one.
    """

    __tablename__ = "webhook_deliveries"
    __table_args__ = (
        Index("webhook_deliveries_due", "state", "next_attempt_at"),
        Index("webhook_deliveries_by_webhook_due", "webhook_id", "state", "next_attempt_at", "id"),
        Index("webhook_deliveries_by_webhook", "webhook_id", "id"),
        Index("webhook_deliveries_by_webhook_state", "webhook_id", "state", "id"),
        Index("webhook_deliveries_by_webhook_type", "webhook_id", "type", "id"),
        Index("webhook_deliveries_by_age", "created_at"),
        UniqueConstraint("webhook_id", "job_id", "event_seq", name="webhook_deliveries_once"),
    )
    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    webhook_id: Mapped[str] = mapped_column(ForeignKey("webhooks.id", ondelete="CASCADE"))
    type: Mapped[str] = mapped_column(String(40))
    job_id: Mapped[str | None] = mapped_column(String(40))
    event_seq: Mapped[int | None]
    body: Mapped[str] = mapped_column(Text)
    state: Mapped[str] = mapped_column(String(20))
    attempts: Mapped[int] = mapped_column(default=0)
    round_attempts: Mapped[int] = mapped_column(default=0)
    next_attempt_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    claimed_until: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """A sender has it until then; one that has died is thereby forgotten."""
    fence: Mapped[int] = mapped_column(default=0)
    first_attempt_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    last_attempt_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    status_code: Mapped[int | None]
    error: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


class WebhookAttempt(Base):
    """What came of one POST."""

    __tablename__ = "webhook_attempts"
    delivery_id: Mapped[str] = mapped_column(ForeignKey("webhook_deliveries.id", ondelete="CASCADE"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    at: Mapped[datetime] = mapped_column(UtcDateTime)
    seconds: Mapped[float] = mapped_column(Double)
    status_code: Mapped[int | None]
    error: Mapped[str | None] = mapped_column(Text)
    response: Mapped[str | None] = mapped_column(Text)
    """The beginning of what was answered."""


class WebhookCrossing(Base):
    """A job has crossed a threshold of a webhook: it is told once."""

    __tablename__ = "webhook_crossings"
    __table_args__ = (Index("webhook_crossings_by_job", "job_id"),)
    webhook_id: Mapped[str] = mapped_column(ForeignKey("webhooks.id", ondelete="CASCADE"), primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    threshold: Mapped[str] = mapped_column(String(200), primary_key=True)
    seq: Mapped[int] = mapped_column(BigInteger)
    """Of the row that crossed."""
    at: Mapped[datetime] = mapped_column(UtcDateTime)


class Mirror(Base):
    """A tracker that the jobs of a project are copied to: an MLflow server, or a folder of files."""

    __tablename__ = "mirrors"
    audited = Audited("mirror", omitted=frozenset({"host"}), secret=frozenset({"token"}))
    __table_args__ = (Index("mirrors_by_project", "project_id", "id"),)
    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    kind: Mapped[str] = mapped_column(String(20))
    description: Mapped[str] = mapped_column(String(500))
    url: Mapped[str | None] = mapped_column(String(2000))
    """Of the tracking server; NULL of a mirror of files."""
    host: Mapped[str] = mapped_column(String(300))
    """Host and port of the URL: failures are counted by it, as those of webhooks; `files` of a mirror of files."""
    experiment: Mapped[str | None] = mapped_column(String(500))
    """Name of the MLflow experiment."""
    username: Mapped[str | None] = mapped_column(String(200))
    token: Mapped[str | None] = mapped_column(Text)
    """Encrypted; the password where there is a user name."""
    artifacts: Mapped[bool]
    """Whether files and the model are copied as well."""
    active: Mapped[bool]
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)


class MirroredJob(Base):
    """A job's copy in one mirror: what has arrived there, and what went wrong.

    `metric_seq` and `event_seq` are cursors into the job's metric log and events. They are written after the mirror has
    confirmed what lies before them, so that a sender that dies repeats its last request and loses nothing.
    """

    __tablename__ = "mirrored_jobs"
    __table_args__ = (
        partial_index("mirrored_jobs_due", "mirror_id", "next_attempt_at", "job_id", where="state = 'pending'"),
        Index("mirrored_jobs_by_state", "mirror_id", "state", "job_id"),
        Index("mirrored_jobs_by_job", "job_id"),
    )
    mirror_id: Mapped[str] = mapped_column(ForeignKey("mirrors.id", ondelete="CASCADE"), primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    state: Mapped[str] = mapped_column(String(20))
    """`pending` until the job's end has arrived, then `complete`; `failed` when nothing more is tried."""
    external_id: Mapped[str | None] = mapped_column(String(200))
    """Id of the MLflow run, or name of the file."""
    metric_seq: Mapped[int] = mapped_column(BigInteger, default=0)
    event_seq: Mapped[int] = mapped_column(default=0)
    position: Mapped[dict[str, Any]] = mapped_column(Json, default=dict)
    """What else has arrived: `params`, `dataset`, `files`; `bytes` and `superseded` of a file."""
    failures: Mapped[int] = mapped_column(default=0)
    """Failed attempts in a row."""
    fence: Mapped[int] = mapped_column(default=0)
    claimed_until: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """A sender has it until then; one that has died is thereby forgotten."""
    next_attempt_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    last_attempt_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    last_success_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    error: Mapped[str | None] = mapped_column(Text)
    """Of the last attempt."""
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)

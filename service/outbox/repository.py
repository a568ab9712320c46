"""SQL of the outbox: which webhooks an event concerns, the deliveries queued for them, and copies begun for mirrors."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Row, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from service.database import db_now, new_id
from service.outbox.tables import Mirror, MirroredJob, Webhook, WebhookCrossing, WebhookDelivery


def subscriptions(session: Session, project_id: str) -> Sequence[Row[Any]]:
    """Return (id, events, job_id, labels) of the project's active webhooks."""
    columns = select(Webhook.id, Webhook.events, Webhook.job_id, Webhook.labels)
    return session.execute(columns.where(Webhook.project_id == project_id, Webhook.active)).all()


def watchers(session: Session, project_id: str) -> Sequence[Row[Any]]:
    """Return (id, thresholds, job_id, labels) of the project's active webhooks that have thresholds."""
    columns = select(Webhook.id, Webhook.thresholds, Webhook.job_id, Webhook.labels)
    statement = columns.where(Webhook.project_id == project_id, Webhook.active, Webhook.thresholds.is_not(None))
    return session.execute(statement).all()


def lock_existing(session: Session, ids: Sequence[str]) -> set[str]:
    """Return those of the webhooks that exist, and keep them from deletion until the transaction ends."""
    existing = select(Webhook.id).where(Webhook.id.in_(ids)).order_by(Webhook.id)
    return set(session.scalars(existing.with_for_update(read=True, key_share=True)))


def crossed(session: Session, job_id: str) -> set[tuple[str, str]]:
    """Return (webhook, threshold) that the job has crossed."""
    known = select(WebhookCrossing.webhook_id, WebhookCrossing.threshold).where(WebhookCrossing.job_id == job_id)
    return {(row[0], row[1]) for row in session.execute(known)}


def add_crossing(session: Session, webhook_id: str, job_id: str, threshold: str, seq: int, at: datetime) -> None:
    """Record that the job has crossed the threshold, so that it is reported once."""
    session.add(WebhookCrossing(webhook_id=webhook_id, job_id=job_id, threshold=threshold, seq=seq, at=at))


def add_delivery(
    session: Session, webhook_id: str, kind: str, body: str, at: datetime, **source: Any
) -> WebhookDelivery:
    """Queue a message that is due at once; `source` holds `job_id` and `event_seq`."""
    delivery = WebhookDelivery(
        id=new_id("msg"),
        webhook_id=webhook_id,
        type=kind,
        body=body,
        state="pending",
        attempts=0,
        round_attempts=0,
        fence=0,
        next_attempt_at=at,
        created_at=at,
        **source,
    )
    session.add(delivery)
    return delivery


COPY_BEGINNING: dict[str, Any] = {
    **{"state": "pending", "external_id": None, "metric_seq": 0, "event_seq": 0, "position": {}},
    **{"failures": 0, "claimed_until": None, "next_attempt_at": db_now(), "error": None},
}
"""Columns of a copy of which nothing has arrived, and which is due."""


def begin_copies(session: Session, project_id: str, job_id: str) -> None:
    """Have every active mirror of the project copy the job; one that does already stays as it is."""
    mirrors = select(Mirror.id).where(Mirror.project_id == project_id, Mirror.active).order_by(Mirror.id)
    # kept from deletion until the transaction ends
    ids = session.scalars(mirrors.with_for_update(read=True, key_share=True)).all()
    if ids:
        insert_copies(session, [(mirror_id, job_id) for mirror_id in ids])


def insert_copies(session: Session, copies: Sequence[tuple[str, str]]) -> None:
    """Insert (mirror, job) pairs from their beginning; those that are there stay as they are."""
    insert = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    rows = [
        {"mirror_id": mirror_id, "job_id": job_id, "fence": 0, **COPY_BEGINNING, "created_at": db_now()}
        for mirror_id, job_id in copies
    ]
    key = [MirroredJob.mirror_id, MirroredJob.job_id]
    session.execute(insert(MirroredJob).values(rows).on_conflict_do_nothing(index_elements=key))

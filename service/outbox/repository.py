"""SQL of the outbox: which webhooks an event concerns, and the deliveries queued for them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Row, select
from sqlalchemy.orm import Session

from service.database import new_id
from service.outbox.tables import Webhook, WebhookCrossing, WebhookDelivery


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

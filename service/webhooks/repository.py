"""All SQL of webhooks as clients and jobs see them (queue.py holds the sender's)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Row, delete, func, select
from sqlalchemy.orm import Session

from service.database import db_now, new_id
from service.jobs.tables import Job
from service.webhooks.tables import Webhook, WebhookAttempt, WebhookCrossing, WebhookDelivery

FORGET_BATCH = 1000


def get(session: Session, project_id: str, webhook_id: str) -> Webhook | None:
    """The project's webhook of that id."""
    mine = select(Webhook).where(Webhook.id == webhook_id, Webhook.project_id == project_id)
    return session.scalars(mine).one_or_none()


def locked(session: Session, project_id: str, webhook_id: str) -> Webhook | None:
    """The same, locked until the transaction ends."""
    mine = select(Webhook).where(Webhook.id == webhook_id, Webhook.project_id == project_id)
    return session.scalars(mine.with_for_update().execution_options(populate_existing=True)).one_or_none()


def count(session: Session, project_id: str) -> int:
    """How many webhooks the project has."""
    return session.scalar(select(func.count()).where(Webhook.project_id == project_id)) or 0


def listing(session: Session, project_id: str, limit: int, after: str | None) -> Sequence[Webhook]:
    """Newest first, one more than `limit`."""
    mine = select(Webhook).where(Webhook.project_id == project_id)
    if after:
        mine = mine.where(Webhook.id < after)
    return session.scalars(mine.order_by(Webhook.id.desc()).limit(limit + 1)).all()


def subscriptions(session: Session, project_id: str) -> Sequence[Row[Any]]:
    """(id, events, job_id, labels) of the project's active webhooks."""
    columns = select(Webhook.id, Webhook.events, Webhook.job_id, Webhook.labels)
    return session.execute(columns.where(Webhook.project_id == project_id, Webhook.active)).all()


def watchers(session: Session, job_id: str) -> Sequence[Row[Any]]:
    """(id, thresholds, job_id, labels) of the active webhooks of the job's project that have thresholds."""
    columns = select(Webhook.id, Webhook.thresholds, Webhook.job_id, Webhook.labels)
    of_job = columns.join(Job, Job.project_id == Webhook.project_id).where(Job.id == job_id)
    return session.execute(of_job.where(Webhook.active, Webhook.thresholds.is_not(None))).all()


def still_there(session: Session, ids: Sequence[str]) -> set[str]:
    """Which of these webhooks exist; none is deleted before the transaction ends, so that no delivery fails for it."""
    there = select(Webhook.id).where(Webhook.id.in_(ids)).order_by(Webhook.id)
    return set(session.scalars(there.with_for_update(read=True, key_share=True)))


def job_facts(session: Session, job_id: str) -> Row[Any]:
    """What messages say of a job, as the transaction has it now."""
    columns = select(Job.id, Job.name, Job.state, Job.stop_reason, Job.labels, Job.error)
    return session.execute(columns.where(Job.id == job_id)).one()


def crossed(session: Session, job_id: str) -> set[tuple[str, str]]:
    """(webhook, threshold) that the job has crossed."""
    known = select(WebhookCrossing.webhook_id, WebhookCrossing.threshold).where(WebhookCrossing.job_id == job_id)
    return {(row[0], row[1]) for row in session.execute(known)}


def add_delivery(session: Session, webhook_id: str, kind: str, body: str, at: datetime, **of: Any) -> WebhookDelivery:
    """A message to send at once."""
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
        **of,
    )
    session.add(delivery)
    return delivery


def deliveries(
    session: Session, webhook_id: str, limit: int, after: str | None, state: str | None, kind: str | None
) -> Sequence[WebhookDelivery]:
    """Newest first, one more than `limit`."""
    mine = select(WebhookDelivery).where(WebhookDelivery.webhook_id == webhook_id)
    if after:
        mine = mine.where(WebhookDelivery.id < after)
    if state:
        mine = mine.where(WebhookDelivery.state == state)
    if kind:
        mine = mine.where(WebhookDelivery.type == kind)
    return session.scalars(mine.order_by(WebhookDelivery.id.desc()).limit(limit + 1)).all()


def delivery(session: Session, webhook_id: str, delivery_id: str, *, lock: bool = False) -> WebhookDelivery | None:
    """The webhook's delivery of that id; with `lock` until the transaction ends."""
    one = select(WebhookDelivery).where(WebhookDelivery.id == delivery_id, WebhookDelivery.webhook_id == webhook_id)
    if lock:
        one = one.with_for_update().execution_options(populate_existing=True)
    return session.scalars(one).one_or_none()


def attempts(session: Session, delivery_id: str) -> Sequence[WebhookAttempt]:
    """Every POST of the message, oldest first."""
    made = select(WebhookAttempt).where(WebhookAttempt.delivery_id == delivery_id)
    return session.scalars(made.order_by(WebhookAttempt.number)).all()


def pending_of(session: Session, webhook_id: str, kind: str) -> int:
    """How many messages of that type wait for the webhook."""
    waiting = select(func.count()).where(
        WebhookDelivery.webhook_id == webhook_id, WebhookDelivery.type == kind, WebhookDelivery.state == "pending"
    )
    return session.scalar(waiting) or 0


def forget_ended(session: Session, seconds: float) -> int:
    """Delete some deliveries that ended and are older than that; returns how many."""
    old = select(WebhookDelivery.id).where(
        WebhookDelivery.state != "pending", WebhookDelivery.created_at < db_now(plus=-seconds)
    )
    # touched lately: sent again by hand
    old = old.where(
        WebhookDelivery.last_attempt_at.is_(None) | (WebhookDelivery.last_attempt_at < db_now(plus=-seconds))
    )
    doomed = delete(WebhookDelivery).where(WebhookDelivery.id.in_(old.limit(FORGET_BATCH)))
    gone = session.scalars(doomed.returning(WebhookDelivery.id).execution_options(synchronize_session=False))
    return len(gone.all())

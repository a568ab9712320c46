"""SQL of sending: what is due, who has it, what came of it. The database's clock decides, the fence guards."""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Row, and_, or_, select, update
from sqlalchemy.orm import Session

from service.database import db_now, db_time
from service.webhooks.tables import Webhook, WebhookAttempt, WebhookDelivery

CLAIM_SECONDS = 60.0
"""A sender that has died is waited for so long; an attempt is over long before (sending.py)."""
PAUSES = (5, 30, 120, 600, 1800, 3600, 7200, 14400)
"""Seconds after the first failed attempt, the second ...; the last of them again and again."""
JITTER = 0.1
GIVE_UP = timedelta(hours=24)
"""No attempt begins later than this after the first of its round."""
FAR_SECONDS = 2 * PAUSES[-1]
"""Nothing is ever due so far ahead: only a clock that was set back makes it seem so."""
DISABLED = "the webhook is disabled"


@dataclass(frozen=True, slots=True)
class Claimed:
    """What a sender needs for one attempt."""

    delivery_id: str
    webhook_id: str
    fence: int
    url: str
    secrets: tuple[str, ...]
    body: str
    at: datetime
    """When it was claimed, by the database's clock."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one POST: of a good one a status and no error."""

    status_code: int | None
    error: str | None
    response: str | None
    seconds: float

    @property
    def delivered(self) -> bool:
        """Whether the receiver has it."""
        return self.error is None

    @property
    def gone(self) -> bool:
        """Whether the receiver wants no more."""
        return self.status_code == 410


def _due() -> ColumnElement[bool]:
    soon = or_(WebhookDelivery.next_attempt_at <= db_now(), WebhookDelivery.next_attempt_at > db_now(plus=FAR_SECONDS))
    free = or_(
        WebhookDelivery.claimed_until.is_(None),
        WebhookDelivery.claimed_until < db_now(),
        WebhookDelivery.claimed_until > db_now(plus=2 * CLAIM_SECONDS),
    )
    return and_(WebhookDelivery.state == "pending", soon, free)


def due(
    session: Session, limit: int, busy_webhooks: Collection[str], busy_projects: Collection[str]
) -> Sequence[Row[str, int, str, str]]:
    """(id, fence, webhook_id, project_id) of messages to send, the longest due first; none of who is busy enough."""
    columns = select(WebhookDelivery.id, WebhookDelivery.fence, WebhookDelivery.webhook_id, Webhook.project_id)
    waiting = columns.join(Webhook, Webhook.id == WebhookDelivery.webhook_id).where(_due())
    waiting = waiting.where(Webhook.id.not_in(busy_webhooks), Webhook.project_id.not_in(busy_projects))
    return session.execute(waiting.order_by(WebhookDelivery.next_attempt_at, WebhookDelivery.id).limit(limit)).all()


def claim(session: Session, delivery_id: str, fence: int) -> Claimed | None:
    """Take a message; None when another sender was quicker, or when its webhook is disabled (it has failed then)."""
    taken = session.scalars(
        update(WebhookDelivery)
        .where(WebhookDelivery.id == delivery_id, WebhookDelivery.fence == fence, _due())
        .values(fence=fence + 1, claimed_until=db_now(plus=CLAIM_SECONDS))
        .returning(WebhookDelivery.id)
        .execution_options(synchronize_session=False)
    ).one_or_none()
    if taken is None:
        return None
    delivery = session.get_one(WebhookDelivery, delivery_id, populate_existing=True)
    webhook, at = session.get_one(Webhook, delivery.webhook_id), db_time(session)
    if not webhook.active:
        _end(delivery, "failed")
        delivery.error = DISABLED
        return None
    secrets = [webhook.secret]
    if webhook.previous_secret is not None and webhook.previous_until is not None and webhook.previous_until > at:
        secrets.append(webhook.previous_secret)
    return Claimed(delivery_id, webhook.id, fence + 1, webhook.url, tuple(secrets), delivery.body, at)


def record(session: Session, claimed: Claimed, outcome: Outcome) -> str | None:
    """Note an attempt and what follows; returns the message's state, None when the claim is void by now."""
    if outcome.gone:
        # the webhook before its message: as whoever deletes it
        _disable(session, claimed, "the receiver answered 410 Gone")
    mine = select(WebhookDelivery).where(
        WebhookDelivery.id == claimed.delivery_id, WebhookDelivery.fence == claimed.fence
    )
    found = session.scalars(mine.with_for_update().execution_options(populate_existing=True)).one_or_none()
    if found is None:
        return None
    found.attempts += 1
    found.round_attempts += 1
    found.first_attempt_at = found.first_attempt_at or claimed.at
    found.last_attempt_at, found.status_code, found.error = claimed.at, outcome.status_code, outcome.error
    found.claimed_until = None
    session.add(
        WebhookAttempt(
            delivery_id=found.id,
            number=found.attempts,
            at=claimed.at,
            seconds=outcome.seconds,
            status_code=outcome.status_code,
            error=outcome.error,
            response=outcome.response,
        )
    )
    if outcome.delivered:
        _end(found, "delivered")
    elif outcome.gone:
        _end(found, "failed")
    else:
        following = db_time(session) + pause(found.round_attempts)
        if following > found.first_attempt_at + GIVE_UP:
            _end(found, "failed")
        else:
            found.next_attempt_at = following
    session.flush()
    return found.state


def pause(tries: int) -> timedelta:
    """How long to wait after so many failed attempts: longer each time, and never quite the same."""
    seconds = PAUSES[min(tries, len(PAUSES)) - 1]
    return timedelta(seconds=seconds * random.uniform(1 - JITTER, 1 + JITTER))


def _end(delivery: WebhookDelivery, state: str) -> None:
    delivery.state, delivery.next_attempt_at, delivery.claimed_until = state, None, None


def _disable(session: Session, claimed: Claimed, reason: str) -> None:
    session.execute(
        update(Webhook)
        .where(Webhook.id == claimed.webhook_id, Webhook.url == claimed.url, Webhook.active)
        .values(active=False, disabled_reason=reason, updated_at=db_now())
        .execution_options(synchronize_session=False)
    )

"""All SQL of webhooks and their deliveries."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from datetime import datetime

from sqlalchemy import ColumnElement, and_, delete, func, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from service.database import db_now
from service.leases import Claim
from service.outbox.tables import Webhook, WebhookAttempt, WebhookCircuit, WebhookDelivery

DELETE_BATCH = 1000
CLAIM_SECONDS = 60.0
"""The claim of a sender that died ends after so long; an attempt takes less (transport.py)."""
MAX_AHEAD_SECONDS = 28800.0
"""No attempt is ever due so far ahead, twice the longest retry: a later time was written before the clock was set back."""

_OF_HOST = and_(WebhookCircuit.project_id == Webhook.project_id, WebhookCircuit.host == Webhook.host)
"""Joins a webhook with the circuit of its host, if there is one."""


def get(session: Session, project_id: str, webhook_id: str) -> Webhook | None:
    """The project's webhook of that id."""
    statement = select(Webhook).where(Webhook.id == webhook_id, Webhook.project_id == project_id)
    return session.scalars(statement).one_or_none()


def locked(session: Session, project_id: str, webhook_id: str) -> Webhook | None:
    """The same, locked until the transaction ends."""
    statement = select(Webhook).where(Webhook.id == webhook_id, Webhook.project_id == project_id)
    return session.scalars(statement.with_for_update().execution_options(populate_existing=True)).one_or_none()


def add(session: Session, webhook: Webhook) -> None:
    """Insert a webhook."""
    session.add(webhook)
    session.flush()


def delete_webhook(session: Session, webhook: Webhook) -> None:
    """Delete a webhook and, by cascade, the deliveries that it still has."""
    session.delete(webhook)


def delete_some_deliveries(session: Session, webhook_id: str, count: int) -> int:
    """Delete up to `count` deliveries of a webhook with their attempts; returns how many."""
    some = select(WebhookDelivery.id).where(WebhookDelivery.webhook_id == webhook_id)
    some = some.order_by(WebhookDelivery.id).limit(count)
    rows = delete(WebhookDelivery).where(WebhookDelivery.id.in_(some)).returning(WebhookDelivery.id)
    return len(session.scalars(rows.execution_options(synchronize_session=False)).all())


def with_secrets(session: Session, after: str, limit: int) -> Sequence[Webhook]:
    """Return webhooks of all projects after an id, locked until the transaction ends."""
    rows = select(Webhook).where(Webhook.id > after).order_by(Webhook.id).limit(limit)
    return session.scalars(rows.with_for_update()).all()


def disable(session: Session, webhook_id: str, url: str, reason: str) -> None:
    """Disable a webhook that is active and still has that URL."""
    session.execute(
        update(Webhook)
        .where(Webhook.id == webhook_id, Webhook.url == url, Webhook.active)
        .values(active=False, disabled_reason=reason, updated_at=db_now())
        .execution_options(synchronize_session=False)
    )


def count(session: Session, project_id: str) -> int:
    """Count the project's webhooks."""
    return session.scalar(select(func.count()).where(Webhook.project_id == project_id)) or 0


def count_of_host(session: Session, project_id: str, host: str, *, without: str = "") -> int:
    """Count the project's webhooks to a host, but for one of them."""
    of_host = (Webhook.project_id == project_id, Webhook.host == host, Webhook.id != without)
    return session.scalar(select(func.count()).where(*of_host)) or 0


def delivery(session: Session, webhook_id: str, delivery_id: str, *, lock: bool = False) -> WebhookDelivery | None:
    """Return the webhook's delivery of that id; with `lock` it is locked until the transaction ends."""
    one = select(WebhookDelivery).where(WebhookDelivery.id == delivery_id, WebhookDelivery.webhook_id == webhook_id)
    if lock:
        one = one.with_for_update().execution_options(populate_existing=True)
    return session.scalars(one).one_or_none()


def projects_with_due(session: Session) -> Sequence[str]:
    """Return the projects that have due deliveries to hosts whose circuit lets them pass."""
    waiting = select(Webhook.project_id).outerjoin(WebhookCircuit, _OF_HOST).where(circuit_is_closed(), _has_due())
    return session.scalars(waiting.distinct().order_by(Webhook.project_id)).all()


def due(
    session: Session, project_id: str, limit: int, busy_webhooks: Collection[str]
) -> Sequence[tuple[str, int, str]]:
    """Return (id, fence, webhook_id) of the project's due deliveries, the longest due first, without busy receivers."""
    webhooks = select(Webhook.id).outerjoin(WebhookCircuit, _OF_HOST).where(circuit_is_closed(), _has_due())
    webhooks = webhooks.where(Webhook.project_id == project_id, Webhook.id.not_in(busy_webhooks))
    columns = (WebhookDelivery.next_attempt_at, WebhookDelivery.id, WebhookDelivery.fence)
    found = []
    for webhook_id in session.scalars(webhooks).all():
        # an index has those of one webhook in order: however many wait, so many are read
        for is_due in _due_ranges():
            first = select(*columns).where(WebhookDelivery.webhook_id == webhook_id, *is_due)
            rows = session.execute(first.order_by(*columns[:2]).limit(limit))
            found += [(at, delivery_id, fence, webhook_id) for at, delivery_id, fence in rows]
    return [(delivery_id, fence, webhook_id) for _, delivery_id, fence, webhook_id in sorted(found)[:limit]]


def _has_due() -> ColumnElement[bool]:
    of_webhook = WebhookDelivery.webhook_id == Webhook.id
    return or_(*(select(WebhookDelivery.id).where(of_webhook, *is_due).exists() for is_due in _due_ranges()))


def circuit_is_closed() -> ColumnElement[bool]:
    """Whether a host, outer-joined by its circuit, may be sent to now."""
    until = WebhookCircuit.open_until
    # a time too far ahead was written before the clock was set back
    return or_(until.is_(None), until <= db_now(), until > db_now(plus=MAX_AHEAD_SECONDS))


def pass_circuit(session: Session, project_id: str, host: str) -> bool:
    """Whether an attempt at the host may begin now. One that was cut off lets a single attempt pass, which decides."""
    circuit = _locked_circuit(session, project_id, host)
    if circuit is None or circuit.open_until is None:
        return True
    passed = session.execute(
        update(WebhookCircuit)
        .where(WebhookCircuit.project_id == project_id, WebhookCircuit.host == host, circuit_is_closed())
        .values(open_until=db_now(plus=CLAIM_SECONDS))
        .returning(WebhookCircuit.host)
        .execution_options(synchronize_session=False)
    )
    return passed.first() is not None


def end_cool_down(session: Session, project_id: str, host: str) -> None:
    """Let the next attempt at the host pass now; it decides whether the others follow."""
    of_host = (
        WebhookCircuit.project_id == project_id,
        WebhookCircuit.host == host,
        WebhookCircuit.open_until > db_now(),
    )
    now = update(WebhookCircuit).where(*of_host).values(open_until=db_now())
    session.execute(now.execution_options(synchronize_session=False))


def close_circuit(session: Session, project_id: str, host: str) -> None:
    """Forget the failures of a host that has answered well."""
    of_host = (WebhookCircuit.project_id == project_id, WebhookCircuit.host == host)
    session.execute(delete(WebhookCircuit).where(*of_host))


def count_failure(session: Session, project_id: str, host: str) -> WebhookCircuit:
    """Count a failed attempt at the host; returns its circuit, locked until the transaction ends."""
    insert = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    counted = insert(WebhookCircuit).values(project_id=project_id, host=host, failures=1)
    key = [WebhookCircuit.project_id, WebhookCircuit.host]
    counted = counted.on_conflict_do_update(index_elements=key, set_={"failures": WebhookCircuit.failures + 1})
    session.execute(counted)
    circuit = _locked_circuit(session, project_id, host)
    assert circuit is not None
    return circuit


def _locked_circuit(session: Session, project_id: str, host: str) -> WebhookCircuit | None:
    of_host = (WebhookCircuit.project_id == project_id, WebhookCircuit.host == host)
    statement = select(WebhookCircuit).where(*of_host).with_for_update()
    return session.scalars(statement.execution_options(populate_existing=True)).one_or_none()


def fail_cut_off(session: Session, seconds: float, error: str) -> int:
    """Fail up to DELETE_BATCH deliveries that have waited for so long for a host whose circuit is open; returns how many."""
    waiting = select(WebhookDelivery.id).join(Webhook, Webhook.id == WebhookDelivery.webhook_id)
    waiting = waiting.join(WebhookCircuit, _OF_HOST).where(
        WebhookCircuit.open_until.is_not(None),
        WebhookDelivery.state == "pending",
        WebhookDelivery.next_attempt_at < db_now(plus=-seconds),
    )
    failed = session.scalars(
        update(WebhookDelivery)
        .where(WebhookDelivery.id.in_(waiting.limit(DELETE_BATCH)))
        .values(state="failed", next_attempt_at=None, claimed_until=None, error=error)
        .returning(WebhookDelivery.id)
        .execution_options(synchronize_session=False)
    )
    return len(failed.all())


def _due() -> ColumnElement[bool]:
    """Pending, due and free."""
    return or_(*(and_(*is_due) for is_due in _due_ranges()))


def _due_ranges() -> Iterator[tuple[ColumnElement[bool], ...]]:
    """Yield the conditions of pending, free deliveries whose time is past, and of those whose time counts as past.

    The latter are too far ahead, which only a clock set back leaves. Each is one range of an index.
    """
    next_at, claimed_until = WebhookDelivery.next_attempt_at, WebhookDelivery.claimed_until
    is_free = or_(claimed_until.is_(None), claimed_until < db_now(), claimed_until > db_now(plus=2 * CLAIM_SECONDS))
    for in_range in (next_at <= db_now(), next_at > db_now(plus=MAX_AHEAD_SECONDS)):
        yield WebhookDelivery.state == "pending", in_range, is_free


def claim_delivery(session: Session, delivery_id: str, fence: int) -> WebhookDelivery | None:
    """Claim a due delivery for CLAIM_SECONDS and raise its fence; None when another sender has it."""
    claimed = session.scalars(
        update(WebhookDelivery)
        .where(WebhookDelivery.id == delivery_id, WebhookDelivery.fence == fence, _due())
        .values(fence=fence + 1, claimed_until=db_now(plus=CLAIM_SECONDS))
        .returning(WebhookDelivery.id)
        .execution_options(synchronize_session=False)
    ).one_or_none()
    return None if claimed is None else session.get_one(WebhookDelivery, delivery_id, populate_existing=True)


def webhook_of(session: Session, delivery: WebhookDelivery) -> Webhook:
    """Return the webhook of a delivery."""
    return session.get_one(Webhook, delivery.webhook_id)


def lock_claimed(session: Session, claim: Claim) -> WebhookDelivery | None:
    """Lock the delivery while that claim is its newest; None when it is stale."""
    statement = select(WebhookDelivery).where(WebhookDelivery.id == claim.id, WebhookDelivery.fence == claim.fence)
    return session.scalars(statement.with_for_update().execution_options(populate_existing=True)).one_or_none()


def add_attempt(
    session: Session, delivery: WebhookDelivery, at: datetime, seconds: float, response: str | None
) -> None:
    """Insert the attempt whose number, status and error the delivery has."""
    session.add(
        WebhookAttempt(
            delivery_id=delivery.id,
            number=delivery.attempts,
            at=at,
            seconds=seconds,
            status_code=delivery.status_code,
            error=delivery.error,
            response=response,
        )
    )


def attempts(session: Session, delivery_id: str) -> Sequence[WebhookAttempt]:
    """Return every POST of the delivery, oldest first."""
    posts = select(WebhookAttempt).where(WebhookAttempt.delivery_id == delivery_id)
    return session.scalars(posts.order_by(WebhookAttempt.number)).all()


def count_pending(session: Session, webhook_id: str, kind: str) -> int:
    """Count the webhook's pending deliveries of that type."""
    waiting = select(func.count()).where(
        WebhookDelivery.webhook_id == webhook_id, WebhookDelivery.type == kind, WebhookDelivery.state == "pending"
    )
    return session.scalar(waiting) or 0


def delete_ended(session: Session, seconds: float) -> int:
    """Delete up to DELETE_BATCH deliveries that ended and are older than that; returns how many."""
    old = select(WebhookDelivery.id).where(
        WebhookDelivery.state != "pending", WebhookDelivery.created_at < db_now(plus=-seconds)
    )
    # a later attempt: the delivery was sent again by a client
    old = old.where(
        WebhookDelivery.last_attempt_at.is_(None) | (WebhookDelivery.last_attempt_at < db_now(plus=-seconds))
    )
    old_rows = delete(WebhookDelivery).where(WebhookDelivery.id.in_(old.limit(DELETE_BATCH)))
    deleted = session.scalars(old_rows.returning(WebhookDelivery.id).execution_options(synchronize_session=False))
    return len(deleted.all())

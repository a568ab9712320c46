"""The queue of deliveries: claim one, record what came of an attempt, and when the next one is due."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy.orm import Session

from service.database import db_time
from service.leases import Claim
from service.outbox.tables import WebhookDelivery
from service.secret_box import SecretBox, SecretKeyError
from service.webhooks import repository
from service.webhooks.stored_secrets import secret_of

RETRY_SECONDS = (5, 30, 120, 600, 1800, 3600, 7200, 14400)
"""Delay after the first failed attempt, the second ...; the last one from then on."""
JITTER = 0.1
GIVE_UP_AFTER = timedelta(hours=24)
"""No attempt begins later than this after the first of its round."""
FAILURES_TO_OPEN = 5
"""Failed attempts in a row, of all webhooks of a project to one host, after which the host is left alone for a while."""
COOL_DOWN_SECONDS = (30, 120, 600, 1800, 3600)
"""For how long, after that many failures, one more ...; the last one from then on. Never longer than a delivery's own
delay after as many failed attempts, so that a webhook with one message is not delayed."""
CUT_OFF = "the host failed too often: nothing was sent to it for a day"
ROTATE = "An operator restores the key; else POST /v1/webhooks/{webhook_id}/rotate makes a new secret."
DISABLED = "the webhook is disabled"


@dataclass(frozen=True, slots=True)
class ClaimedDelivery:
    """What a sender needs for one attempt."""

    claim: Claim
    webhook_id: str
    url: str
    format: str
    secrets: tuple[str, ...]
    body: str
    at: datetime
    """When it was claimed, by the database's clock."""


@dataclass(frozen=True, slots=True)
class PostResult:
    """What came of one POST; `error` is None when the receiver accepted it."""

    status_code: int | None
    error: str | None
    response: str | None
    seconds: float

    @property
    def delivered(self) -> bool:
        """Whether the receiver accepted it."""
        return self.error is None

    @property
    def is_gone(self) -> bool:
        """Whether the receiver answered 410: it wants no more messages."""
        return self.status_code == 410


def claim(session: Session, delivery_id: str, fence: int, box: SecretBox) -> ClaimedDelivery | None:
    """Claim a delivery for one attempt; None when another sender has it.

    The delivery of a disabled webhook fails at once, and that of one whose secret cannot be decrypted waits as if an attempt
    had failed; None is returned.
    """
    delivery = repository.claim_delivery(session, delivery_id, fence)
    if delivery is None:
        return None
    webhook, now = repository.webhook_of(session, delivery), db_time(session)
    if webhook.active and not repository.pass_circuit(session, webhook.project_id, webhook.host):
        delivery.claimed_until = None  # another sender has the attempt that decides
        return None
    if not webhook.active:
        _close(delivery, "failed")
        delivery.error = DISABLED
        return None
    try:
        secrets = [secret_of(box, webhook)]
        if webhook.previous_secret is not None and webhook.previous_until is not None and webhook.previous_until > now:
            secrets.append(secret_of(box, webhook, "previous_secret"))
    except SecretKeyError as error:
        delivery.error = f"nothing was sent: the webhook's secret cannot be used, {error}. {ROTATE}"
        delivery.round_attempts += 1
        delivery.first_attempt_at, delivery.claimed_until = delivery.first_attempt_at or now, None
        _schedule(session, delivery)
        return None
    return ClaimedDelivery(
        Claim(delivery_id, fence + 1), webhook.id, webhook.url, webhook.format, tuple(secrets), delivery.body, now
    )


def record(session: Session, claimed: ClaimedDelivery, result: PostResult) -> str | None:
    """Record an attempt and schedule the next one; returns the delivery's state, None when the claim is stale."""
    if result.is_gone:
        # lock the webhook before its delivery, in the order of whoever deletes the webhook
        repository.disable(session, claimed.webhook_id, claimed.url, "the receiver answered 410 Gone")
    delivery = repository.lock_claimed(session, claimed.claim)
    if delivery is None:
        return None
    delivery.attempts += 1
    delivery.round_attempts += 1
    delivery.first_attempt_at = delivery.first_attempt_at or claimed.at
    delivery.last_attempt_at, delivery.status_code, delivery.error = claimed.at, result.status_code, result.error
    delivery.claimed_until = None
    repository.add_attempt(session, delivery, claimed.at, result.seconds, result.response)
    _count_for_host(session, delivery, result)
    if result.delivered:
        _close(delivery, "delivered")
    elif result.is_gone:
        _close(delivery, "failed")
    else:
        _schedule(session, delivery)
    session.flush()
    return delivery.state


def _schedule(session: Session, delivery: WebhookDelivery) -> None:
    """Set when the next attempt of the round is due, or end it."""
    assert delivery.first_attempt_at is not None
    due_at = db_time(session) + retry_delay(delivery.round_attempts)
    if due_at > delivery.first_attempt_at + GIVE_UP_AFTER:
        _close(delivery, "failed")
    else:
        delivery.next_attempt_at = due_at


def _count_for_host(session: Session, delivery: WebhookDelivery, result: PostResult) -> None:
    """Open the host's circuit after FAILURES_TO_OPEN failures in a row, and close it at the first success."""
    webhook = repository.webhook_of(session, delivery)
    if result.delivered or result.is_gone:
        repository.close_circuit(session, webhook.project_id, webhook.host)
        return
    count_host_failure(session, webhook.project_id, webhook.host)


def count_host_failure(session: Session, project_id: str, host: str) -> None:
    """Count a failed attempt at a host, and open its circuit after FAILURES_TO_OPEN in a row."""
    circuit = repository.count_failure(session, project_id, host)
    if circuit.failures >= FAILURES_TO_OPEN:
        step = min(circuit.failures - FAILURES_TO_OPEN, len(COOL_DOWN_SECONDS) - 1)
        circuit.open_until = db_time(session) + timedelta(seconds=COOL_DOWN_SECONDS[step] * (1 - JITTER))


def retry_delay(failures: int) -> timedelta:
    """Return the delay after so many failed attempts: longer each time, with random jitter."""
    seconds = RETRY_SECONDS[min(failures, len(RETRY_SECONDS)) - 1]
    return timedelta(seconds=seconds * random.uniform(1 - JITTER, 1 + JITTER))


def _close(delivery: WebhookDelivery, state: str) -> None:
    delivery.state, delivery.next_attempt_at, delivery.claimed_until = state, None, None

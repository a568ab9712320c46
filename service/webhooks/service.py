"""Rules of webhooks: what may be set, and what a client may ask of a delivery."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from service.context import Context
from service.database import db_now, db_time, new_id
from service.errors import Problem, not_found
from service.jobs import repository as jobs
from service.keys.service import Principal
from service.projects import repository as projects
from service.webhooks import outbox, repository
from service.webhooks.schemas import RotateIn, Threshold, WebhookIn, WebhookPatch
from service.webhooks.signing import new_secret
from service.webhooks.tables import Webhook, WebhookDelivery
from service.webhooks.target_policy import Refused, Targets

MOST = 50
"""Webhooks of one project."""
MOST_TESTS = 10
"""Tests of one webhook that may wait."""
KEPT_SECONDS = 30 * 86400.0


def create(context: Context, who: Principal, wish: WebhookIn) -> Webhook:
    """A new webhook. Raises a 422 problem for a URL that nothing may be sent to, 409 when the project has enough."""
    _check_url(context, wish.url)
    with context.sessions.begin() as session:
        projects.locked(session, who.project_id)
        if repository.count(session, who.project_id) >= MOST:
            raise Problem(409, "too_many_webhooks", f"The project has {MOST} webhooks already; delete one first.")
        _check_job(session, who, wish.job)
        at = db_time(session)
        webhook = Webhook(
            id=new_id("wh"),
            project_id=who.project_id,
            url=wish.url,
            description=wish.description,
            events=list(wish.events),
            thresholds=_stored(wish.thresholds),
            job_id=wish.job,
            labels=dict(wish.labels) or None,
            secret=wish.secret or new_secret(),
            active=True,
            created_at=at,
            updated_at=at,
        )
        _check_wants_something(webhook)
        session.add(webhook)
    return webhook


def find(session: Session, who: Principal, webhook_id: str) -> Webhook:
    """The project's webhook. Raises a 404 problem."""
    webhook = repository.get(session, who.project_id, webhook_id)
    if webhook is None:
        raise not_found("webhook", webhook_id)
    return webhook


def _locked(session: Session, who: Principal, webhook_id: str) -> Webhook:
    webhook = repository.locked(session, who.project_id, webhook_id)
    if webhook is None:
        raise not_found("webhook", webhook_id)
    return webhook


def change(context: Context, who: Principal, webhook_id: str, wish: WebhookPatch) -> Webhook:
    """Set what was sent. What waits is sent to the new URL; thresholds that were crossed stay told."""
    sent: dict[str, Any] = {name: getattr(wish, name) for name in wish.model_fields_set}
    if "url" in sent:
        _check_url(context, wish.url)
    with context.sessions.begin() as session:
        webhook = _locked(session, who, webhook_id)
        if "job" in sent:
            _check_job(session, who, wish.job)
            webhook.job_id = wish.job
        if "thresholds" in sent:
            webhook.thresholds = _stored(wish.thresholds)
        if "labels" in sent:
            webhook.labels = dict(wish.labels) or None
        if "active" in sent:
            webhook.active = wish.active
            webhook.disabled_reason = None if wish.active else "a client has disabled it"
        for name in ("url", "description", "events"):
            if name in sent:
                setattr(webhook, name, sent[name])
        _check_wants_something(webhook)
        webhook.updated_at = db_time(session)
    return webhook


def delete(context: Context, who: Principal, webhook_id: str) -> None:
    """Remove it with its deliveries; what waits is not sent."""
    with context.sessions.begin() as session:
        session.delete(_locked(session, who, webhook_id))


def rotate(context: Context, who: Principal, webhook_id: str, wish: RotateIn) -> Webhook:
    """Give it another secret; for a while messages are signed with both."""
    with context.sessions.begin() as session:
        webhook = _locked(session, who, webhook_id)
        if wish.secret == webhook.secret:
            raise _wrong(
                "/secret", "same_secret", "this is the secret that it has already", "Leave it out: one is made."
            )
        overlap = wish.overlap_seconds
        webhook.previous_secret = webhook.secret if overlap else None
        webhook.previous_until = session.scalar(select(db_now(plus=overlap))) if overlap else None
        webhook.secret = wish.secret or new_secret()
        webhook.updated_at = db_time(session)
    return webhook


def test(context: Context, who: Principal, webhook_id: str) -> WebhookDelivery:
    """Queue a `webhook.test` message, whatever events are wanted. Raises a 409 problem when it is disabled."""
    with context.sessions.begin() as session:
        webhook = _active(_locked(session, who, webhook_id))
        if repository.pending_of(session, webhook.id, outbox.TEST) >= MOST_TESTS:
            detail = f"{MOST_TESTS} tests of this webhook are waiting already; look at its deliveries."
            raise Problem(429, "too_many_tests", detail, headers={"Retry-After": "30"})
        at = db_time(session)
        body = outbox.message(outbox.TEST, at, webhook={"id": webhook.id, "description": webhook.description})
        return repository.add_delivery(session, webhook.id, outbox.TEST, body, at)


def find_delivery(session: Session, who: Principal, webhook_id: str, delivery_id: str) -> WebhookDelivery:
    """The webhook's delivery. Raises a 404 problem."""
    find(session, who, webhook_id)
    found = repository.delivery(session, webhook_id, delivery_id)
    if found is None:
        raise not_found("delivery", delivery_id)
    return found


def redeliver(context: Context, who: Principal, webhook_id: str, delivery_id: str) -> WebhookDelivery:
    """Send it again, now, with the same id and bytes; a new round of attempts. One that waits is sent at once."""
    with context.sessions.begin() as session:
        _active(find(session, who, webhook_id))
        found = repository.delivery(session, webhook_id, delivery_id, lock=True)
        if found is None:
            raise not_found("delivery", delivery_id)
        found.state, found.round_attempts, found.first_attempt_at = "pending", 0, None
        found.next_attempt_at = db_time(session)
    return found


def forget_old(sessions: sessionmaker[Session]) -> None:
    """Deliveries that ended long ago. For every few minutes."""
    while True:
        with sessions.begin() as session:
            gone = repository.forget_ended(session, KEPT_SECONDS)
        if gone < repository.FORGET_BATCH:
            return


def _active(webhook: Webhook) -> Webhook:
    if not webhook.active:
        detail = f"The webhook is disabled ({webhook.disabled_reason}). PATCH it with `active: true` first."
        raise Problem(409, "webhook_disabled", detail)
    return webhook


def _stored(thresholds: list[Threshold]) -> list[dict[str, Any]] | None:
    return [threshold.stored() for threshold in thresholds] or None


def _check_url(context: Context, url: str) -> None:
    try:
        Targets(context.settings.webhook_allow).check(url)
    except Refused as error:
        raise _wrong("/url", error.code, str(error), error.hint) from None


def _check_job(session: Session, who: Principal, job_id: str | None) -> None:
    if job_id is not None and jobs.get(session, who.project_id, job_id) is None:
        raise _wrong("/job", "unknown_job", f"there is no job {job_id!r} in this project", "GET /v1/jobs lists them.")


def _check_wants_something(webhook: Webhook) -> None:
    if not webhook.thresholds and set(webhook.events) <= {outbox.THRESHOLD}:
        raise _wrong("/events", "nothing_wanted", "there is neither an event nor a threshold", 'All: ["job.*"].')


def _wrong(pointer: str, code: str, message: str, hint: str) -> Problem:
    error = {"pointer": pointer, "code": code, "message": message, "hint": hint}
    return Problem(422, "invalid_request", f"{pointer}: {message}", errors=[error])

"""Rules of webhooks: what clients may set, and what they may ask of a delivery."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from sqlalchemy.orm import Session, sessionmaker

from service.context import Context
from service.database import YIELD_SECONDS, db_time, new_id
from service.errors import HttpProblem, not_found
from service.jobs import repository as jobs
from service.jobs.states import ENDED
from service.outbox import service as outbox
from service.outbox.repository import add_delivery
from service.outbox.tables import Webhook, WebhookDelivery
from service.principal import Principal
from service.projects import repository as projects
from service.secret_box import SecretBox, SecretKeyError
from service.webhooks import repository
from service.webhooks.delivery_queue import CUT_OFF, GIVE_UP_AFTER
from service.webhooks.mail import MAILTO, check_recipients, mail_host
from service.webhooks.schemas import RotateIn, Threshold, WebhookIn, WebhookPatch
from service.webhooks.signing import new_secret
from service.webhooks.stored_secrets import secret_of, set_secret
from service.webhooks.target_policy import TargetPolicy, TargetRefused, host_of

MAX_PENDING_TESTS = 10
"""Pending test messages of one webhook."""
KEPT_SECONDS = 30 * 86400.0
DELETED_AT_ONCE = 250
"""Deliveries of one transaction: some ten milliseconds."""


def check_url(context: Context, url: str) -> None:
    """Resolve the URL's host and check its addresses, which may take seconds: before a session is opened.

    Raises a 422 problem for a URL that is not allowed.
    """
    try:
        if url.startswith(MAILTO):
            check_recipients(context.settings, url)
        else:
            TargetPolicy(context.settings.webhook_allow).check(url)
    except TargetRefused as error:
        raise _invalid("/url", error.code, str(error), error.hint) from None


def create(session: Session, context: Context, who: Principal, request: WebhookIn) -> tuple[Webhook, str]:
    """Create a webhook whose URL was checked; returns it and its secret.

    Raises a 409 problem at the most webhooks of a project, or to one host, and 503 without a key for secrets.
    """
    projects.locked(session, who.project_id)
    most = context.settings.max_webhooks
    if most and repository.count(session, who.project_id) >= most:
        raise HttpProblem(409, "too_many_webhooks", f"The project has {most} webhooks already; delete one first.")
    host = _host_of(request.url)
    _check_host(session, context, who, host)
    format = _format_of(request)
    _check_job(session, who, request.job)
    at = db_time(session)
    webhook = Webhook(
        id=new_id("wh"),
        project_id=who.project_id,
        url=request.url,
        host=host,
        format=format,
        description=request.description,
        events=_events_of(request, format),
        thresholds=_as_json(request.thresholds),
        job_id=request.job,
        labels=dict(request.labels) or None,
        secret="",
        active=True,
        created_at=at,
        updated_at=at,
    )
    _check_not_empty(webhook)
    secret = request.secret or new_secret()
    with problem_without_key():
        set_secret(SecretBox(context.settings), webhook, secret)
    repository.add(session, webhook)
    return webhook, secret


def _format_of(request: WebhookIn) -> str:
    if "format" not in request.model_fields_set and request.url.startswith(MAILTO):
        return "email"
    _check_format(request.url, request.format)
    return request.format


def _check_format(url: str, format: str) -> None:
    if url.startswith(MAILTO) != (format == "email"):
        what = "must be email for a mailto: URL, and standard or slack for any other"
        raise _invalid("/format", "wrong_format", what, "Change `url` and `format` together.")


def _events_of(request: WebhookIn, format: str) -> list[str]:
    """People are told of a job's ends unless they ask for more; thresholds alone are enough, too."""
    if format == "standard" or "events" in request.model_fields_set:
        return list(request.events)
    return [] if request.thresholds else [f"job.{state}" for state in sorted(ENDED)]


def _host_of(url: str) -> str:
    return mail_host(url) if url.startswith(MAILTO) else host_of(url)


def _check_host(session: Session, context: Context, who: Principal, host: str, *, without: str = "") -> None:
    most = context.settings.max_webhooks_per_host
    if most and repository.count_of_host(session, who.project_id, host, without=without) >= most:
        detail = f"The project has {most} webhooks to {host} already; delete one, or let one of them take more events."
        raise HttpProblem(409, "too_many_webhooks", detail)


def find(session: Session, who: Principal, webhook_id: str) -> Webhook:
    """Return the project's webhook. Raises a 404 problem."""
    webhook = repository.get(session, who.project_id, webhook_id)
    if webhook is None:
        raise not_found("webhook", webhook_id)
    return webhook


def _locked(session: Session, who: Principal, webhook_id: str) -> Webhook:
    webhook = repository.locked(session, who.project_id, webhook_id)
    if webhook is None:
        raise not_found("webhook", webhook_id)
    return webhook


def change(session: Session, context: Context, who: Principal, webhook_id: str, request: WebhookPatch) -> Webhook:
    """Update the fields that were sent; a URL was checked before.

    Pending deliveries go to the new URL; crossed thresholds stay reported.
    """
    sent: dict[str, Any] = {name: getattr(request, name) for name in request.model_fields_set}
    if "url" in sent:
        projects.locked(session, who.project_id)  # before the webhook, as in `create`
        _check_host(session, context, who, _host_of(request.url), without=webhook_id)
    webhook = _locked(session, who, webhook_id)
    if "url" in sent:
        webhook.host = _host_of(request.url)
    if "job" in sent:
        _check_job(session, who, request.job)
        webhook.job_id = request.job
    if "thresholds" in sent:
        webhook.thresholds = _as_json(request.thresholds)
    if "labels" in sent:
        webhook.labels = dict(request.labels) or None
    if "active" in sent:
        webhook.active = request.active
        webhook.disabled_reason = None if request.active else "a client disabled it"
    for name in ("url", "format", "description", "events"):
        if name in sent:
            setattr(webhook, name, sent[name])
    _check_format(webhook.url, webhook.format)
    _check_not_empty(webhook)
    webhook.updated_at = db_time(session)
    return webhook


def delete_deliveries(context: Context, who: Principal, webhook_id: str) -> None:
    """Disable a webhook that is to be deleted, and delete its deliveries, in many short transactions.

    Deleted with it by cascade, a hundred thousand would keep every other writer waiting. Raises a 404 problem.
    """
    with context.sessions.begin() as session:
        webhook = _locked(session, who, webhook_id)
        webhook.active, webhook.disabled_reason = False, "a client deletes it"
    deleted = DELETED_AT_ONCE
    while deleted == DELETED_AT_ONCE:
        with context.sessions.begin() as session:
            deleted = repository.delete_some_deliveries(session, webhook_id, DELETED_AT_ONCE)
        time.sleep(YIELD_SECONDS)  # as in `in_short_transactions`


def delete(session: Session, who: Principal, webhook_id: str) -> None:
    """Delete the webhook with the deliveries that it still has; pending ones are not sent."""
    repository.delete_webhook(session, _locked(session, who, webhook_id))


def rotate(
    session: Session, context: Context, who: Principal, webhook_id: str, request: RotateIn
) -> tuple[Webhook, str]:
    """Replace the secret; messages are signed with both for `overlap_seconds`. Returns the webhook and its new secret.

    A secret that cannot be decrypted any more is replaced without an overlap.
    """
    webhook, box = _locked(session, who, webhook_id), SecretBox(context.settings)
    try:
        current = secret_of(box, webhook)
    except SecretKeyError:
        current = None
    if request.secret is not None and request.secret == current:
        raise _invalid(
            "/secret", "same_secret", "must differ from the current secret", "Leave it out to have one generated."
        )
    overlap = request.overlap_seconds if current is not None else 0
    secret = request.secret or new_secret()
    with problem_without_key():
        set_secret(box, webhook, current if overlap else None, "previous_secret")
        set_secret(box, webhook, secret)
    webhook.previous_until = db_time(session) + timedelta(seconds=overlap) if overlap else None
    webhook.updated_at = db_time(session)
    return webhook, secret


@contextmanager
def problem_without_key() -> Iterator[None]:
    """Answer with a 503 problem where a secret cannot be encrypted."""
    try:
        yield
    except SecretKeyError as error:
        raise HttpProblem(503, "no_secret_key", f"Secrets cannot be stored: {error}.") from None


def test(session: Session, who: Principal, webhook_id: str) -> WebhookDelivery:
    """Queue a `webhook.test` message. Raises a 409 problem when the webhook is disabled, 429 with too many pending."""
    webhook = _active(_locked(session, who, webhook_id))
    if repository.count_pending(session, webhook.id, outbox.TEST) >= MAX_PENDING_TESTS:
        detail = f"{MAX_PENDING_TESTS} tests of this webhook are pending. Try again when some have been sent."
        raise HttpProblem(429, "too_many_tests", detail, headers={"Retry-After": "30"})
    at = db_time(session)
    body = outbox.message(outbox.TEST, at, webhook={"id": webhook.id, "description": webhook.description})
    return add_delivery(session, webhook.id, outbox.TEST, body, at)


def find_delivery(session: Session, who: Principal, webhook_id: str, delivery_id: str) -> WebhookDelivery:
    """Return the webhook's delivery. Raises a 404 problem."""
    find(session, who, webhook_id)
    found = repository.delivery(session, webhook_id, delivery_id)
    if found is None:
        raise not_found("delivery", delivery_id)
    return found


def redeliver(session: Session, who: Principal, webhook_id: str, delivery_id: str) -> WebhookDelivery:
    """Make the delivery due now, with the same id and body and a new round of attempts, also to a host that failed."""
    webhook = _active(find(session, who, webhook_id))
    found = repository.delivery(session, webhook_id, delivery_id, lock=True)
    if found is None:
        raise not_found("delivery", delivery_id)
    found.state, found.round_attempts, found.first_attempt_at = "pending", 0, None
    found.next_attempt_at = db_time(session)
    repository.end_cool_down(session, webhook.project_id, webhook.host)
    return found


def delete_old_deliveries(sessions: sessionmaker[Session]) -> None:
    """Fail deliveries that waited for a failing host for too long; delete those that ended `KEPT_SECONDS` ago."""
    while True:
        with sessions.begin() as session:
            failed = repository.fail_cut_off(session, GIVE_UP_AFTER.total_seconds(), CUT_OFF)
        if failed < repository.DELETE_BATCH:
            break
    while True:
        with sessions.begin() as session:
            deleted = repository.delete_ended(session, KEPT_SECONDS)
        if deleted < repository.DELETE_BATCH:
            return


def _active(webhook: Webhook) -> Webhook:
    if not webhook.active:
        detail = f"The webhook is disabled ({webhook.disabled_reason}). PATCH it with `active: true` first."
        raise HttpProblem(409, "webhook_disabled", detail)
    return webhook


def _as_json(thresholds: list[Threshold]) -> list[dict[str, Any]] | None:
    return [threshold.as_json() for threshold in thresholds] or None


def _check_job(session: Session, who: Principal, job_id: str | None) -> None:
    if job_id is not None and jobs.get(session, who.project_id, job_id) is None:
        raise _invalid("/job", "unknown_job", f"there is no job {job_id!r} in this project", "GET /v1/jobs lists them.")


def _check_not_empty(webhook: Webhook) -> None:
    if not webhook.thresholds and set(webhook.events) <= {outbox.THRESHOLD}:
        raise _invalid(
            "/events", "no_events", "events and thresholds are both empty", 'For all events of jobs send ["job.*"].'
        )


def _invalid(pointer: str, code: str, message: str, hint: str) -> HttpProblem:
    error = {"pointer": pointer, "code": code, "message": message, "hint": hint}
    return HttpProblem(422, "invalid_request", f"{pointer}: {message}", errors=[error])

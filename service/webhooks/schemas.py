"""Wire format of webhooks and their deliveries."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from service.outbox import service as outbox
from service.outbox.tables import Webhook, WebhookAttempt, WebhookDelivery
from service.request_model import RequestModel
from service.response_model import JsonObject, ResponseModel
from service.timestamps import Timestamp
from service.webhooks.signing import key_of

EventName = Literal[
    "*",
    "job.*",
    "job.validating",
    "job.queued",
    "job.starting",
    "job.running",
    "job.pausing",
    "job.paused",
    "job.stopping",
    "job.succeeded",
    "job.stopped",
    "job.cancelled",
    "job.failed",
    "job.metric_threshold",
]
DeliveryState = Literal["pending", "delivered", "failed"]
PLAIN = r"^[^\x00]*$"
METRIC = r"^(train|val|test)_[A-Za-z0-9_.-]+$"
LABEL = r"^[A-Za-z0-9_.-]{1,64}$"
MAX_OVERLAP_SECONDS = 7 * 86400


def _check_secret(secret: str) -> str:
    key_of(secret)
    return secret


Url = Annotated[
    str,
    Field(
        max_length=2000,
        description="https://...; the host's address must be public. Or mailto:ann@example.org,bob@example.org.",
    ),
]
Format = Literal["standard", "slack", "email"]
Secret = Annotated[str, Field(max_length=120), AfterValidator(_check_secret)]
Labels = dict[Annotated[str, Field(pattern=LABEL)], Annotated[str, Field(max_length=500, pattern=PLAIN)]]


class Threshold(RequestModel):
    """A value of a metric; reported once per job, at the first row beyond it. `at_least` and `at_most` include the value."""

    metric: str = Field(max_length=120, pattern=METRIC)
    """With its part: `val_accuracy`, `train_loss`."""
    above: float | None = Field(None, allow_inf_nan=False)
    below: float | None = Field(None, allow_inf_nan=False)
    at_least: float | None = Field(None, allow_inf_nan=False)
    at_most: float | None = Field(None, allow_inf_nan=False)

    @model_validator(mode="after")
    def check(self) -> Threshold:
        if len(self.as_json()) != 2:
            raise ValueError("give one of `above`, `below`, `at_least` and `at_most`")
        return self

    def as_json(self) -> dict[str, Any]:
        """Return the value of the table's column."""
        return self.model_dump(exclude_none=True)


def _check_thresholds(thresholds: list[Threshold]) -> list[Threshold]:
    names = [outbox.threshold_key(threshold.as_json()) for threshold in thresholds]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"{twice[0]} is listed twice; list it once")
    return thresholds


Events = Annotated[list[EventName], Field(max_length=20)]
Thresholds = Annotated[list[Threshold], Field(max_length=20), AfterValidator(_check_thresholds)]


class WebhookIn(RequestModel):
    """A new webhook."""

    url: Url
    format: Format = "standard"
    """`standard`: signed JSON for programs; `slack`: `{"text": ...}` for chats; `email`: mail, with a mailto: URL, which has
    this format without being told."""
    description: str = Field("", max_length=500, pattern=PLAIN)
    events: Events = ["job.*"]
    """`job.` and the new state of a job; `job.*` or `*` for all. Left out with the format slack or email: a job's ends."""
    thresholds: Thresholds = []
    """Reported as `job.metric_threshold`, whether `events` names it or not."""
    job: str | None = Field(None, max_length=40)
    """Only events of this job."""
    labels: Labels = Field(default_factory=dict, max_length=32)
    """Only events of jobs with all these labels."""
    secret: Secret | None = None
    """`whsec_` and the base64 of 24 to 64 bytes; left out, one is generated."""


class WebhookPatch(RequestModel):
    """Fields to update; the others stay."""

    url: Url = ""
    format: Format = "standard"
    description: str = Field("", max_length=500, pattern=PLAIN)
    events: Events = []
    thresholds: Thresholds = []
    job: str | None = Field(None, max_length=40)
    labels: Labels = Field(default_factory=dict, max_length=32)
    active: bool = True
    """true also re-enables a webhook that a 410 disabled."""


class RotateIn(RequestModel):
    """The next secret."""

    secret: Secret | None = None
    """Left out, one is generated."""
    overlap_seconds: int = Field(86400, ge=0, le=MAX_OVERLAP_SECONDS)
    """How long messages are signed with the old secret too."""


class WebhookOut(ResponseModel):
    """A webhook without its secret, which is shown at creation only."""

    id: str
    url: str
    format: Format
    description: str
    events: list[str]
    thresholds: list[Threshold]
    job: str | None
    labels: dict[str, str]
    active: bool
    disabled_reason: str | None
    previous_secret_until: Timestamp | None
    created_at: Timestamp
    updated_at: Timestamp


class WebhookCreated(WebhookOut):
    """A webhook with its new secret."""

    secret: str


def webhook_out(row: Webhook) -> WebhookOut:
    """Map a row to the wire format."""
    return WebhookOut.model_validate(_shown(row))


def webhook_created(row: Webhook, secret: str) -> WebhookCreated:
    """Map a row to the wire format with its secret."""
    return WebhookCreated.model_validate({**_shown(row), "secret": secret})


def _shown(row: Webhook) -> dict[str, Any]:
    return {
        "id": row.id,
        "url": row.url,
        "format": row.format,
        "description": row.description,
        "events": row.events,
        "thresholds": row.thresholds or [],
        "job": row.job_id,
        "labels": row.labels or {},
        "active": row.active,
        "disabled_reason": row.disabled_reason,
        "previous_secret_until": row.previous_until,
        "created_at": row.created_at,
        "updated_at": row.updated_at,
    }


class DeliveryOut(ResponseModel):
    """One message and its state. Its id is the header `webhook-id` of every attempt."""

    id: str
    webhook: str
    type: str
    job: str | None
    state: DeliveryState
    attempts: int
    next_attempt_at: Timestamp | None
    first_attempt_at: Timestamp | None
    """Of this round; `redeliver` starts another."""
    last_attempt_at: Timestamp | None
    status_code: int | None
    """Of the last attempt, like `error`; null without a response."""
    error: str | None
    created_at: Timestamp


class DeliveryAttemptOut(ResponseModel):
    """The result of one POST."""

    number: int
    at: Timestamp
    seconds: float
    status_code: int | None
    error: str | None
    response: str | None
    """The beginning of the response's body."""


class MessageOut(ResponseModel):
    """What was sent."""

    type: str
    timestamp: Timestamp
    data: JsonObject


class DeliveryDetail(DeliveryOut):
    """A delivery with its payload and all attempts."""

    payload: MessageOut
    history: list[DeliveryAttemptOut]


def delivery_out(row: WebhookDelivery) -> DeliveryOut:
    """Map a row to the wire format."""
    return DeliveryOut.model_validate(_progress(row))


def delivery_detail(row: WebhookDelivery, attempts: list[WebhookAttempt]) -> DeliveryDetail:
    """Map a row to the wire format with payload and attempts."""
    history = [
        DeliveryAttemptOut(
            number=attempt.number,
            at=attempt.at,
            seconds=attempt.seconds,
            status_code=attempt.status_code,
            error=attempt.error,
            response=attempt.response,
        )
        for attempt in attempts
    ]
    payload = {"type": row.type, "timestamp": row.created_at, "data": {}, **json.loads(row.body)}
    return DeliveryDetail.model_validate({**_progress(row), "payload": payload, "history": history})


def _progress(row: WebhookDelivery) -> dict[str, Any]:
    return {
        "id": row.id,
        "webhook": row.webhook_id,
        "type": row.type,
        "job": row.job_id,
        "state": row.state,
        "attempts": row.attempts,
        "next_attempt_at": row.next_attempt_at,
        "first_attempt_at": row.first_attempt_at,
        "last_attempt_at": row.last_attempt_at,
        "status_code": row.status_code,
        "error": row.error,
        "created_at": row.created_at,
    }

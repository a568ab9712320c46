"""Wire format of webhooks and their deliveries."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from service.webhooks import outbox
from service.webhooks.signing import key_of
from service.webhooks.tables import Webhook, WebhookAttempt, WebhookDelivery

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
LONGEST_OVERLAP = 7 * 86400


def _check_secret(secret: str) -> str:
    key_of(secret)
    return secret


Url = Annotated[str, Field(max_length=2000, description="https://...; the host's address must be public.")]
Secret = Annotated[str, Field(max_length=120), AfterValidator(_check_secret)]
Labels = dict[Annotated[str, Field(pattern=LABEL)], Annotated[str, Field(max_length=500, pattern=PLAIN)]]


class Threshold(BaseModel):
    """A value of a metric; told once a job, at the first row that is strictly beyond it."""

    model_config = ConfigDict(extra="forbid")
    metric: str = Field(max_length=120, pattern=METRIC)
    """With its part: `val_accuracy`, `train_loss`."""
    above: float | None = Field(None, allow_inf_nan=False)
    below: float | None = Field(None, allow_inf_nan=False)

    @model_validator(mode="after")
    def check(self) -> Threshold:
        if (self.above is None) == (self.below is None):
            raise ValueError("give either `above` or `below`")
        return self

    def stored(self) -> dict[str, Any]:
        """As the table has it."""
        return self.model_dump(exclude_none=True)


def _check_thresholds(thresholds: list[Threshold]) -> list[Threshold]:
    names = [outbox.name(threshold.stored()) for threshold in thresholds]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"{twice[0]} is there twice")
    return thresholds


Events = Annotated[list[EventName], Field(max_length=20)]
Thresholds = Annotated[list[Threshold], Field(max_length=20), AfterValidator(_check_thresholds)]


class WebhookIn(BaseModel):
    """A new webhook."""

    model_config = ConfigDict(extra="forbid")
    url: Url
    description: str = Field("", max_length=500, pattern=PLAIN)
    events: Events = ["job.*"]
    """`job.` and the state that a job has come to; `job.*` or `*` for all."""
    thresholds: Thresholds = []
    """Told as `job.metric_threshold`, whether `events` names it or not."""
    job: str | None = Field(None, max_length=40)
    """Of this job alone."""
    labels: Labels = Field(default_factory=dict, max_length=32)
    """Of jobs that have all these labels."""
    secret: Secret | None = None
    """`whsec_` and the base64 of 24 to 64 bytes; left out, one is made."""


class WebhookPatch(BaseModel):
    """What to change; what is left out stays."""

    model_config = ConfigDict(extra="forbid")
    url: Url = ""
    description: str = Field("", max_length=500, pattern=PLAIN)
    events: Events = []
    thresholds: Thresholds = []
    job: str | None = Field(None, max_length=40)
    labels: Labels = Field(default_factory=dict, max_length=32)
    active: bool = True
    """true also takes back what a 410 has done."""


class RotateIn(BaseModel):
    """The next secret."""

    model_config = ConfigDict(extra="forbid")
    secret: Secret | None = None
    """Left out, one is made."""
    overlap_seconds: int = Field(86400, ge=0, le=LONGEST_OVERLAP)
    """So long messages are signed with the old secret too."""


class WebhookOut(BaseModel):
    """A webhook; its secret is shown when it is made, and never again."""

    id: str
    url: str
    description: str
    events: list[str]
    thresholds: list[dict[str, Any]]
    job: str | None
    labels: dict[str, str]
    active: bool
    disabled_reason: str | None
    previous_secret_until: datetime | None
    created_at: datetime
    updated_at: datetime


class WebhookMade(WebhookOut):
    """The same, this once with its secret."""

    secret: str


def webhook_out(row: Webhook) -> WebhookOut:
    """A row as scripts read it."""
    return WebhookOut.model_validate(_shown(row))


def webhook_made(row: Webhook) -> WebhookMade:
    """The same with the secret."""
    return WebhookMade.model_validate({**_shown(row), "secret": row.secret})


def _shown(row: Webhook) -> dict[str, Any]:
    return {
        "id": row.id,
        "url": row.url,
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


class DeliveryOut(BaseModel):
    """One message, and how far it is. Its id is the header `webhook-id` of every attempt."""

    id: str
    webhook: str
    type: str
    job: str | None
    state: DeliveryState
    attempts: int
    next_attempt_at: datetime | None
    first_attempt_at: datetime | None
    """Of this round: `redeliver` begins another."""
    last_attempt_at: datetime | None
    status_code: int | None
    """Of the last attempt, as `error`; null when no answer came."""
    error: str | None
    created_at: datetime


class DeliveryAttemptOut(BaseModel):
    """What came of one POST."""

    number: int
    at: datetime
    seconds: float
    status_code: int | None
    error: str | None
    response: str | None
    """The beginning of what was answered."""


class DeliveryDetail(DeliveryOut):
    """The same with all that was sent and answered."""

    payload: dict[str, Any]
    history: list[DeliveryAttemptOut]


def delivery_out(row: WebhookDelivery) -> DeliveryOut:
    """A row as scripts read it."""
    return DeliveryOut.model_validate(_progress(row))


def delivery_detail(row: WebhookDelivery, attempts: list[WebhookAttempt]) -> DeliveryDetail:
    """The same with payload and attempts."""
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
    return DeliveryDetail.model_validate({**_progress(row), "payload": json.loads(row.body), "history": history})


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

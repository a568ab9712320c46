"""Messages are made in the transaction of what they tell: an event that is committed is told, one that is not never.

A crash between the two cannot lose or double one, and a webhook that is broken cannot hold a job up.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from math import isfinite
from typing import Any

from sqlalchemy import Row
from sqlalchemy.orm import Session

from service.database import db_time
from service.metrics.chunks import Row as MetricRow
from service.webhooks import repository
from service.webhooks.tables import WebhookCrossing

THRESHOLD = "job.metric_threshold"
TEST = "webhook.test"


def publish(session: Session, project_id: str, job_id: str, event: Mapping[str, Any]) -> None:
    """Queue the job's event `{seq, at, from, to, reason}` for every webhook that wants it."""
    kind = f"job.{event['to']}"
    wanted = [hook for hook in repository.subscriptions(session, project_id) if _wants(hook.events, kind)]
    if not wanted:
        return
    job = repository.job_facts(session, job_id)
    told = _there(session, [hook for hook in wanted if _about(hook, job)])
    if told:
        body = message(kind, event["at"], job=_job(job), event={**event, "at": _time(event["at"])})
        for webhook_id in told:
            repository.add_delivery(session, webhook_id, kind, body, event["at"], job_id=job_id, event_seq=event["seq"])
        session.flush()


def observe(session: Session, job_id: str, rows: Sequence[MetricRow], first_seq: int) -> None:
    """Queue a message for every threshold that these rows are the first of their job to cross."""
    watching = repository.watchers(session, job_id)
    if not watching:
        return
    found = [
        (hook, threshold, place)
        for hook in watching
        for threshold in hook.thresholds
        if (place := _first_beyond(threshold, rows)) is not None
    ]
    if not found:
        return
    known = repository.crossed(session, job_id)
    job = repository.job_facts(session, job_id)
    new = [one for one in found if (one[0].id, name(one[1])) not in known and _about(one[0], job)]
    there = set(_there(session, [hook for hook, _, _ in new]))
    at = db_time(session)
    for hook, threshold, place in new:
        if hook.id in there:
            _tell(session, hook.id, job, threshold, rows[place], first_seq + place, at)
    session.flush()


def _tell(
    session: Session, webhook_id: str, job: Row[Any], threshold: dict[str, Any], row: MetricRow, seq: int, at: datetime
) -> None:
    session.add(WebhookCrossing(webhook_id=webhook_id, job_id=job.id, threshold=name(threshold), seq=seq, at=at))
    crossing = {
        **threshold,
        "value": row.value if isfinite(row.value) else None,
        **({} if isfinite(row.value) else {"nonfinite": str(row.value)}),
        "step": row.step,
        "epoch": row.epoch,
        "seq": seq,
        "at": _time(datetime.fromtimestamp(row.at, UTC)),
    }
    body = message(THRESHOLD, at, job=_job(job), event=crossing)
    repository.add_delivery(session, webhook_id, THRESHOLD, body, at, job_id=job.id)


def message(kind: str, at: datetime, **data: Any) -> str:
    """The body: thin, so that who needs more asks the API, with a key."""
    return json.dumps({"type": kind, "timestamp": _time(at), "data": data}, separators=(",", ":"), allow_nan=False)


def name(threshold: Mapping[str, Any]) -> str:
    """`val_accuracy > 0.95`: what makes a threshold the same one."""
    side, sign = ("above", ">") if "above" in threshold else ("below", "<")
    return f"{threshold['metric']} {sign} {float(threshold[side])!r}"


def _first_beyond(threshold: Mapping[str, Any], rows: Sequence[MetricRow]) -> int | None:
    """Place of the first row that lies beyond; NaN lies nowhere."""
    split, _, metric = threshold["metric"].partition("_")
    above, below = threshold.get("above"), threshold.get("below")
    for place, row in enumerate(rows):
        if row.name != metric or row.split != split:
            continue
        if (above is not None and row.value > above) or (below is not None and row.value < below):
            return place
    return None


def _wants(events: Sequence[str], kind: str) -> bool:
    return kind in events or "job.*" in events or "*" in events


def _about(hook: Row[Any], job: Row[Any]) -> bool:
    """Whether the job is one that the webhook is about."""
    if hook.job_id is not None and hook.job_id != job.id:
        return False
    return all(job.labels.get(key) == value for key, value in (hook.labels or {}).items())


def _there(session: Session, hooks: Sequence[Row[Any]]) -> list[str]:
    return sorted(repository.still_there(session, [hook.id for hook in hooks])) if hooks else []


def _job(job: Row[Any]) -> dict[str, Any]:
    return {
        "id": job.id,
        "name": job.name,
        "state": job.state,
        "stop_reason": job.stop_reason,
        "error_code": (job.error or {}).get("code"),
        "labels": job.labels,
        "url": f"/v1/jobs/{job.id}",
    }


def _time(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")

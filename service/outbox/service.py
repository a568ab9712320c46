"""Transactional outbox: deliveries are written in the transaction of the event that they report.

So a crash can neither lose nor double one, and a broken receiver cannot delay a job.
"""

from __future__ import annotations

import json
import operator
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from math import isfinite
from typing import TYPE_CHECKING, Any

from sqlalchemy import Row
from sqlalchemy.orm import Session

from service.database import db_time
from service.outbox import repository
from service.proxy_headers import checked_root_path
from service.settings import Settings
from service.timestamps import rfc3339

if TYPE_CHECKING:
    from service.metrics.chunks import MetricRow

THRESHOLD = "job.metric_threshold"
TEST = "webhook.test"
JobSummary = Callable[[], Row[Any]]
"""Reads the columns of the job that messages hold, as the transaction has them; called once a webhook subscribes."""


def publish(session: Session, project_id: str, event: Mapping[str, Any], summary: JobSummary) -> None:
    """Queue a job's event `{seq, at, from, to, reason}` for every webhook that subscribes to it."""
    kind = f"job.{event['to']}"
    subscribed = [hook for hook in repository.subscriptions(session, project_id) if _subscribes(hook.events, kind)]
    if not subscribed:
        return
    job = summary()
    webhook_ids = _lock_existing(session, [hook for hook in subscribed if _matches(hook, job)])
    if webhook_ids:
        body = message(kind, event["at"], job=_job(job), event={**event, "at": rfc3339(event["at"])})
        for webhook_id in webhook_ids:
            repository.add_delivery(session, webhook_id, kind, body, event["at"], job_id=job.id, event_seq=event["seq"])
        session.flush()


def begin_copies(session: Session, project_id: str, job_id: str) -> None:
    """Have the project's mirrors copy a job that starts."""
    repository.begin_copies(session, project_id, job_id)


def observe(session: Session, project_id: str, rows: Sequence[MetricRow], first_seq: int, summary: JobSummary) -> None:
    """Queue a message for every threshold that these metric rows are the first of their job to cross."""
    watching = repository.watchers(session, project_id)
    if not watching:
        return
    crossings = [
        (hook, threshold, index)
        for hook in watching
        for threshold in hook.thresholds
        if (index := _first_beyond(threshold, rows)) is not None
    ]
    if not crossings:
        return
    job = summary()
    known = repository.crossed(session, job.id)
    new = [one for one in crossings if (one[0].id, threshold_key(one[1])) not in known and _matches(one[0], job)]
    existing = set(_lock_existing(session, [hook for hook, _, _ in new]))
    at = db_time(session)
    for hook, threshold, index in new:
        if hook.id in existing:
            _report_crossing(session, hook.id, job, threshold, rows[index], first_seq + index, at)
    session.flush()


def _report_crossing(
    session: Session, webhook_id: str, job: Row[Any], threshold: dict[str, Any], row: MetricRow, seq: int, at: datetime
) -> None:
    repository.add_crossing(session, webhook_id, job.id, threshold_key(threshold), seq, at)
    crossing = {
        **threshold,
        "value": row.value if isfinite(row.value) else None,
        **({} if isfinite(row.value) else {"nonfinite": str(row.value)}),
        "step": row.step,
        "epoch": row.epoch,
        "seq": seq,
        "at": rfc3339(datetime.fromtimestamp(row.at, UTC)),
    }
    body = message(THRESHOLD, at, job=_job(job), event=crossing)
    repository.add_delivery(session, webhook_id, THRESHOLD, body, at, job_id=job.id)


def message(kind: str, at: datetime, **data: Any) -> str:
    """Return the JSON body. It holds little: a receiver that needs more asks the API with its key."""
    return json.dumps({"type": kind, "timestamp": rfc3339(at), "data": data}, separators=(",", ":"), allow_nan=False)


def threshold_key(threshold: Mapping[str, Any]) -> str:
    """Return what identifies a threshold, e.g. `val_accuracy > 0.95`."""
    side, sign, _ = _side_of(threshold)
    return f"{threshold['metric']} {sign} {float(threshold[side])!r}"


SIDES: dict[str, tuple[str, Callable[[float, float], bool]]] = {
    "above": (">", operator.gt),
    "below": ("<", operator.lt),
    "at_least": (">=", operator.ge),
    "at_most": ("<=", operator.le),
}
"""Field of a threshold -> its sign, and what a value beyond it is."""


def _side_of(threshold: Mapping[str, Any]) -> tuple[str, str, Callable[[float, float], bool]]:
    side = next(name for name in SIDES if name in threshold)
    return (side, *SIDES[side])


def _first_beyond(threshold: Mapping[str, Any], rows: Sequence[MetricRow]) -> int | None:
    """Return the index of the first row beyond the threshold, None without one; NaN is never beyond."""
    split, _, metric = threshold["metric"].partition("_")
    side, _, is_beyond = _side_of(threshold)
    for index, row in enumerate(rows):
        if row.name != metric or row.split != split:
            continue
        if is_beyond(row.value, threshold[side]):
            return index
    return None


def _subscribes(events: Sequence[str], kind: str) -> bool:
    return kind in events or "job.*" in events or "*" in events


def _matches(hook: Row[Any], job: Row[Any]) -> bool:
    """Whether the webhook's job and labels match the job."""
    if hook.job_id is not None and hook.job_id != job.id:
        return False
    return all(job.labels.get(key) == value for key, value in (hook.labels or {}).items())


def _lock_existing(session: Session, hooks: Sequence[Row[Any]]) -> list[str]:
    return sorted(repository.lock_existing(session, [hook.id for hook in hooks])) if hooks else []


def _job(job: Row[Any]) -> dict[str, Any]:
    return {
        "id": job.id,
        "name": job.name,
        "state": job.state,
        "stop_reason": job.stop_reason,
        "error_code": (job.error or {}).get("code"),
        "labels": job.labels,
        "url": f"{_root_path()}/v1/jobs/{job.id}",
    }


@cache
def _root_path() -> str:
    """Read the setting once: events are written by workers and by the API, in sessions that know no settings."""
    return checked_root_path(Settings.from_env().root_path)

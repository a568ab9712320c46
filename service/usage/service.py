"""What a project uses of its limits, gathered from where each of them is checked."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime, timedelta

from sqlalchemy.orm import Session

from service import quota
from service.inference_requests import repository as inference_requests
from service.jobs import compute_usage
from service.jobs import repository as jobs
from service.key_limits import KeyUsage
from service.projects.service import rules
from service.settings import Settings
from service.uploads import repository as uploads
from service.usage.schemas import (
    HoursUsage,
    KeyUsageOut,
    LimitUsage,
    StorageByKind,
    StorageUsage,
    UsageOut,
)
from service.webhooks import repository as webhooks


def usage_of(session: Session, settings: Settings, project_id: str, key: KeyUsage) -> UsageOut:
    """Return what the project uses, and the key that asks."""
    limits = rules(session, settings, project_id)
    spent, stored = compute_usage.used(session, project_id), quota.recently_used(session, project_id)
    storage = _limit(limits.max_storage_bytes, stored.total)
    return UsageOut(
        project=project_id,
        at=spent.at,
        key=_key(settings, limits.max_streams, key, spent.at),
        queued_jobs=_limit(limits.max_queued_jobs, jobs.waiting(session, project_id)),
        running_jobs=_limit(limits.max_running_jobs, jobs.running(session, project_id)),
        inference_requests=_limit(settings.max_inference_requests, inference_requests.count_open(session, project_id)),
        open_uploads=_limit(settings.max_open_uploads, uploads.count_open(session, project_id)),
        open_upload_bytes=_limit(settings.max_open_upload_bytes, uploads.open_bytes(session, project_id)),
        webhooks=_limit(settings.max_webhooks, webhooks.count(session, project_id)),
        storage_bytes=StorageUsage(**storage.model_dump(), by_kind=StorageByKind(**asdict(stored))),
        gpu_hours=_hours(limits.max_gpu_hours, spent.gpu_hours, spent.resets_at),
        cpu_hours=_hours(None, spent.cpu_hours, spent.resets_at),
    )


def _key(settings: Settings, max_streams: int | None, key: KeyUsage, now: datetime) -> KeyUsageOut:
    rate = key.requests
    requests = LimitUsage(limit=None, used=0, remaining=None)
    if rate is not None:
        full_at = now + timedelta(seconds=rate.full_seconds)
        used = rate.limit - rate.remaining
        requests = LimitUsage(limit=rate.limit, used=used, remaining=rate.remaining, resets_at=full_at)
    return KeyUsageOut(
        requests_per_minute=requests,
        requests_in_work=_limit(settings.max_requests_per_key, key.in_work),
        streams=_limit(max_streams, key.streams),
    )


def _limit(limit: int | None, used: int) -> LimitUsage:
    """A limit as it is shown; 0 in a setting is no limit."""
    most = limit or None
    return LimitUsage(limit=most, used=used, remaining=None if most is None else max(0, most - used))


def _hours(limit: float | None, used: float, resets_at: datetime) -> HoursUsage:
    shown = round(used, 3)
    remaining = None if limit is None else max(0.0, round(limit - used, 3))
    return HoursUsage(limit=limit, used=shown, remaining=remaining, resets_at=resets_at)

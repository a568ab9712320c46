"""What this installation is and can do, from its settings and its live workers. No address, name or secret is in it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from sqlalchemy.orm import Session

from service.body_limits import BODY_BYTES
from service.info.schemas import DeviceOut, FeaturesOut, InfoOut, InstallationLimitsOut
from service.settings import Settings
from service.stream_tickets import service as stream_tickets
from service.workers.repository import alive
from service.workers.tables import Worker
from trainkit.version import __version__


def info(session: Session, settings: Settings) -> InfoOut:
    """Return the description of the installation."""
    workers = alive(session)
    devices = describe_devices(workers)
    return InfoOut(
        version=__version__,
        database="postgresql" if settings.database_url.startswith("postgresql") else "sqlite",
        broker=broker_kind(settings.broker_url),
        devices=devices,
        features=FeaturesOut(
            cuda=any(found.device == "cuda" and found.train_slots for found in devices),
            predictions=any("predict" in worker.queues for worker in workers),
            file_sources=bool(settings.file_roots),
            s3_sources=bool(settings.s3_buckets),
            sign_in=bool(settings.oidc_issuer),
            cross_origin=bool(settings.cors_origins),
        ),
        limits=limits(settings),
    )


def describe_devices(workers: Iterable[Worker]) -> list[DeviceOut]:
    """Return the live workers by kind of device, without saying how many hosts there are."""
    groups: dict[str, list[Worker]] = {}
    for worker in workers:
        groups.setdefault(worker.device.partition(":")[0], []).append(worker)
    return [
        DeviceOut(
            device=device,
            workers=len(group),
            train_slots=sum(worker.slots for worker in group if "train" in worker.queues),
            memory_bytes=max((worker.memory_bytes or 0 for worker in group), default=0) or None,
            accelerator_bytes=max((worker.accelerator_bytes or 0 for worker in group), default=0) or None,
        )
        for device, group in sorted(groups.items())
    ]


def broker_kind(url: str) -> Literal["redis", "rabbitmq", "memory"]:
    """Return the kind of broker behind an address."""
    scheme = url.partition("://")[0]
    return "rabbitmq" if scheme.startswith(("amqp", "pyamqp")) else "memory" if scheme == "memory" else "redis"


def limits(settings: Settings) -> InstallationLimitsOut:
    """Return the limits that clients meet."""
    return InstallationLimitsOut(
        request_bytes=min(BODY_BYTES, settings.max_body_bytes),
        prediction_bytes=settings.max_body_bytes,
        upload_bytes=settings.max_upload_bytes,
        requests_per_minute=settings.max_requests_per_minute or None,
        requests_at_once=settings.max_requests_per_key or None,
        streams_at_once=settings.max_streams_per_key or None,
        key_days=settings.max_key_days or None,
        prediction_seconds=settings.predict_seconds,
        unfinished_upload_seconds=settings.upload_keep_seconds,
        stream_ticket_seconds=stream_tickets.SECONDS,
        job_epochs=settings.max_job_epochs or None,
        job_seconds=settings.max_job_seconds or None,
    )

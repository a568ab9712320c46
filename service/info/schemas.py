"""The wire format of what this installation is and can do."""

from __future__ import annotations

from typing import Literal

from service.response_model import ResponseModel


class DeviceOut(ResponseModel):
    """Live workers of one device, together."""

    device: str
    """As in a spec's `resources.device`: `cpu`, `cuda`, `mps`."""
    workers: int
    train_slots: int
    """Jobs that can train at a time."""
    memory_bytes: int | None
    """Of the largest worker's host."""
    accelerator_bytes: int | None
    """Memory of the accelerators of the largest worker; null: none, or it cannot say."""


class FeaturesOut(ResponseModel):
    """What an operator may have turned on, or workers bring."""

    cuda: bool
    """A live worker trains on a GPU."""
    predictions: bool
    """A live worker answers predictions."""
    file_sources: bool
    """Datasets can be registered from folders of the server (`file://`)."""
    s3_sources: bool
    """Datasets can be registered from buckets (`s3://`)."""
    sign_in: bool
    """People sign in with a provider (OpenID Connect), at `/v1/auth/login`."""
    cross_origin: bool
    """Pages of some other origins may call the API."""


class InstallationLimitsOut(ResponseModel):
    """Limits of the installation; null: none. Those of the project are at `/v1/projects/{project_id}`."""

    request_bytes: int
    """Body of a request that is no upload, prediction or evaluation."""
    prediction_bytes: int
    """Body of a prediction or evaluation."""
    upload_bytes: int
    requests_per_minute: int | None
    """Of one key, to one API process."""
    requests_at_once: int | None
    """Of one key, to one API process."""
    streams_at_once: int | None
    """Event streams and long polls of one key, in one API process."""
    key_days: int | None
    """Days after which a key ends at the latest."""
    prediction_seconds: float
    """How long a request waits for a prediction."""
    unfinished_upload_seconds: float
    """How long an unfinished upload is kept after its last byte."""
    stream_ticket_seconds: int
    job_epochs: int | None
    job_seconds: float | None


class InfoOut(ResponseModel):
    """What this installation is, and can do now."""

    version: str
    """Of trainkit."""
    api_version: Literal["v1"] = "v1"
    """First part of every address."""
    database: Literal["postgresql", "sqlite"]
    broker: Literal["redis", "rabbitmq", "memory"]
    devices: list[DeviceOut]
    """Of the workers that were seen lately; empty while there are none."""
    features: FeaturesOut
    limits: InstallationLimitsOut

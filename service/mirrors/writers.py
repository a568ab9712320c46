"""The writer of each kind of mirror."""

from __future__ import annotations

from service.job_links import job_url
from service.mirrors.copying import MirrorWriter
from service.mirrors.event_files import EventFileWriter
from service.mirrors.mlflow import MlflowWriter
from service.mirrors.rest_client import RestClient
from service.mirrors.stored_tokens import token_of
from service.mirrors.wandb import WandbWriter
from service.outbox.tables import Mirror
from service.secret_box import SecretBox
from service.settings import Settings
from service.webhooks.target_policy import TargetPolicy


def writer_of(mirror: Mirror, job_id: str, settings: Settings, policy: TargetPolicy, box: SecretBox) -> MirrorWriter:
    """Return what writes to the mirror. Raises SecretKeyError when its token cannot be decrypted."""
    if mirror.kind == "tensorboard":
        return EventFileWriter(settings.mirror_folder, mirror.project_id)
    if mirror.kind == "wandb":
        return WandbWriter(settings.mirror_folder, mirror.project_id, mirror.id, job_url(settings, job_id))
    client = RestClient(policy, mirror.url or "", mirror.username, token_of(box, mirror))
    return MlflowWriter(client, mirror.experiment or "trainkit", job_url(settings, job_id))

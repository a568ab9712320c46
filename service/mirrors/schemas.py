"""Wire format of mirrors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from service.outbox.tables import Mirror, MirroredJob
from service.request_model import RequestModel
from service.response_model import ResponseModel
from service.timestamps import Timestamp

MirrorKind = Literal["mlflow", "tensorboard", "wandb"]
MirroredJobState = Literal["pending", "complete", "failed"]
PLAIN = r"^[^\x00-\x1f\x7f]*$"
SECRET = r"^[\x21-\x7e]*$"
MAX_BACKFILL = 1000

Url = Annotated[str, Field(max_length=2000)]
Experiment = Annotated[str, Field(min_length=1, max_length=500, pattern=PLAIN)]
Description = Annotated[str, Field(max_length=500, pattern=PLAIN)]
Username = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f:]*$")]
Token = Annotated[str, Field(min_length=1, max_length=2000, pattern=SECRET)]


class MirrorIn(RequestModel):
    """A new mirror."""

    kind: MirrorKind
    """`mlflow`: a tracking server; in the folder that the operator has set, `tensorboard`: event files; `wandb`:
    offline runs of Weights & Biases, for `wandb sync`."""
    url: Url | None = None
    """Of the tracking server, https://...; only with `mlflow`."""
    experiment: Experiment | None = None
    """Experiment of the server; left out, one with the project's name. Created where it is missing."""
    username: Username | None = None
    """With it `token` is the password, without it a bearer token."""
    token: Token | None = None
    """Stored encrypted and never shown."""
    artifacts: bool = True
    """Whether files and the model of a job are copied once it has ended; only with `mlflow`."""
    description: Description = ""


class MirrorPatch(RequestModel):
    """Fields to update; the others stay. What waits is tried at once."""

    url: Url = ""
    experiment: Experiment = "-"
    """Of jobs that have no run yet."""
    username: Username | None = None
    token: Token | None = None
    """null removes it."""
    artifacts: bool = True
    description: Description = ""
    active: bool = True
    """false: nothing is copied, and jobs that start are not enqueued."""


class BackfillIn(RequestModel):
    """Which jobs to copy from their beginning."""

    jobs: list[Annotated[str, Field(max_length=40)]] | None = Field(None, max_length=MAX_BACKFILL)
    """These, whatever their copy's state; left out, all of the project that were never copied."""


class BackfillOut(ResponseModel):
    """What was enqueued."""

    enqueued: int
    """Jobs that are copied now."""
    has_more: bool
    """Whether there are more: repeat the request."""


class MirroredJobCounts(ResponseModel):
    """How many jobs of a mirror are in each state."""

    pending: int
    complete: int
    failed: int


class MirrorOut(ResponseModel):
    """A mirror without its token."""

    id: str
    kind: MirrorKind
    url: str | None
    experiment: str | None
    username: str | None
    has_token: bool
    artifacts: bool
    description: str
    active: bool
    jobs: MirroredJobCounts
    created_at: Timestamp
    updated_at: Timestamp


class MirroredJobOut(ResponseModel):
    """How far a job's copy has come."""

    job: str
    state: MirroredJobState
    """`pending` until the job's end has arrived, then `complete`; `failed`: nothing more is tried."""
    external_id: str | None
    """Id of the MLflow run, or name of the file."""
    metric_seq: int
    """Rows of the metric log up to this `seq` have arrived."""
    files: list[str]
    """Files that have arrived."""
    failures: int
    """Failed attempts in a row."""
    error: str | None
    """Of the last attempt."""
    note: str | None
    """What the mirror does not take, and what to do."""
    next_attempt_at: Timestamp | None
    last_attempt_at: Timestamp | None
    last_success_at: Timestamp | None
    created_at: Timestamp


def mirror_out(row: Mirror, counts: Mapping[tuple[str, str], int]) -> MirrorOut:
    """Map a row to the wire format."""
    return MirrorOut.model_validate(
        {
            "id": row.id,
            "kind": row.kind,
            "url": row.url,
            "experiment": row.experiment,
            "username": row.username,
            "has_token": row.token is not None,
            "artifacts": row.artifacts,
            "description": row.description,
            "active": row.active,
            "jobs": {state: counts.get((row.id, state), 0) for state in ("pending", "complete", "failed")},
            "created_at": row.created_at,
            "updated_at": row.updated_at,
        }
    )


def mirrored_job_out(row: MirroredJob) -> MirroredJobOut:
    """Map a row to the wire format."""
    return MirroredJobOut.model_validate(
        {
            "job": row.job_id,
            "state": row.state,
            "external_id": row.external_id,
            "metric_seq": row.metric_seq,
            "files": row.position.get("files", []),
            "failures": row.failures,
            "error": row.error,
            "note": row.position.get("note"),
            "next_attempt_at": row.next_attempt_at,
            "last_attempt_at": row.last_attempt_at,
            "last_success_at": row.last_success_at,
            "created_at": row.created_at,
        }
    )

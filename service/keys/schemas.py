"""Wire format of API keys."""

from __future__ import annotations

from pydantic import ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from service.keys.service import expiry
from service.keys.tables import ApiKey
from service.request_model import RequestModel
from service.response_model import ResponseModel
from service.roles import ProjectRole
from service.timestamps import RequestedTime, Timestamp

MAX_LIFETIME_SECONDS = 100 * 366 * 86400
MAX_OVERLAP_SECONDS = 30 * 86400


class KeyBudgetIn(RequestModel):
    """How much a key may train over its lifetime. One of the two at least."""

    max_jobs: int | None = Field(None, ge=0, le=1_000_000)
    """How many jobs it may create: forks, retries, investigations and the jobs of experiments count."""
    max_compute_seconds: float | None = Field(None, ge=0, le=1e9)
    """How many seconds these jobs may take, from the claim of each by a worker to its end. The time limit of each is cut
    to what is left."""

    @model_validator(mode="after")
    def check_bounds_something(self) -> KeyBudgetIn:
        """Refuse a budget without a bound."""
        if self.max_jobs is None and self.max_compute_seconds is None:
            raise PydanticCustomError(
                "no_bound", "a budget has max_jobs, max_compute_seconds or both: send one of them"
            )
        return self


class KeyIn(RequestModel):
    """A key to create."""

    name: str = Field(min_length=1, max_length=200)
    role: ProjectRole
    """At most the role of who creates it."""
    description: str = Field("", max_length=1000)
    """What it is for."""
    user: str | None = Field(None, min_length=1, max_length=40)
    """Id of the service account whose key it is; left out: yours, or nobody's if you come with a key of nobody."""
    expires_at: RequestedTime | None = None
    """When it ends; left out: never, or after the installation's maximum age."""
    expires_in: int | None = Field(None, ge=1, le=MAX_LIFETIME_SECONDS)
    """The same in seconds from now; only one of the two."""

    budget: KeyBudgetIn | None = None
    """Left out: no bound but those of the project. Keys of admins have none, for they can create others."""

    @model_validator(mode="after")
    def check_one_expiry(self) -> KeyIn:
        """Refuse two ends."""
        if self.expires_at is not None and self.expires_in is not None:
            raise PydanticCustomError("two_expiries", "expires_at and expires_in exclude each other: send one of them")
        return self


class RotationIn(RequestModel):
    """How to rotate a key."""

    overlap_seconds: int = Field(86400, ge=0, le=MAX_OVERLAP_SECONDS)
    """How long the old key still works."""


class KeyBudgetOut(ResponseModel):
    """What a key may train over its lifetime, and what it has used of that."""

    model_config = ConfigDict(from_attributes=True)
    max_jobs: int | None
    """Null: any number."""
    used_jobs: int
    """Jobs that it has created; deleting one gives nothing back."""
    max_compute_seconds: float | None
    """Null: any time."""
    used_compute_seconds: float
    """Of attempts that have ended."""
    reserved_compute_seconds: float
    """What the time limits of its jobs that have not ended may still take."""


class KeyOut(ResponseModel):
    """A key without its secret."""

    model_config = ConfigDict(from_attributes=True, use_attribute_docstrings=True)
    id: str
    name: str
    description: str
    role: ProjectRole | None
    """Its role in the project; null for a key of the operator alone."""
    operator: bool
    """Whether it is also the operator's."""
    user: str | None = Field(validation_alias="user_id")
    """Whose it is: it may never do more than that user, and ends with the user. Null: nobody's."""
    created_at: Timestamp
    expires_at: Timestamp | None
    """When it ends, with regard to the installation's maximum age."""
    revoked_at: Timestamp | None
    last_used_at: Timestamp | None
    """To about a minute."""
    last_used_from: str | None
    """Address of the client that used it last."""
    budget: KeyBudgetOut | None
    """Null: no bound but those of the project."""


class CreatedKey(KeyOut):
    """A new key: the one time that its secret is shown."""

    key: str
    """What to send as `Authorization: Bearer`."""


def key_out(row: ApiKey, max_days: int) -> KeyOut:
    """A row as clients read it."""
    return KeyOut.model_validate(row).model_copy(update={"expires_at": expiry(row, max_days)})


def created_key(row: ApiKey, presented: str, max_days: int) -> CreatedKey:
    """A new row with its secret."""
    return CreatedKey.model_construct(**dict(key_out(row, max_days)), key=presented)

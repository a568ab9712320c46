"""Wire format of the audit log."""

from __future__ import annotations

from typing import Any, Literal

from service.audit.service import exported
from service.audit.tables import AuditEntry
from service.response_model import ResponseModel
from service.timestamps import Timestamp

Outcome = Literal["succeeded", "denied"]


class AuditActorOut(ResponseModel):
    """Who acted."""

    kind: Literal["key", "user", "service", "cli", "housekeeping", "anonymous", "several"]
    """`cli`: the operator's command line, with the user of its machine; `housekeeping`: the service by itself; `service`: the
    service in somebody's name; `anonymous`: without a valid key; `several`: refused, and too many to be counted apart."""
    id: str | None
    role: str | None
    """In the project."""
    operator: bool
    project: str | None
    """The project of the key."""


class AuditResourceOut(ResponseModel):
    """What was changed, or asked for in vain."""

    kind: str
    id: str


class AuditClientOut(ResponseModel):
    """Where the request came from."""

    address: str | None
    """IPv4 address, or the /64 network of an IPv6 address."""
    user_agent: str | None


class AuditEntryOut(ResponseModel):
    """One write, or one refused access, sealed into the chain."""

    seq: int
    """Place in the chain, from 1 on and without gaps. Entries of other projects have their places too."""
    created_at: Timestamp
    actor: AuditActorOut
    operation: str | None
    """The operationId; null where no route was reached."""
    outcome: Outcome
    status: int | None
    """Of the response; null without a request."""
    code: str | None
    """The problem's, when access was denied; `other_project`: it was answered as not found."""
    reason: str | None = None
    """Why access was denied, in words; of several in one entry, the first."""
    count: int
    """How often: the same refusal within a minute is counted in one entry."""
    resource: AuditResourceOut | None
    project: str | None
    """Whose admins see the entry; null: it belongs to the platform."""
    before: dict[str, Any] | None
    """The changed fields as they were; null when the resource is new. Of a long value: its SHA-256."""
    after: dict[str, Any] | None
    """The changed fields as they are; null when the resource is deleted."""
    client: AuditClientOut | None
    request_id: str | None
    previous_hash: str
    """Hash of the entry before in the chain."""
    hash: str
    """SHA-256 of this entry's canonical JSON, without this field."""


def entry_out(row: AuditEntry) -> AuditEntryOut:
    """Map a row to the wire format."""
    return AuditEntryOut.model_validate(exported(row))

"""Who acts, and from where: known for as long as a request or a piece of work lasts, in all its threads."""

from __future__ import annotations

import getpass
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Protocol

from trainkit.version import __version__

Facts = dict[str, Any]
"""Fields of an entry that do not depend on what was changed."""


class Trail(Protocol):
    """Where entries of the current work come from."""

    recorded: int
    """Entries that transactions of this work have committed, or are about to."""

    def facts(self) -> Facts:
        """Return actor, operation, client, request id and project."""

    def resource(self) -> dict[str, str] | None:
        """Return what the work as a whole is about: kind and id."""


ANONYMOUS: dict[str, Any] = {"kind": "anonymous", "id": None, "role": None, "operator": False, "project": None}
TRAIL: ContextVar[Trail | None] = ContextVar("audit_trail", default=None)


@dataclass(slots=True)
class WorkTrail:
    """Work without a request: a command, or a task of housekeeping."""

    kind: str
    actor_id: str
    operation: str
    user_agent: str | None = None
    recorded: int = field(default=0)

    def facts(self) -> Facts:
        client = None if self.user_agent is None else {"address": None, "user_agent": self.user_agent}
        actor = {**ANONYMOUS, "kind": self.kind, "id": self.actor_id}
        return {"actor": actor, "operation": self.operation, "client": client, "request_id": None, "project": None}

    def resource(self) -> dict[str, str] | None:
        return None


@dataclass(slots=True)
class PersonTrail:
    """A sign-in within a request: what it writes is the doing of the person, who is known only while it is written.

    Its entries are not the request's: a token that brings new claims writes them beside whatever the request is for.
    """

    request: Trail
    user_id: str | None = None
    recorded: int = field(default=0)

    def facts(self) -> Facts:
        actor = {**ANONYMOUS, "kind": "user", "id": self.user_id} if self.user_id else ANONYMOUS
        return {**self.request.facts(), "actor": actor, "project": None}

    def resource(self) -> dict[str, str] | None:
        return {"kind": "user", "id": self.user_id} if self.user_id else None


@contextmanager
def acting(trail: Trail | None) -> Iterator[None]:
    """Record what the transactions inside change, as that trail's; None: record nothing."""
    token = TRAIL.set(trail)
    try:
        yield
    finally:
        TRAIL.reset(token)


@contextmanager
def signing_in(user_id: str | None = None) -> Iterator[PersonTrail | None]:
    """Record what the transactions inside change as the person's who signs in; None outside of a request."""
    request = TRAIL.get()
    if request is None:
        yield None
        return
    trail = PersonTrail(request, user_id)
    with acting(trail):
        yield trail


def command(operation: str) -> WorkTrail:
    """Return the trail of a command line: the actor is the user of the operating system."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a user id without a name, as in many containers
        user = "unknown"
    return WorkTrail("cli", user[:100], operation, f"trainkit/{__version__} on {socket.gethostname()[:100]}")


def housekeeping(operation: str) -> WorkTrail:
    """Return the trail of a task that the service runs by itself."""
    return WorkTrail("housekeeping", "housekeeping", operation)

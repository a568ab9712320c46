"""API keys: `tk_<8 id>_<secret>`. The secret is random and long, so a plain SHA-256 of it is enough to keep."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
from dataclasses import dataclass
from typing import Literal

from sqlalchemy.orm import Session

from service.database import ALPHABET, db_time, new_id
from service.errors import not_found
from service.keys import repository
from service.keys.tables import ApiKey, Project

ProjectScope = Literal["read", "write", "admin"]
Scope = Literal["read", "write", "admin", "operator"]
PROJECT_SCOPES: tuple[ProjectScope, ...] = ("read", "write", "admin")
SCOPES: tuple[Scope, ...] = (*PROJECT_SCOPES, "operator")
"""`operator` sees what belongs to the platform and not to a project. Only the command line grants it, to whoever may read
the database; no scope includes it, and it includes no other."""
FORM = re.compile(r"^tk_([0-9a-z]{8})_([0-9A-Za-z]{32,64})$")


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks: a key of a project, and what it may do."""

    key_id: str
    project_id: str
    scopes: frozenset[str]

    @property
    def actor(self) -> str:
        """How events name the key."""
        return f"key:{self.key_id}"


def create_key(session: Session, project: str, name: str, scopes: tuple[Scope, ...] = PROJECT_SCOPES) -> str:
    """Make a key, and its project when it is new; returns the key, which is never shown again."""
    now = db_time(session)
    owner = repository.project_named(session, project)
    if owner is None:
        owner = Project(id=new_id("prj"), name=project, created_at=now)
        repository.add(session, owner)
    key_id, secret = _random(8), _random(40)
    repository.add(
        session,
        ApiKey(
            id=key_id,
            project_id=owner.id,
            name=name,
            scopes=list(scopes),
            secret_hash=_hash(secret),
            created_at=now,
        ),
    )
    return f"tk_{key_id}_{secret}"


class ExpiredKeyError(Exception):
    """The key is right, but its time is over. Only who has the whole key learns it."""


def authenticate(session: Session, presented: str) -> Principal | None:
    """The key's principal; None for anything wrong or revoked, in the same time. Raises ExpiredKeyError."""
    match = FORM.fullmatch(presented)
    key_id, secret = match.groups() if match else ("-" * 8, "-")
    key = repository.key(session, key_id)
    right = hmac.compare_digest(_hash(secret), key.secret_hash if key else _hash("no such key"))
    if key is None or not right or key.revoked_at is not None:
        return None
    now = db_time(session)
    if key.expires_at is not None and key.expires_at <= now:
        raise ExpiredKeyError
    return Principal(key.id, key.project_id, frozenset(key.scopes))


def touch(session: Session, key_id: str) -> None:
    """Write that the key has just been used."""
    repository.set_last_used(session, key_id)


def revoke(session: Session, who: Principal, key_id: str) -> None:
    """Revoke a key of the project. Raises a 404 problem."""
    key = repository.key(session, key_id)
    if key is None or key.project_id != who.project_id:
        raise not_found("key", key_id)
    key.revoked_at = db_time(session)


def _random(length: int) -> str:
    return "".join(ALPHABET[byte & 31] for byte in os.urandom(length))


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()

"""API keys: `tk_<8 id>_<secret>`. The secret is random and long, so a plain SHA-256 of it is enough to keep."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement
from sqlalchemy.orm import Session

from service.database import ALPHABET, db_time, new_id
from service.errors import HttpProblem, Quota, not_found
from service.keys import budget, repository
from service.keys.tables import ApiKey
from service.principal import Identity, Principal, ProjectAccess
from service.projects import repository as projects
from service.projects.service import no_project
from service.projects.tables import Project
from service.roles import ProjectRole, includes, lower_of
from service.users import repository as users
from service.users.service import role_in

MAX_PERSONAL_KEYS = 50
"""Keys that work, of one person in one project, if the person is no admin there."""
FORM = re.compile(r"^tk_([0-9a-z]{8})_([0-9A-Za-z]{32,64})$")


def create_key(
    session: Session,
    project: str | None,
    name: str,
    role: ProjectRole | None = "admin",
    *,
    operator: bool = False,
    expires_at: datetime | None = None,
    max_jobs: int | None = None,
    max_compute_seconds: float | None = None,
) -> str:
    """Create a key, and its project when it is new; returns the key, which is never shown again.

    Without a project it has no role: it is the operator's.
    """
    owner = None
    if project is not None and (owner := projects.named(session, project)) is None:
        owner = Project(id=new_id("prj"), name=project, created_at=db_time(session))
        projects.add(session, owner)
    key = ApiKey(
        project_id=owner.id if owner else None,
        name=name,
        role=role if owner else None,
        operator=operator,
        expires_at=expires_at,
        max_jobs=max_jobs,
        max_compute_seconds=max_compute_seconds,
    )
    return issue(session, key)


def issue(session: Session, key: ApiKey) -> str:
    """Give a new row its id and its secret, and insert it; returns the key."""
    identifier, secret = _random(8), _random(40)
    key.id, key.secret_hash, key.created_at = identifier, _hash(secret), db_time(session)
    repository.add(session, key)
    return f"tk_{identifier}_{secret}"


class ExpiredKeyError(Exception):
    """The key is right, but its time is over. Only who has the whole key learns it."""


def authenticate(session: Session, presented: str, max_days: int = 0) -> Identity | None:
    """Whose key it is; None for anything wrong or revoked, in the same time, and for a user who has lost the role.

    Raises ExpiredKeyError for one that has ended or is older than `max_days`.
    """
    match = FORM.fullmatch(presented)
    key_id, secret = match.groups() if match else ("-" * 8, "-")
    key = repository.key(session, key_id)
    right = hmac.compare_digest(_hash(secret), key.secret_hash if key else _hash("no such key"))
    return identity_of(session, key, max_days) if key is not None and right else None


def identity_of(session: Session, key: ApiKey, max_days: int = 0) -> Identity | None:
    """What the key may do now; None for one that is revoked, or whose user has no role. Raises ExpiredKeyError."""
    if key.revoked_at is not None:
        return None
    end = expiry(key, max_days)
    if end is not None and end <= db_time(session):
        raise ExpiredKeyError
    project = projects.find(session, key.project_id) if key.project_id else None
    role = key.role
    if key.user_id is not None and project is not None:
        role = lower_of(role, role_in(session, project.id, key.user_id))
        if role is None:
            return None
    access = (
        () if project is None else (ProjectAccess(project.id, project.name, role, project.archived_at is not None),)
    )
    return Identity(f"key:{key.id}", access, key.operator, key.id, key.user_id)


def hash_of(presented: str) -> str:
    """Return what is stored of a key of the right form."""
    return _hash(presented.rpartition("_")[2])


def hashes_in_use(session: Session) -> frozenset[str]:
    """Return what is stored of every key that is not revoked."""
    return frozenset(repository.hashes_in_use(session))


def expiry(key: ApiKey, max_days: int) -> datetime | None:
    """Return when the key ends: at its own time, or when it is older than the installation allows (0: no limit)."""
    oldest = key.created_at + timedelta(days=max_days) if max_days else None
    return min((end for end in (key.expires_at, oldest) if end is not None), default=None)


def touch(session: Session, key_id: str, address: str | None) -> None:
    """Write that the key has just been used, and from where."""
    repository.set_last_used(session, key_id, address)


def create(session: Session, who: Principal, key: ApiKey, max_days: int, expires_in: int | None = None) -> str:
    """Create a key of the principal's project, which ends in `expires_in` seconds if that is given.

    Raises a problem for a role above the principal's, or an end that is past or beyond the installation's maximum.
    """
    if not who.project_id:
        raise no_project(who)
    _check_grants(who, key)
    if key.budget is not None and (why := budget.why_no_budget(key.role, operator=key.operator)) is not None:
        raise _bad_field("budget", "bad_budget", why, "Give it the role developer or viewer.")
    key.user_id = _owner(session, who, key)
    now, field = db_time(session), "expires_at" if expires_in is None else "expires_in"
    if expires_in is not None:
        key.expires_at = now + timedelta(seconds=expires_in)
    if key.expires_at is not None and key.expires_at <= now:
        raise _bad_field(field, "bad_expiry", "lies in the past", "Send a later one, or leave it out.")
    if key.expires_at is not None and max_days and key.expires_at > now + timedelta(days=max_days):
        hint = f"Keys end after {max_days} days at the latest (TRAINKIT_MAX_KEY_DAYS)."
        raise _bad_field(field, "bad_expiry", f"ends more than {max_days} days ahead", hint)
    key.project_id = who.project_id
    if who.is_person and not _manages(who):
        _check_count(session, who, now)
    return issue(session, key)


def find(session: Session, who: Principal, key_id: str) -> ApiKey:
    """The project's key; without a project one of the operator's. Raises a 404 problem, also for the key of somebody
    else where the principal does not manage the project."""
    key = repository.key(session, key_id)
    if key is None or key.project_id != (who.project_id or None):
        raise not_found("key", key_id)
    if not _manages(who) and key.user_id != who.user_id:
        raise not_found("key", key_id)
    return key


def visible(who: Principal) -> list[ColumnElement[bool]]:
    """The conditions of the keys that the principal sees: the project's for those who manage it, else their own."""
    conditions = [repository.owned_by(who.project_id or None)]
    return conditions if _manages(who) else [*conditions, repository.of_user(who.user_id or "")]


def _manages(who: Principal) -> bool:
    return who.operator or includes(who.role, "admin")


def rotate(session: Session, who: Principal, key_id: str, overlap_seconds: int, max_days: int) -> tuple[ApiKey, str]:
    """Create a key like that one, which ends after the overlap; returns (the new row, the new key).

    The new one lives as long as the old one was meant to, and has what is left of its budget; the old one has no more.
    Raises a 404 problem, a 409 problem for a key that has ended, a 403 problem for one that may do more than the
    principal, or that is another person's.
    """
    old = find(session, who, key_id)
    _check_grants(who, old)
    _check_owner(session, who, old)
    now = db_time(session)
    end = expiry(old, max_days)
    if old.revoked_at is not None or (end is not None and end <= now):
        raise HttpProblem(409, "key_ended", f"The key {key_id!r} is revoked or expired. Create a new one instead.")
    lifetime = None if old.expires_at is None else old.expires_at - old.created_at
    key = ApiKey(
        project_id=old.project_id,
        name=old.name,
        description=old.description,
        role=old.role,
        operator=old.operator,
        user_id=old.user_id,
        expires_at=None if lifetime is None else now + lifetime,
    )
    if old.budget is not None:
        budget.hand_over(session, old, key)
    presented = issue(session, key)
    last = now + timedelta(seconds=overlap_seconds)
    old.expires_at = last if end is None else min(last, end)
    session.flush()
    return key, presented


def revoke(session: Session, who: Principal, key_id: str) -> None:
    """Revoke a key of the project. Raises a 404 problem."""
    key = find(session, who, key_id)
    if key.revoked_at is None:
        key.revoked_at = db_time(session)


def _check_count(session: Session, who: Principal, now: datetime) -> None:
    """Raise a 409 problem for a person who has MAX_PERSONAL_KEYS: limits of a key would bound nobody otherwise.

    The user is locked until the transaction ends: two requests at once do not pass the limit together.
    """
    assert who.user_id is not None
    users.locked(session, who.user_id)
    used = repository.count_alive(session, who.project_id, who.user_id, now)
    if used >= MAX_PERSONAL_KEYS:
        detail = f"You have {used} keys in this project, and may have {MAX_PERSONAL_KEYS}. Revoke some first."
        quota = Quota("personal_keys", limit=MAX_PERSONAL_KEYS, used=used)
        raise HttpProblem(409, "too_many_keys", detail, quota=quota)


def _check_owner(session: Session, who: Principal, key: ApiKey) -> None:
    """Raise a 403 problem for the key of another person: what is done with the new one would be done in their name."""
    if key.user_id is None or key.user_id == who.user_id:
        return
    owner = users.get(session, key.user_id)
    if owner is not None and owner.kind == "person":
        detail = f"The key {key.id!r} is {owner.name}'s, who alone can rotate it. You can revoke it."
        raise HttpProblem(403, "forbidden", detail)


def _check_grants(who: Principal, key: ApiKey) -> None:
    """Raise a 403 problem where the key may do what the principal may not. An operator gives any role of a project."""
    if who.operator:
        return
    if key.operator or (key.role is not None and not includes(who.role, key.role)):
        role = "operator" if key.operator else key.role
        detail = f"Nobody gives more than he has: the key's role is {role}, yours is {who.role or 'none'}."
        raise HttpProblem(403, "forbidden", f"{detail} Ask the operator.")


def _owner(session: Session, who: Principal, key: ApiKey) -> str | None:
    """Return whose the key is: of the user that is named, else of who creates it. Raises a 422 problem.

    Keys of other persons cannot be created: what is done with one would be done in their name.
    """
    user_id = key.user_id or who.user_id
    if user_id is None:
        return None
    if not _manages(who) and user_id != who.user_id:
        hint = "Leave it out for a key of your own; an admin creates keys of service accounts."
        raise _bad_field("user", "bad_user", "is not you", hint)
    user, role = users.get(session, user_id), role_in(session, who.project_id, user_id)
    if user is None or role is None or (user.kind == "person" and user_id != who.user_id):
        hint = "Name a service account of this project, or leave it out."
        raise _bad_field("user", "bad_user", f"{user_id[:40]!r} is no service account of this project", hint)
    if key.role is not None and not includes(role, key.role):
        hint = "Choose that role or a lower one."
        raise _bad_field("role", "above_user", f"{key.role} is above the role {role} of {user.name}", hint)
    return user_id


def _bad_field(field: str, code: str, message: str, hint: str) -> HttpProblem:
    error = {"pointer": f"/{field}", "code": code, "message": message, "hint": hint}
    return HttpProblem(422, "invalid_request", f"{field}: {message}. {hint}", errors=[error])


def _random(length: int) -> str:
    return "".join(ALPHABET[byte & 31] for byte in os.urandom(length))


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()

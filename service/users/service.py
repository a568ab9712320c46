"""Users: persons whom the sign-in provider knows, service accounts of a project, and what both may do where."""

from __future__ import annotations

import hashlib
import logging
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, sessionmaker

from service.audit.changes import record as record_change
from service.audit.trail import signing_in
from service.database import db_time, new_id
from service.errors import HttpProblem, not_found
from service.principal import Identity, Principal, ProjectAccess
from service.projects.service import no_project
from service.roles import ProjectRole, highest_of, includes
from service.users import repository
from service.users.tables import BrowserSession, Membership, User

log = logging.getLogger(__name__)
SESSION = "session"
"""Kind of a browser session in the audit log."""


@dataclass(frozen=True, slots=True)
class GroupRoles:
    """What the groups of the sign-in provider give: group -> project name -> role, and the groups of operators."""

    projects: Mapping[str, Mapping[str, ProjectRole]] = field(default_factory=dict)
    operators: frozenset[str] = frozenset()

    @property
    def is_empty(self) -> bool:
        """Whether no group gives anything."""
        return not self.projects and not self.operators

    def of(self, groups: Iterable[str]) -> dict[str, ProjectRole]:
        """Return project name -> the highest role of these groups."""
        roles: dict[str, ProjectRole] = {}
        for group in groups:
            for project, role in self.projects.get(group, {}).items():
                roles[project] = highest_of(roles.get(project), role) or role
        return roles


@dataclass(frozen=True, slots=True)
class Claims:
    """What a verified token says about a person; None: it does not say. An empty `email` is one that is not verified."""

    issuer: str
    subject: str
    name: str | None
    email: str | None
    groups: frozenset[str] | None
    issued_at: datetime


def is_current(session: Session, claims: Claims) -> User | None:
    """Return the person, if what these claims say is known already; None where `record_claims` has to write it."""
    user = repository.by_subject(session, claims.issuer, claims.subject)
    return user if user is not None and user.claims_at is not None and user.claims_at >= claims.issued_at else None


def record_claims(session: Session, claims: Claims, group_roles: GroupRoles) -> User:
    """Create or update the person; roles by groups become those of the newest token, whichever order tokens come in.

    Roles that admins gave stay. Raises IntegrityError when another request creates the same person.
    """
    known = repository.by_subject(session, claims.issuer, claims.subject)
    now = db_time(session)
    if known is None:
        user = User(id=new_id("usr"), kind="person", issuer=claims.issuer, subject=claims.subject, created_at=now)
        user.name, user.operator = claims.name or claims.email or claims.subject, False
        repository.add(session, user)
    else:
        locked = repository.locked(session, known.id)
        assert locked is not None
        user = locked
    if user.claims_at is not None and user.claims_at >= claims.issued_at:
        return user
    user.claims_at, user.last_seen_at = claims.issued_at, now
    # tokens for APIs often tell the subject alone: what another one has told stays
    if claims.name is not None:
        user.name = claims.name
    if claims.email is not None:
        user.email = claims.email or None
    # not so with groups: many providers leave the claim out for who is in none
    groups = claims.groups or frozenset()
    user.operator = not groups.isdisjoint(group_roles.operators)
    roles = group_roles.of(groups)
    ids = repository.project_ids(session, list(roles))
    if unknown := roles.keys() - ids.keys():
        log.warning("TRAINKIT_OIDC_ROLES names projects that do not exist: %s", ", ".join(sorted(unknown)))
    repository.replace_group_roles(session, user.id, {ids[name]: roles[name] for name in ids}, now)
    return user


def record(sessions: sessionmaker[Session], claims: Claims, group_roles: GroupRoles) -> User:
    """The same in a transaction of its own; a second one when two requests create the same person at once."""
    try:
        return _record(sessions, claims, group_roles)
    except IntegrityError:
        return _record(sessions, claims, group_roles)


def _record(sessions: sessionmaker[Session], claims: Claims, group_roles: GroupRoles) -> User:
    with signing_in() as trail, sessions.begin() as session:
        user = record_claims(session, claims, group_roles)
        if trail is not None:
            trail.user_id = user.id
        return user


def touch(session: Session, user_id: str) -> None:
    """Write that the user was seen just now."""
    repository.set_last_seen(session, user_id)


def user_disabled(user: User) -> HttpProblem:
    """403: the provider knows the person, and this service does not want them."""
    detail = f"Your account ({user.id}) is disabled in this installation. Ask the operator."
    return HttpProblem(403, "user_disabled", detail)


def identity_of(session: Session, user: User) -> Identity:
    """What the user may do now."""
    projects: dict[str, ProjectAccess] = {}
    for membership, project in repository.memberships(session, user.id):
        known = projects.get(project.id)
        role = highest_of(known.role if known else None, membership.role)
        projects[project.id] = ProjectAccess(project.id, project.name, role, project.archived_at is not None)
    return Identity(f"user:{user.id}", tuple(projects.values()), user.operator, user_id=user.id)


def role_in(session: Session, project_id: str, user_id: str) -> ProjectRole | None:
    """Return the role of a user that is not disabled in the project; None for no role there."""
    user = repository.get(session, user_id)
    if user is None or user.disabled_at is not None:
        return None
    return highest_of(*repository.roles_in(session, project_id, user_id))


# browser sessions


def begin_session(session: Session, user: User, seconds: float) -> str:
    """Create a browser session; returns the token for its cookie."""
    token, now = secrets.token_urlsafe(32), db_time(session)
    end, digest = now + timedelta(seconds=seconds), hash_token(token)
    repository.add(session, BrowserSession(token_hash=digest, user_id=user.id, created_at=now, expires_at=end))
    record_change(session, SESSION, session_id(digest), None, None, {"user_id": user.id, "expires_at": end})
    return token


def session_user(session: Session, token: str) -> User | None:
    """Return the user of a browser session that has not ended."""
    row = repository.browser_session(session, hash_token(token))
    return row[0] if row is not None else None


def end_session(session: Session, token: str) -> None:
    """End a browser session. Idempotent."""
    digest = hash_token(token)
    user_id = repository.end_browser_session(session, digest)
    if user_id is not None:
        record_change(session, SESSION, session_id(digest), None, {"user_id": user_id}, None)


def session_hashes_in_use(session: Session) -> frozenset[str]:
    """Return what the database keeps of every browser session that has not ended."""
    return frozenset(repository.session_hashes(session))


def session_id(token_hash: str) -> str:
    """Return what the audit log calls a session: too little of the hash to be mistaken for it."""
    return token_hash[:16]


def hash_token(token: str) -> str:
    """Return what the database keeps of a session's token: it is random and long."""
    return hashlib.sha256(token.encode()).hexdigest()


# members


@dataclass(frozen=True, slots=True)
class Member:
    """A user of a project, with the role that an admin gave and the one of the user's groups."""

    user: User
    since: datetime
    given_role: ProjectRole | None = None
    group_role: ProjectRole | None = None

    @property
    def role(self) -> ProjectRole:
        """The higher one holds."""
        return highest_of(self.given_role, self.group_role) or "viewer"


def members(session: Session, who: Principal) -> list[Member]:
    """Return everybody with a role in the principal's project. Raises a 422 problem where none is chosen."""
    found: dict[str, Member] = {}
    for user, membership in repository.members(session, project_of(who)):
        known = found.get(user.id)
        given, group = (known.given_role, known.group_role) if known else (None, None)
        since = min(known.since, membership.created_at) if known else membership.created_at
        if membership.source == "member":
            given = membership.role
        else:
            group = membership.role
        found[user.id] = Member(user, since, given, group)
    return list(found.values())


def member(session: Session, who: Principal, user_id: str) -> Member:
    """Return one of them. Raises a 404 problem."""
    found = next((one for one in members(session, who) if one.user.id == user_id), None)
    if found is None:
        raise not_found("member", user_id)
    return found


def project_of(who: Principal) -> str:
    """Return the project that the principal is in. Raises a 422 problem for none."""
    if not who.project_id:
        raise no_project(who)
    return who.project_id


def add_member(
    session: Session, who: Principal, role: ProjectRole, *, user_id: str | None, email: str | None
) -> Member:
    """Give a person who has signed in a role in the project.

    Raises a 403 problem for a role above the principal's, a 404 problem for an unknown person, a 409 problem for one
    who has a role already, or an address that several have.
    """
    project_id = project_of(who)
    _check_grant(who, role)
    user = _person(session, user_id=user_id, email=email)
    if repository.membership(session, project_id, user.id, "member") is not None:
        detail = f"{user.name} is a member already. Change the role with PATCH /v1/members/{user.id}."
        raise HttpProblem(409, "already_member", detail)
    _give_role(session, project_id, user.id, role)
    return member(session, who, user.id)


def _person(session: Session, *, user_id: str | None, email: str | None) -> User:
    shown = user_id or email or ""
    if user_id is not None:
        user = repository.get(session, user_id)
        found = [user] if user is not None and user.kind == "person" else []
    else:
        found = list(repository.by_email(session, (email or "").lower()))
    if not found:
        detail = f"Nobody {shown[:320]!r} has signed in here. Ask the person to sign in once, then add them."
        raise HttpProblem(404, "not_found", detail)
    if len(found) > 1:
        detail = f"Several persons have the address {shown[:320]!r}. Send `user`, the id that GET /v1/me shows them."
        raise HttpProblem(409, "ambiguous_email", detail)
    return found[0]


def create_service_account(session: Session, who: Principal, name: str, role: ProjectRole) -> Member:
    """Create a user for a machine, with a role in the project alone. Its keys are created like others, with `user`."""
    project_id = project_of(who)
    _check_grant(who, role)
    user = User(id=new_id("usr"), kind="service", name=name, operator=False, created_at=db_time(session))
    repository.add(session, user)
    _give_role(session, project_id, user.id, role)
    return member(session, who, user.id)


def change_member(session: Session, who: Principal, user_id: str, role: ProjectRole) -> Member:
    """Change the role that was given. Raises a 404 problem, a 409 problem for the last admin."""
    project_id = project_of(who)
    _check_grant(who, role)
    repository.lock_project(session, project_id)
    before = member(session, who, user_id)
    if not includes(highest_of(role, before.group_role), "admin"):
        _check_other_admins(session, who, before)
    _give_role(session, project_id, user_id, role)
    return member(session, who, user_id)


def remove_member(session: Session, who: Principal, user_id: str) -> None:
    """Take back the role that was given; keys of the user stop working in the project.

    Raises a 404 problem, a 409 problem for the last admin and for a role that comes from a group.
    """
    project_id = project_of(who)
    repository.lock_project(session, project_id)
    before = member(session, who, user_id)
    if before.group_role is not None:
        detail = f"{before.user.name} is {before.group_role} by a group. Change the groups at the sign-in provider, or "
        raise HttpProblem(
            409, "role_by_group", f"{detail}ask the operator to change the mapping (TRAINKIT_OIDC_ROLES)."
        )
    _check_other_admins(session, who, before)
    repository.remove_memberships(session, project_id, user_id)


def _give_role(session: Session, project_id: str, user_id: str, role: ProjectRole) -> None:
    membership = repository.membership(session, project_id, user_id, "member")
    if membership is not None:
        membership.role = role
        session.flush()
        return
    now = db_time(session)
    repository.add(
        session, Membership(user_id=user_id, project_id=project_id, source="member", role=role, created_at=now)
    )


def _check_grant(who: Principal, role: ProjectRole) -> None:
    if not who.operator and not includes(who.role, role):
        detail = (
            f"Nobody gives more than they have: the role is {role}, yours is {who.role or 'none'}. Ask the operator."
        )
        raise HttpProblem(403, "forbidden", detail)


def _check_other_admins(session: Session, who: Principal, without: Member) -> None:
    """Raise a 409 problem where the project would have no admin left.

    The operator, who can add one, may go on; so may a key that belongs to nobody, which is an admin that stays.
    """
    if who.operator or who.user_id is None or without.role != "admin":
        return
    others = (one for one in members(session, who) if one.user.id != without.user.id and one.user.disabled_at is None)
    if not any(one.role == "admin" for one in others):
        detail = f"{without.user.name} is the last admin of the project. Make another member an admin first."
        raise HttpProblem(409, "last_admin", detail)


# all users, for the operator


def set_disabled(session: Session, user_id: str, disabled: bool) -> User:
    """Disable a user, whose sessions and keys then end, or take that back. Raises a 404 problem."""
    user = repository.locked(session, user_id)
    if user is None:
        raise not_found("user", user_id)
    if disabled and user.disabled_at is None:
        user.disabled_at = db_time(session)
        repository.end_browser_sessions(session, user_id)
    elif not disabled:
        user.disabled_at = None
    session.flush()
    return user

"""All SQL of users, their memberships and their browser sessions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from sqlalchemy import Row, delete, select, update
from sqlalchemy.orm import Session

from service.database import db_now, rows_changed
from service.projects.tables import Project
from service.roles import ProjectRole
from service.users.tables import BrowserSession, Membership, MembershipSource, User


def get(session: Session, user_id: str) -> User | None:
    """Return the user of that id."""
    return session.get(User, user_id)


def locked(session: Session, user_id: str) -> User | None:
    """The same, locked until the transaction ends."""
    one = select(User).where(User.id == user_id).with_for_update()
    return session.scalars(one.execution_options(populate_existing=True)).one_or_none()


def by_subject(session: Session, issuer: str, subject: str) -> User | None:
    """Return the person whom the provider calls by that subject."""
    return session.scalars(select(User).where(User.issuer == issuer, User.subject == subject)).one_or_none()


def by_email(session: Session, email: str) -> Sequence[User]:
    """Return the persons with that address."""
    return session.scalars(select(User).where(User.email == email, User.kind == "person").limit(2)).all()


def add(session: Session, row: User | Membership | BrowserSession) -> None:
    """Insert a user, a membership or a browser session."""
    session.add(row)
    session.flush()


def set_last_seen(session: Session, user_id: str) -> None:
    """Write that the user was seen just now."""
    session.execute(update(User).where(User.id == user_id).values(last_seen_at=db_now()))


def memberships(session: Session, user_id: str) -> Sequence[Row[Membership, Project]]:
    """Return (membership, project) of a user, of every source."""
    statement = select(Membership, Project).join(Project, Project.id == Membership.project_id)
    return session.execute(statement.where(Membership.user_id == user_id).order_by(Project.name)).all()


def roles_in(session: Session, project_id: str, user_id: str) -> Sequence[ProjectRole]:
    """Return the user's roles in the project, of every source."""
    statement = select(Membership.role).where(Membership.user_id == user_id, Membership.project_id == project_id)
    return session.scalars(statement).all()


def members(session: Session, project_id: str) -> Sequence[Row[User, Membership]]:
    """Return (user, membership) of a project, of every source, in the order in which they came."""
    statement = select(User, Membership).join(Membership, Membership.user_id == User.id)
    ordered = statement.where(Membership.project_id == project_id).order_by(User.created_at, User.id)
    return session.execute(ordered).all()


def membership(session: Session, project_id: str, user_id: str, source: MembershipSource) -> Membership | None:
    """Return the user's membership of that source."""
    return session.get(Membership, (user_id, project_id, source))


def remove_memberships(session: Session, project_id: str, user_id: str) -> int:
    """Delete the user's memberships in the project; returns how many there were."""
    found = select(Membership).where(Membership.user_id == user_id, Membership.project_id == project_id)
    rows = session.scalars(found).all()
    for row in rows:  # one by one, so that the audit log shows what was there
        session.delete(row)
    session.flush()
    return len(rows)


def replace_group_roles(session: Session, user_id: str, roles: Mapping[str, ProjectRole], now: datetime) -> None:
    """Let the user have these roles by his groups, and no others: project id -> role."""
    held = select(Membership).where(Membership.user_id == user_id, Membership.source == "group")
    before = {row.project_id: row for row in session.scalars(held)}
    for project_id in before.keys() - roles.keys():
        session.delete(before[project_id])
    for project_id, role in roles.items():
        if (row := before.get(project_id)) is None:
            session.add(Membership(user_id=user_id, project_id=project_id, source="group", role=role, created_at=now))
        elif row.role != role:
            row.role = role
    session.flush()


def project_ids(session: Session, names: Sequence[str]) -> dict[str, str]:
    """Return name -> id of the projects with these names."""
    rows = session.execute(select(Project.name, Project.id).where(Project.name.in_(names)))
    return {row.name: row.id for row in rows}


def lock_project(session: Session, project_id: str) -> None:
    """Lock the project's row, so that its members change one after the other."""
    session.execute(select(Project.id).where(Project.id == project_id).with_for_update())


def browser_session(session: Session, token_hash: str) -> Row[User, datetime] | None:
    """Return (user, end) of a browser session that has not ended."""
    statement = select(User, BrowserSession.expires_at).join(BrowserSession, BrowserSession.user_id == User.id)
    alive = statement.where(BrowserSession.token_hash == token_hash, BrowserSession.expires_at > db_now())
    return session.execute(alive).one_or_none()


def session_hashes(session: Session) -> Sequence[str]:
    """Return the hash of every browser session that has not ended."""
    return session.scalars(select(BrowserSession.token_hash).where(BrowserSession.expires_at > db_now())).all()


def end_browser_session(session: Session, token_hash: str) -> str | None:
    """Delete a browser session; returns whose it was, None where there is none."""
    ended = delete(BrowserSession).where(BrowserSession.token_hash == token_hash).returning(BrowserSession.user_id)
    return session.scalar(ended)


def end_browser_sessions(session: Session, user_id: str) -> None:
    """Delete all browser sessions of a user."""
    session.execute(delete(BrowserSession).where(BrowserSession.user_id == user_id))


def delete_ended_sessions(session: Session, limit: int) -> int:
    """Delete up to `limit` browser sessions that have ended; returns how many."""
    ended = select(BrowserSession.token_hash).where(BrowserSession.expires_at <= db_now()).limit(limit)
    return rows_changed(session.execute(delete(BrowserSession).where(BrowserSession.token_hash.in_(ended))))

"""All SQL of names, versions and aliases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, Protocol, TypeVar

from sqlalchemy import ColumnElement, and_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from service.audit.changes import record
from service.database import db_now, db_time, new_id
from service.registry.tables import AliasAssignment, RegisteredName

NO_SYNC = {"synchronize_session": False}


class Versioned(Protocol):
    """A row of a table of things with names and versions."""

    id: Any
    name: Any
    version: Any


T = TypeVar("T", bound=Versioned)


@dataclass(frozen=True, slots=True)
class Resource(Generic[T]):
    """A kind of things that have names and versions."""

    kind: Literal["dataset", "model"]
    table: type[T]
    prefix: str
    """Beginning of their ids."""
    usable: ColumnElement[bool]
    """Which versions a name alone may mean."""


def by_id(session: Session, project_id: str, resource: Resource[T], identifier: str) -> T | None:
    """Return the project's dataset or model of that id."""
    table: Any = resource.table
    statement = select(table).where(table.id == identifier, table.project_id == project_id)
    found: T | None = session.scalars(statement).one_or_none()
    return found


def by_version(session: Session, project_id: str, resource: Resource[T], name: str, version: int) -> T | None:
    """Return that version of the name."""
    table: Any = resource.table
    statement = select(table).where(table.project_id == project_id, table.name == name, table.version == version)
    found: T | None = session.scalars(statement).one_or_none()
    return found


def newest(session: Session, project_id: str, resource: Resource[T], name: str) -> T | None:
    """Return the newest version of the name that is usable, or will be once it is checked."""
    table: Any = resource.table
    statement = select(table).where(
        table.project_id == project_id, table.name == name, table.version.is_not(None), resource.usable
    )
    found: T | None = session.scalars(statement.order_by(table.version.desc()).limit(1)).first()
    return found


def by_alias(session: Session, project_id: str, resource: Resource[T], name: str, alias: str) -> T | None:
    """Return what the alias of the name means now, in one statement: it may move meanwhile."""
    table: Any = resource.table
    statement = select(table).join(AliasAssignment, AliasAssignment.target_id == table.id)
    statement = statement.where(table.project_id == project_id, *_in_force(project_id, resource, name, alias))
    found: T | None = session.scalars(statement).one_or_none()
    return found


def _in_force(project_id: str, resource: Resource[Any], name: str, alias: str) -> tuple[ColumnElement[bool], ...]:
    return (
        AliasAssignment.project_id == project_id,
        AliasAssignment.resource == resource.kind,
        AliasAssignment.name == name,
        AliasAssignment.alias == alias,
        AliasAssignment.ended_at.is_(None),
    )


def alias_in_force(
    session: Session, project_id: str, resource: Resource[Any], name: str, alias: str
) -> AliasAssignment | None:
    """Return the assignment of the alias of the name."""
    statement = select(AliasAssignment).where(*_in_force(project_id, resource, name, alias))
    return session.scalars(statement.execution_options(populate_existing=True)).one_or_none()


def aliases_of_name(session: Session, project_id: str, resource: Resource[Any], name: str) -> Sequence[AliasAssignment]:
    """Return the aliases of the name that are in force, in their order."""
    statement = select(AliasAssignment).where(
        AliasAssignment.project_id == project_id,
        AliasAssignment.resource == resource.kind,
        AliasAssignment.name == name,
        AliasAssignment.ended_at.is_(None),
    )
    return session.scalars(statement.order_by(AliasAssignment.alias)).all()


def aliases_of(session: Session, target_ids: Sequence[str]) -> dict[str, list[str]]:
    """Return the aliases in force of each of these datasets or models, in their order."""
    found: dict[str, list[str]] = {identifier: [] for identifier in target_ids}
    statement = select(AliasAssignment.target_id, AliasAssignment.alias).where(
        AliasAssignment.target_id.in_(target_ids), AliasAssignment.ended_at.is_(None)
    )
    for target_id, alias in session.execute(statement.order_by(AliasAssignment.alias)):
        found[target_id].append(alias)
    return found


def in_alias_history(project_id: str, resource: Resource[Any], name: str) -> ColumnElement[bool]:
    """The condition of what the aliases of the name mean and have meant."""
    return and_(
        AliasAssignment.project_id == project_id,
        AliasAssignment.resource == resource.kind,
        AliasAssignment.name == name,
    )


def end_alias(session: Session, assignment: AliasAssignment, actor: str) -> None:
    """Let the alias mean nothing from now on."""
    statement = update(AliasAssignment).where(AliasAssignment.id == assignment.id)
    session.execute(statement.values(ended_at=db_now(), ended_by=actor).execution_options(**NO_SYNC))
    before = {name: getattr(assignment, name) for name in ("resource", "name", "alias", "target_id", "version")}
    record(session, "alias", assignment.id, assignment.project_id, before, None)


def add_alias(
    session: Session, project_id: str, resource: Resource[T], target: T, alias: str, actor: str
) -> AliasAssignment:
    """Let the alias of the target's name mean the target from now on."""
    added = AliasAssignment(
        id=new_id("als"),
        project_id=project_id,
        resource=resource.kind,
        name=target.name,
        alias=alias,
        target_id=target.id,
        version=target.version,
        created_at=db_time(session),
        created_by=actor,
    )
    session.add(added)
    session.flush()
    return added


def lock_name(session: Session, project_id: str, resource: Resource[Any], name: str) -> None:
    """Lock the name, which need not be there yet, until the transaction ends."""
    _count(session, project_id, resource, name, 0)


def next_version(session: Session, project_id: str, resource: Resource[Any], name: str) -> int:
    """Return the next version of the name, which is locked until the transaction ends; a rollback takes it back."""
    return _count(session, project_id, resource, name, 1)


def _count(session: Session, project_id: str, resource: Resource[Any], name: str, by: int) -> int:
    insert = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    first = insert(RegisteredName).values(project_id=project_id, resource=resource.kind, name=name, last_version=by)
    counted = first.on_conflict_do_update(
        index_elements=[RegisteredName.project_id, RegisteredName.resource, RegisteredName.name],
        set_={"last_version": RegisteredName.last_version + by},
    )
    version: int = session.execute(counted.returning(RegisteredName.last_version)).scalar_one()
    return version


def last_version(session: Session, project_id: str, resource: Resource[Any], name: str) -> int | None:
    """Return the last version that the name was given; None for an unknown name."""
    statement = select(RegisteredName.last_version).where(
        RegisteredName.project_id == project_id,
        RegisteredName.resource == resource.kind,
        RegisteredName.name == name,
    )
    return session.scalar(statement)


def names(session: Session, project_id: str, resource: Resource[Any], limit: int, beginning: str = "") -> Sequence[str]:
    """Return up to `limit` of the project's names from `beginning` on, in their order."""
    statement = select(RegisteredName.name).where(
        RegisteredName.project_id == project_id, RegisteredName.resource == resource.kind
    )
    if beginning:
        statement = statement.where(RegisteredName.name >= beginning)
    return session.scalars(statement.order_by(RegisteredName.name).limit(limit)).all()

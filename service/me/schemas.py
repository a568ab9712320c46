"""Wire format of who the caller is."""

from __future__ import annotations

from pydantic import ConfigDict

from service.keys.schemas import KeyBudgetOut
from service.principal import Identity
from service.response_model import ResponseModel
from service.roles import ProjectRole
from service.timestamps import Timestamp
from service.users.tables import UserKind


class MeUser(ResponseModel):
    """The user behind a request."""

    model_config = ConfigDict(from_attributes=True)
    id: str
    kind: UserKind
    name: str
    email: str | None


class MeKey(ResponseModel):
    """The key of a request."""

    id: str
    name: str
    expires_at: Timestamp | None
    budget: KeyBudgetOut | None
    """What it may train over its lifetime; null: no bound but those of the project."""


class MeProject(ResponseModel):
    """A project that the caller may enter."""

    id: str
    name: str
    role: ProjectRole | None
    archived: bool


class MeOut(ResponseModel):
    """Who the caller is."""

    user: MeUser | None
    """Null for a key that belongs to no user."""
    key: MeKey | None
    project: MeProject | None
    """The project of this request; null where none is chosen."""
    role: ProjectRole | None
    """The role in it."""
    operator: bool
    projects: list[MeProject]
    """Where the caller has a role; choose one with the header `Trainkit-Project`."""


def me_projects(identity: Identity) -> list[MeProject]:
    """The projects of an identity as clients read them."""
    return [MeProject(id=one.id, name=one.name, role=one.role, archived=one.is_archived) for one in identity.projects]

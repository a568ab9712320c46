"""Wire format of users and of a project's members."""

from __future__ import annotations

from pydantic import ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from service.request_model import RequestModel
from service.response_model import ResponseModel
from service.roles import ProjectRole
from service.timestamps import Timestamp
from service.users.service import Member
from service.users.tables import UserKind


class MemberIn(RequestModel):
    """A person to add to the project, by id or by address."""

    user: str | None = Field(None, min_length=1, max_length=40)
    """The id that `GET /v1/me` shows the person."""
    email: str | None = Field(None, min_length=3, max_length=320)
    """The address that the sign-in provider tells."""
    role: ProjectRole

    @model_validator(mode="after")
    def check_one_name(self) -> MemberIn:
        """Ask for exactly one of the two."""
        if (self.user is None) == (self.email is None):
            raise PydanticCustomError("one_of_two", "should have either user or email")
        return self


class ServiceAccountIn(RequestModel):
    """A service account to create."""

    name: str = Field(min_length=1, max_length=200)
    role: ProjectRole


class MemberPatch(RequestModel):
    """What to change of a member."""

    role: ProjectRole


class MemberOut(ResponseModel):
    """A user with a role in the project."""

    id: str
    kind: UserKind
    name: str
    email: str | None
    role: ProjectRole
    """The role that holds: the higher one of the next two."""
    given_role: ProjectRole | None
    """What an admin gave."""
    group_role: ProjectRole | None
    """What the groups of the sign-in provider give."""
    since: Timestamp
    last_seen_at: Timestamp | None
    disabled_at: Timestamp | None


class UserPatch(RequestModel):
    """What to change of a user."""

    disabled: bool
    """A disabled user's sessions and keys end within two seconds."""


class UserOut(ResponseModel):
    """A person who has signed in, or a service account."""

    model_config = ConfigDict(from_attributes=True, use_attribute_docstrings=True)
    id: str
    kind: UserKind
    name: str
    email: str | None
    issuer: str | None
    subject: str | None
    """What the provider calls the person."""
    operator: bool
    created_at: Timestamp
    last_seen_at: Timestamp | None
    disabled_at: Timestamp | None


def member_out(member: Member) -> MemberOut:
    """A member as clients read it."""
    user = member.user
    return MemberOut(
        id=user.id,
        kind=user.kind,
        name=user.name,
        email=user.email,
        role=member.role,
        given_role=member.given_role,
        group_role=member.group_role,
        since=member.since,
        last_seen_at=user.last_seen_at,
        disabled_at=user.disabled_at,
    )

"""HTTP of a project's members, and of all users."""

from __future__ import annotations

from typing import Annotated, Any, get_args

from fastapi import APIRouter, Depends, Response

from service.auth import Manager, Operator
from service.listing.filters import ChoiceFilter, CreatedFilter, ExactFilter, FlagFilter, TextFilter, TimeFilter
from service.listing.in_memory import page_of
from service.listing.query import ListOf, ListQuery, SortField
from service.listing.repository import page
from service.pagination import Page
from service.request_sessions import ReadSession, SessionRoute, WriteSession
from service.roles import ProjectRole
from service.users import service
from service.users.schemas import (
    MemberIn,
    MemberOut,
    MemberPatch,
    ServiceAccountIn,
    UserOut,
    UserPatch,
    member_out,
)
from service.users.tables import Membership, User, UserKind

router = APIRouter(prefix="/v1", tags=["users"], route_class=SessionRoute)


MEMBERS = ListOf(
    User.id,
    MemberOut,
    sorts=[SortField("since", Membership.created_at, "time"), SortField("name", User.name)],
    filters=[
        TextFilter("name", User.name),
        ExactFilter("email", User.email, max_length=320),
        ChoiceFilter("kind", User.kind, choices=get_args(UserKind)),
        ChoiceFilter("role", Membership.role, choices=get_args(ProjectRole)),
    ],
    default_sort="since",
)


@router.get("/members", response_model=Page[MemberOut], summary="Persons and service accounts of the project")
def list_members(who: Manager, session: ReadSession, query: Annotated[ListQuery, Depends(MEMBERS.query)]) -> Response:
    """Each with the role that holds, the one that an admin gave, and the one that comes from a group of the sign-in
    provider.
    """
    found = page_of(query, service.members(session, who), lambda one: one.user.id, _member_value)
    return query.respond(found, member_out)


def _member_value(member: service.Member, column: str) -> Any:
    if column in ("role", "created_at"):
        return member.role if column == "role" else member.since
    return getattr(member.user, column)


@router.post("/members", status_code=201, response_model=MemberOut, summary="Give a person a role in the project")
def add_member(who: Manager, session: WriteSession, body: MemberIn, response: Response) -> MemberOut:
    """Names a person who has signed in here once, by `user` or `email`. 403 for a role above the caller's own, 404 for
    somebody unknown, 409 for a member or an address that several persons have.
    """
    added = service.add_member(session, who, body.role, user_id=body.user, email=body.email)
    response.headers["Location"] = f"/v1/members/{added.user.id}"
    return member_out(added)


@router.get("/members/{user_id}", response_model=MemberOut, summary="One member of the project")
def get_member(user_id: str, who: Manager, session: ReadSession) -> MemberOut:
    """The role that holds, the one that an admin gave, and the one that comes from a group of the sign-in provider."""
    return member_out(service.member(session, who, user_id))


@router.patch("/members/{user_id}", response_model=MemberOut, summary="Change a member's role")
def update_member(user_id: str, who: Manager, session: WriteSession, body: MemberPatch) -> MemberOut:
    """Changes the role that an admin gave; one that comes from a group is not touched. 403 for a role above the
    caller's own, 409 for the last admin of the project.
    """
    return member_out(service.change_member(session, who, user_id, body.role))


@router.delete("/members/{user_id}", status_code=204, summary="Take a member's role back; keys of it stop working")
def remove_member(user_id: str, who: Manager, session: WriteSession) -> None:
    """The member loses access to the project at once. 409 for the last admin, and for a role that comes from a group of
    the sign-in provider.
    """
    service.remove_member(session, who, user_id)


@router.post(
    "/service-accounts", status_code=201, response_model=MemberOut, summary="Create a member that is a machine"
)
def create_service_account(
    who: Manager, session: WriteSession, body: ServiceAccountIn, response: Response
) -> MemberOut:
    """A service account has a role in this project alone and signs in nowhere: create a key with its id as `user`. 403
    for a role above the caller's own.
    """
    account = service.create_service_account(session, who, body.name, body.role)
    response.headers["Location"] = f"/v1/members/{account.user.id}"
    return member_out(account)


USERS = ListOf(
    User.id,
    UserOut,
    sorts=[
        SortField("created_at", User.id),
        SortField("name", User.name),
        SortField("last_seen_at", User.last_seen_at, "time", nullable=True),
    ],
    filters=[
        TextFilter("name", User.name),
        ExactFilter("email", User.email, max_length=320),
        ChoiceFilter("kind", User.kind, choices=get_args(UserKind)),
        FlagFilter("operator", User.operator),
        FlagFilter("disabled", User.disabled_at, present=True),
        CreatedFilter(column=User.created_at, ids=User.id, prefix="usr"),
        TimeFilter("last_seen_at", User.last_seen_at),
    ],
)


@router.get("/users", response_model=Page[UserOut], summary="Everybody who has signed in, and service accounts")
def list_users(who: Operator, session: ReadSession, query: Annotated[ListQuery, Depends(USERS.query)]) -> Response:
    """All users of the installation, whatever their projects, with when they were last seen."""
    return query.respond(page(session, query), UserOut.model_validate)


@router.patch("/users/{user_id}", response_model=UserOut, summary="Disable a user, or take that back")
def update_user(user_id: str, who: Operator, session: WriteSession, body: UserPatch) -> UserOut:
    """A disabled user cannot sign in, and their sessions and keys stop working until that is taken back. 404 for an
    unknown user.
    """
    return UserOut.model_validate(service.set_disabled(session, user_id, body.disabled))

"""HTTP of a project's members, and of all users."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Response

from service.auth import Manager, Operator
from service.pagination import After, Limit, Listing, Page, page
from service.request_sessions import ReadSession, SessionRoute, WriteSession
from service.users import repository, service
from service.users.schemas import (
    MemberIn,
    MemberOut,
    MemberPatch,
    ServiceAccountIn,
    UserOut,
    UserPatch,
    member_out,
)

router = APIRouter(prefix="/v1", tags=["users"], route_class=SessionRoute)


@router.get("/members", response_model=Listing[MemberOut], summary="Persons and service accounts of the project")
def list_members(who: Manager, session: ReadSession) -> dict[str, Any]:
    return {"data": [member_out(one) for one in service.members(session, who)]}


@router.post("/members", status_code=201, response_model=MemberOut, summary="Give a person a role in the project")
def add_member(who: Manager, session: WriteSession, body: MemberIn, response: Response) -> MemberOut:
    added = service.add_member(session, who, body.role, user_id=body.user, email=body.email)
    response.headers["Location"] = f"/v1/members/{added.user.id}"
    return member_out(added)


@router.get("/members/{user_id}", response_model=MemberOut, summary="One member of the project")
def get_member(user_id: str, who: Manager, session: ReadSession) -> MemberOut:
    return member_out(service.member(session, who, user_id))


@router.patch("/members/{user_id}", response_model=MemberOut, summary="Change a member's role")
def change_member(user_id: str, who: Manager, session: WriteSession, body: MemberPatch) -> MemberOut:
    return member_out(service.change_member(session, who, user_id, body.role))


@router.delete("/members/{user_id}", status_code=204, summary="Take a member's role back; keys of it stop working")
def remove_member(user_id: str, who: Manager, session: WriteSession) -> None:
    service.remove_member(session, who, user_id)


@router.post(
    "/service-accounts", status_code=201, response_model=MemberOut, summary="Create a member that is a machine"
)
def create_service_account(
    who: Manager, session: WriteSession, body: ServiceAccountIn, response: Response
) -> MemberOut:
    account = service.create_service_account(session, who, body.name, body.role)
    response.headers["Location"] = f"/v1/members/{account.user.id}"
    return member_out(account)


@router.get("/users", response_model=Page[UserOut], summary="Everybody who has signed in, and service accounts")
def list_users(who: Operator, session: ReadSession, limit: Limit = 50, after: After = None) -> dict[str, Any]:
    return page(repository.listing(session, limit, after), limit, UserOut.model_validate)


@router.patch("/users/{user_id}", response_model=UserOut, summary="Disable a user, or take that back")
def change_user(user_id: str, who: Operator, session: WriteSession, body: UserPatch) -> UserOut:
    return UserOut.model_validate(service.set_disabled(session, user_id, body.disabled))

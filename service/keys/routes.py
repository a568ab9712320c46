"""HTTP of API keys: of one's own project (admin), of oneself (whoever has signed in), or of the operator."""

from __future__ import annotations

from typing import Annotated, get_args

from fastapi import APIRouter, Body, Depends, Response

from service.auth import ManagerOrPerson
from service.context import Service
from service.keys import service
from service.keys.schemas import CreatedKey, KeyIn, KeyOut, RotationIn, created_key, key_out
from service.keys.tables import ApiKey
from service.listing.filters import ChoiceFilter, ExactFilter, FlagFilter, TextFilter, TimeFilter
from service.listing.query import ListOf, ListQuery, SortField
from service.listing.repository import page
from service.pagination import Page
from service.request_sessions import ReadSession, SessionRoute, WriteSession
from service.roles import ProjectRole

router = APIRouter(prefix="/v1/keys", tags=["keys"], route_class=SessionRoute)


@router.post("", status_code=201, response_model=CreatedKey, summary="Create a key; it is shown this once")
def create_key(
    who: ManagerOrPerson, context: Service, session: WriteSession, body: KeyIn, response: Response
) -> CreatedKey:
    """Members who have signed in create keys of their own whatever their role: with at most that role, in this project."""
    row = ApiKey(
        name=body.name, role=body.role, description=body.description, expires_at=body.expires_at, user_id=body.user
    )
    if body.budget is not None:
        row.max_jobs, row.max_compute_seconds = body.budget.max_jobs, body.budget.max_compute_seconds
    presented = service.create(session, who, row, context.settings.max_key_days, body.expires_in)
    response.headers["Location"] = f"/v1/keys/{row.id}"
    return created_key(row, presented, context.settings.max_key_days)


KEYS = ListOf(
    ApiKey.id,
    KeyOut,
    sorts=[
        SortField("created_at", ApiKey.created_at, "time"),
        SortField("name", ApiKey.name),
        SortField("last_used_at", ApiKey.last_used_at, "time", nullable=True),
        SortField("expires_at", ApiKey.expires_at, "time", nullable=True),
    ],
    filters=[
        TextFilter("name", ApiKey.name),
        ExactFilter("user", ApiKey.user_id, "Only keys of this user.", max_length=40),
        ChoiceFilter("role", ApiKey.role, choices=get_args(ProjectRole)),
        FlagFilter("operator", ApiKey.operator),
        FlagFilter("revoked", ApiKey.revoked_at, present=True),
        TimeFilter("created_at", ApiKey.created_at),
        TimeFilter("last_used_at", ApiKey.last_used_at),
        TimeFilter("expires_at", ApiKey.expires_at),
    ],
    default_sort="created_at",
)


@router.get("", response_model=Page[KeyOut], summary="Keys of the project, or your own, oldest first")
def list_keys(
    who: ManagerOrPerson, context: Service, session: ReadSession, query: Annotated[ListQuery, Depends(KEYS.query)]
) -> Response:
    """Members who have signed in and are no admin see their own."""
    found = page(session, query, *service.visible(who))
    return query.respond(found, lambda row: key_out(row, context.settings.max_key_days))


@router.get("/{key_id}", response_model=KeyOut, summary="One key, without its secret")
def get_key(key_id: str, who: ManagerOrPerson, context: Service, session: ReadSession) -> KeyOut:
    """Name, role, owner, expiry and last use. The secret is not stored and cannot be shown again. 404 also for the key
    of somebody else, unless the caller manages the project.
    """
    return key_out(service.find(session, who, key_id), context.settings.max_key_days)


@router.post(
    "/{key_id}:rotate",
    status_code=201,
    response_model=CreatedKey,
    summary="Create a key like this one, which ends after an overlap",
)
def rotate_key(
    key_id: str,
    who: ManagerOrPerson,
    context: Service,
    session: WriteSession,
    response: Response,
    body: Annotated[RotationIn | None, Body()] = None,
) -> CreatedKey:
    """Members who have signed in rotate their own, and nobody another person's."""
    overlap = (body or RotationIn()).overlap_seconds
    row, presented = service.rotate(session, who, key_id, overlap, context.settings.max_key_days)
    response.headers["Location"] = f"/v1/keys/{row.id}"
    return created_key(row, presented, context.settings.max_key_days)


@router.delete("/{key_id}", status_code=204, summary="Revoke a key; within two seconds it no longer works")
def revoke_key(key_id: str, who: ManagerOrPerson, session: WriteSession) -> None:
    """Members who have signed in revoke their own, admins every one of the project."""
    service.revoke(session, who, key_id)

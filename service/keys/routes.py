"""HTTP of API keys of one's own project (admin)."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Body
from pydantic import BaseModel, Field

from service.auth import Admin
from service.keys import repository
from service.keys.service import PROJECT_SCOPES, ProjectScope, create_key, revoke
from service.pagination import Listing
from service.request_model import RequestModel
from service.request_sessions import ReadSession, SessionRoute, WriteSession

router = APIRouter(prefix="/v1/keys", tags=["keys"], route_class=SessionRoute)


class KeyIn(RequestModel):
    """A key to make."""

    name: str = Field("key", min_length=1, max_length=200)
    scopes: list[ProjectScope] = Field(list(PROJECT_SCOPES), min_length=1, max_length=3)


class CreatedKey(BaseModel):
    """The one time that a key is shown."""

    key: str


class KeyOut(BaseModel):
    """A key without its secret."""

    id: str
    name: str
    scopes: list[str]
    created_at: datetime
    last_used_at: datetime | None
    expires_at: datetime | None
    revoked_at: datetime | None


@router.post("", status_code=201, response_model=CreatedKey, summary="Make a key; it is shown this once")
def make_key(who: Admin, session: WriteSession, body: Annotated[KeyIn | None, Body()] = None) -> CreatedKey:
    body = body or KeyIn()
    project = repository.project(session, who.project_id)
    return CreatedKey(key=create_key(session, project.name, body.name, tuple(body.scopes)))


@router.get("", response_model=Listing[KeyOut], summary="Keys of the project")
def list_keys(who: Admin, session: ReadSession) -> dict[str, Any]:
    rows = repository.keys_of(session, who.project_id)
    return {"data": [KeyOut.model_validate(row, from_attributes=True) for row in rows]}


@router.delete("/{key_id}", status_code=204, summary="Revoke a key; within two seconds it no longer works")
def revoke_key(key_id: str, who: Admin, session: WriteSession) -> None:
    revoke(session, who, key_id)

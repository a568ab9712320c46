"""HTTP of one's own project: what it keeps and may use (admin)."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from service.auth import Admin
from service.context import Service
from service.errors import not_found
from service.keys.service import Principal
from service.pagination import Listing
from service.projects import repository, service
from service.projects.schemas import ProjectIn, ProjectOut, project_out
from service.request_sessions import ReadSession, SessionRoute, WriteSession

router = APIRouter(prefix="/v1/projects", tags=["projects"], route_class=SessionRoute)


@router.get("", response_model=Listing[ProjectOut], summary="The key's own project: a key sees no other")
def list_projects(who: Admin, context: Service, session: ReadSession) -> dict[str, Any]:
    return {"data": [project_out(repository.get(session, who.project_id), context.settings)]}


@router.get("/{project_id}", response_model=ProjectOut, summary="What the project keeps and may use")
def get_project(project_id: str, who: Admin, context: Service, session: ReadSession) -> ProjectOut:
    _check_callers_project(who, project_id)
    return project_out(repository.get(session, project_id), context.settings)


@router.patch("/{project_id}", response_model=ProjectOut, summary="Change some of it")
def change_project(project_id: str, who: Admin, context: Service, session: WriteSession, body: ProjectIn) -> ProjectOut:
    _check_callers_project(who, project_id)
    project = service.change(session, project_id, body.settings.model_dump(exclude_unset=True))
    return project_out(project, context.settings)


def _check_callers_project(who: Principal, project_id: str) -> None:
    if project_id != who.project_id:
        raise not_found("project", project_id)

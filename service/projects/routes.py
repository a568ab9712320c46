"""HTTP of projects: the operator's are all, everybody else's is the one that he is in."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Response

from service.auth import Authenticated, Manager, Operator
from service.context import Service
from service.errors import HttpProblem
from service.pagination import After, Limit, Page, page
from service.projects import repository, service
from service.projects.schemas import NewProjectIn, ProjectIn, ProjectOut, project_out
from service.request_sessions import ReadSession, SessionRoute, WriteSession

router = APIRouter(prefix="/v1/projects", tags=["projects"], route_class=SessionRoute)
Archived = Annotated[bool | None, Query(description="Only archived projects, or only those in use.")]


@router.post("", status_code=201, response_model=ProjectOut, summary="Create a project")
def create_project(
    who: Operator, context: Service, session: WriteSession, body: NewProjectIn, response: Response
) -> ProjectOut:
    overrides, limits = (one.model_dump(exclude_unset=True) for one in (body.settings, body.limits))
    project = service.create(session, context.settings, body.name, overrides, limits)
    response.headers["Location"] = f"/v1/projects/{project.id}"
    return project_out(project, context.settings)


@router.get("", response_model=Page[ProjectOut], summary="Projects that the caller may see, newest first")
def list_projects(
    who: Authenticated,
    context: Service,
    session: ReadSession,
    limit: Limit = 50,
    after: After = None,
    archived: Archived = None,
) -> dict[str, Any]:
    only = None if who.operator else [who.project_id]
    rows = repository.listing(session, only, limit, after, archived)
    return page(rows, limit, lambda row: project_out(row, context.settings))


@router.get("/{project_id}", response_model=ProjectOut, summary="What the project keeps and may use")
def get_project(project_id: str, who: Authenticated, context: Service, session: ReadSession) -> ProjectOut:
    return project_out(service.find(session, who, project_id), context.settings)


@router.patch("/{project_id}", response_model=ProjectOut, summary="Change, rename or archive a project")
def update_project(
    project_id: str, who: Manager, context: Service, session: WriteSession, body: ProjectIn
) -> ProjectOut:
    service.find(session, who, project_id)
    if not who.operator and (body.name is not None or body.archived is not None or body.limits is not None):
        detail = "A project's name, its `limits` and whether it is archived are the operator's to change; settings are yours."
        raise HttpProblem(403, "forbidden", detail)
    overrides, limits = (one.model_dump(exclude_unset=True) if one else {} for one in (body.settings, body.limits))
    project = service.change(session, context.settings, project_id, overrides, limits, body.name, body.archived)
    return project_out(project, context.settings)

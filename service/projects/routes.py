"""HTTP of projects: the operator's are all, everybody else's is the one that he is in."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Response

from service.auth import Authenticated, Manager, Operator
from service.context import Service
from service.errors import HttpProblem
from service.listing.filters import FlagFilter, TextFilter, TimeFilter
from service.listing.query import ListOf, ListQuery, SortField
from service.listing.repository import page
from service.pagination import Page
from service.projects import service
from service.projects.schemas import NewProjectIn, ProjectIn, ProjectOut, project_out
from service.projects.tables import Project
from service.request_sessions import ReadSession, SessionRoute, WriteSession

router = APIRouter(prefix="/v1/projects", tags=["projects"], route_class=SessionRoute)


@router.post("", status_code=201, response_model=ProjectOut, summary="Create a project")
def create_project(
    who: Operator, context: Service, session: WriteSession, body: NewProjectIn, response: Response
) -> ProjectOut:
    """A project keeps its own datasets, jobs, models and keys. `settings` are its own; `limits` take the place of the
    service's. 409 when the name is taken, 422 for a setting beyond its limit.
    """
    overrides, limits = (one.model_dump(exclude_unset=True) for one in (body.settings, body.limits))
    project = service.create(session, context.settings, body.name, overrides, limits)
    response.headers["Location"] = f"/v1/projects/{project.id}"
    return project_out(project, context.settings)


PROJECTS = ListOf(
    Project.id,
    ProjectOut,
    sorts=[SortField("created_at", Project.id), SortField("name", Project.name)],
    filters=[
        TextFilter("name", Project.name),
        FlagFilter("archived", Project.archived_at, "Only archived projects, or only those in use.", present=True),
        TimeFilter("created_at", Project.created_at),
    ],
)


@router.get("", response_model=Page[ProjectOut], summary="Projects that the caller may see, newest first")
def list_projects(
    who: Authenticated, context: Service, session: ReadSession, query: Annotated[ListQuery, Depends(PROJECTS.query)]
) -> Response:
    """Projects in which the caller has a role; for the operator all."""
    visible = [] if who.operator else [Project.id.in_(who.project_ids)]
    return query.respond(page(session, query, *visible), lambda row: project_out(row, context.settings))


@router.get("/{project_id}", response_model=ProjectOut, summary="What the project keeps and may use")
def get_project(project_id: str, who: Authenticated, context: Service, session: ReadSession) -> ProjectOut:
    """Name, settings such as retention, and limits as they hold now. 404 for a project that the caller has no role in."""
    return project_out(service.find(session, who, project_id), context.settings)


@router.patch("/{project_id}", response_model=ProjectOut, summary="Change, rename or archive a project")
def update_project(
    project_id: str, who: Manager, context: Service, session: WriteSession, body: ProjectIn
) -> ProjectOut:
    """Fields that are left out stay; `default` takes a value back. Admins change `settings` of their own project; name,
    archiving and `limits` are the operator's, else 403. 409 when the name is taken, 422 for a setting beyond its limit.

    An archived project takes no new work, and what runs in it is ended.
    """
    if not who.operator and project_id != who.project_id:
        raise service.unknown_project(project_id)
    service.find(session, who, project_id)
    if not who.operator and (body.name is not None or body.archived is not None or body.limits is not None):
        detail = "A project's name, its `limits` and whether it is archived are the operator's to change; settings are yours."
        raise HttpProblem(403, "forbidden", detail)
    overrides, limits = (one.model_dump(exclude_unset=True) if one else {} for one in (body.settings, body.limits))
    project = service.change(session, context.settings, project_id, overrides, limits, body.name, body.archived)
    return project_out(project, context.settings)

"""HTTP of what a project uses of its limits."""

from __future__ import annotations

from fastapi import APIRouter, Request

from service.auth import Authenticated
from service.context import Service
from service.projects.service import find
from service.request_sessions import ReadSession, SessionRoute
from service.usage import service
from service.usage.schemas import UsageOut

router = APIRouter(prefix="/v1/projects", tags=["projects"], route_class=SessionRoute)


@router.get("/{project_id}/usage", response_model=UsageOut, summary="What the project uses of its limits")
def get_usage(
    project_id: str, request: Request, who: Authenticated, context: Service, session: ReadSession
) -> UsageOut:
    """Every limit with what is used of it, what remains, and when it begins anew. Any key of the project may ask."""
    find(session, who, project_id)
    return service.usage_of(session, context.settings, project_id, request.state.key_usage)

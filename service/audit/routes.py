"""HTTP of the audit log: look and export."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any, get_args

from anyio import to_thread
from fastapi import APIRouter, Depends, Query, Response
from fastapi.responses import StreamingResponse
from sqlalchemy.orm import Session, sessionmaker

from service.audit import repository
from service.audit.schemas import AuditEntryOut, Outcome, entry_out
from service.audit.service import export
from service.audit.tables import AuditEntry
from service.auth import Manager
from service.context import Service
from service.errors import HttpProblem
from service.listing.filters import ChoiceFilter, ExactFilter, TimeFilter
from service.listing.query import ListOf, ListQuery, SortField
from service.listing.repository import page
from service.pagination import Page
from service.principal import Principal
from service.request_sessions import ReadSession, SessionRoute

router = APIRouter(prefix="/v1/audit", tags=["audit"], route_class=SessionRoute)
MAX_SEQ = 2**63 - 1
NDJSON = "application/x-ndjson"
LINES: dict[int | str, dict[str, Any]] = {
    200: {"content": {NDJSON: {"schema": {"type": "string"}}}, "description": "One entry a line, oldest first"}
}
Project = Annotated[
    str | None, Query(max_length=64, description="Entries of that project; the operator gets all when it is left out.")
]


AUDIT_LOG = ListOf(
    AuditEntry.seq,
    AuditEntryOut,
    sorts=[SortField("created_at", AuditEntry.seq)],
    filters=[
        ExactFilter("actor", AuditEntry.actor, "Only of this actor, by kind and id: `key:ab12cd34`."),
        ExactFilter("operation", AuditEntry.operation, "Only this operationId: `createJob`.", max_length=100),
        ChoiceFilter("outcome", AuditEntry.outcome, choices=get_args(Outcome)),
        ExactFilter("resource", AuditEntry.resource_id, "Only entries about the resource of this id.", max_length=300),
        ExactFilter(
            "project", AuditEntry.project_id, "Only of this project; others than their own are for the operator."
        ),
        TimeFilter("created_at", AuditEntry.created_at),
    ],
)


@router.get("", response_model=Page[AuditEntryOut], summary="List entries of the audit log, newest first")
def list_audit_entries(
    who: Manager, session: ReadSession, query: Annotated[ListQuery, Depends(AUDIT_LOG.query)]
) -> Response:
    """Every write and every refused access: who, what, from where, under which request id, before and after. Admins see
    their project's entries, the operator all.
    """
    return query.respond(page(session, query, *repository.visible(visible_project(who, None))), entry_out)


@router.get("/export", response_class=StreamingResponse, responses=LINES, summary="Export the audit log as JSON Lines")
async def export_audit_log(
    who: Manager,
    context: Service,
    after: Annotated[int, Query(ge=0, le=MAX_SEQ, description="Only entries after this `seq`.")] = 0,
    project: Project = None,
) -> StreamingResponse:
    """Every entry with its hash, oldest first. The hash of the last line, kept elsewhere, proves later that nothing was
    changed up to there.
    """
    chosen = visible_project(who, project)
    return StreamingResponse(_lines(context.sessions, chosen, after), media_type=NDJSON)


def visible_project(who: Principal, project: str | None) -> str | None:
    """Return the project whose entries a key may see; None: all. Raises a 403 problem for another project's."""
    if who.operator:
        return project
    if project not in (None, who.project_id):
        detail = f"This key sees the audit log of its project {who.project_id!r} alone."
        raise HttpProblem(403, "forbidden", detail)
    return who.project_id


async def _lines(sessions: sessionmaker[Session], project: str | None, after: int) -> AsyncIterator[str]:
    lines = export(sessions, project, after)
    while (batch := await to_thread.run_sync(next, lines, None)) is not None:
        yield batch

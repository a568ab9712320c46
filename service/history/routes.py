"""HTTP of the history of experiments and groups, and of the notes in it."""

from __future__ import annotations

from typing import Annotated, Any, Literal
from urllib.parse import quote

from fastapi import APIRouter, Header, Path, Query, Response

from service.auth import Reader, Writer
from service.conditional_requests import tagged
from service.context import Service
from service.history import service
from service.history.markdown import as_markdown
from service.history.schemas import HistoryOut, NoteIn, NoteOut
from service.jobs.history_routes import HARMLESS
from service.jobs.routes import IdempotencyKey
from service.pagination import NOT_MODIFIED
from service.request_sessions import ReadSession, SessionRoute, WriteSession

router = APIRouter(prefix="/v1", tags=["experiments"], route_class=SessionRoute)
ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "model": HistoryOut,
        "content": {"text/markdown": {"schema": {"type": "string"}}},
        "description": "JSON, or with `Accept: text/markdown` or `format=markdown` a text to read",
    },
    **NOT_MODIFIED,
}
Metric = Annotated[
    str | None,
    Query(max_length=64, description="By which metric runs are compared; left out, the validation part of their own."),
]
After = Annotated[int, Query(ge=0, lt=2**31, description="Runs to pass over: `next` of the answer before.")]
Limit = Annotated[int, Query(ge=1, le=1000, description="Runs at most.")]
Format = Annotated[Literal["json", "markdown"] | None, Query(description="Left out: as `Accept` says.")]
Accept = Annotated[str | None, Header()]
Group = Annotated[str, Path(max_length=200, description="The `group` of the jobs' specs.")]


@router.get(
    "/experiments/{experiment_id}/history",
    response_class=Response,
    responses=ANSWERS,
    summary="What the experiment tried, in which order, why, and what it gave",
)
def get_experiment_history(
    experiment_id: str,
    who: Reader,
    session: ReadSession,
    metric: Metric = None,
    after: After = 0,
    limit: Limit = 100,
    format: Format = None,
    accept: Accept = None,
) -> Response:
    """A row a trial, oldest first: the values of the plan or the reason of the autopilot, the job's notes, and the metric
    of the kept weights with its 95 % interval. `plateau` says whether the last runs still helped, and by which rule.
    """
    return _answer(service.of_experiment(session, who, experiment_id, metric, after, limit), format, accept)


@router.get(
    "/groups/{group:path}/history",
    response_class=Response,
    responses=ANSWERS,
    summary="What was tried in a group of jobs, in which order, why, and what it gave",
)
def get_group_history(
    group: Group,
    who: Reader,
    session: ReadSession,
    metric: Metric = None,
    after: After = 0,
    limit: Limit = 100,
    format: Format = None,
    accept: Accept = None,
) -> Response:
    """A row a job, oldest first: the recommendation that it follows, or what differs from the job that it was forked from,
    its notes, and the metric of the kept weights with its 95 % interval. A group is the `group` of the specs.
    """
    return _answer(service.of_group(session, who, group, metric, after, limit), format, accept)


@router.post(
    "/experiments/{experiment_id}/notes",
    status_code=201,
    response_model=NoteOut,
    summary="Add a note to an experiment's history",
)
def create_experiment_note(
    experiment_id: str,
    who: Writer,
    context: Service,
    session: WriteSession,
    body: NoteIn,
    response: Response,
    idempotency_key: IdempotencyKey = None,
) -> NoteOut:
    """What was thought, planned or concluded, with author and time. Notes are never changed; a later one corrects."""
    service.find_experiment(session, who, experiment_id)
    note, new = service.add_note(session, context, who, experiment_id, body.text, idempotency_key)
    _describe(response, f"/v1/experiments/{experiment_id}/history", new=new)
    return service.note_out(note)


@router.post(
    "/groups/{group:path}/notes", status_code=201, response_model=NoteOut, summary="Add a note to a group's history"
)
def create_group_note(
    group: Group,
    who: Writer,
    context: Service,
    session: WriteSession,
    body: NoteIn,
    response: Response,
    idempotency_key: IdempotencyKey = None,
) -> NoteOut:
    """What was thought, planned or concluded, with author and time. 404 while no job of the project is in the group."""
    service.check_group(session, who, group)
    note, new = service.add_note(session, context, who, group, body.text, idempotency_key)
    _describe(response, f"/v1/groups/{quote(group)}/history", new=new)
    return service.note_out(note)


def _describe(response: Response, location: str, *, new: bool) -> None:
    response.headers["Location"] = location
    if not new:
        response.headers["Idempotency-Replayed"] = "true"


def _answer(history: HistoryOut, format: str | None, accept: str | None) -> Response:
    if format == "markdown" or (format is None and _prefers_markdown(accept or "")):
        return tagged(Response(as_markdown(history), media_type="text/markdown; charset=utf-8", headers=HARMLESS))
    return tagged(Response(history.model_dump_json(by_alias=True), media_type="application/json"))


def _prefers_markdown(accept: str) -> bool:
    """Whether Markdown is named before JSON; weights are not read."""
    kinds = [kind.partition(";")[0].strip().lower() for kind in accept.split(",")]
    named = next((kind for kind in kinds if kind in ("application/json", "text/markdown", "text/*")), "")
    return named.startswith("text/")

"""HTTP of datasets."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Annotated, Any, get_args

from anyio import to_thread
from fastapi import APIRouter, Body, Depends, File, Form, Header, Query, Request, Response, UploadFile
from starlette.requests import ClientDisconnect
from starlette.routing import Match
from starlette.types import Scope

from service.auth import Reader, Writer, check_role
from service.body_limits import FORM_OVERHEAD, bound_body, declared_length
from service.context import Context, Service
from service.database import reading
from service.datasets import service
from service.datasets.drift import drift_between
from service.datasets.receive import Receiver, check_digest, parse_digest
from service.datasets.schemas import (
    DatasetDriftOut,
    DatasetOut,
    DatasetReportOut,
    DatasetState,
    PreviewIn,
    RereadIn,
    SourceIn,
    dataset_out,
    read_options_in,
    read_options_of,
)
from service.datasets.tables import DatasetVersion
from service.errors import HttpProblem
from service.inference_requests.service import infer
from service.listing.filters import ChoiceFilter, CreatedFilter, ExactFilter, NumberFilter, TextFilter, TimeFilter
from service.listing.query import ListOf, ListQuery, SortField
from service.listing.repository import page
from service.pagination import Page
from service.principal import Principal
from service.registry import repository as names
from service.registry.addresses import DatasetReference
from service.registry.names import MAX_REFERENCE, Name, as_name
from service.request_sessions import ReadSession, SessionRoute
from trainkit.spec.facts import DatasetKind
from trainkit.spec.read_options import (
    Channels,
    Decimal,
    Delimiter,
    Encoding,
    ImageSize,
    Quote,
    ReadOptions,
    Sheet,
    SkipRows,
    TargetTask,
    Thousands,
)

router = APIRouter(prefix="/v1/datasets", tags=["datasets"], route_class=SessionRoute)
PNG: dict[int | str, dict[str, Any]] = {
    200: {"content": {"image/png": {"schema": {"type": "string", "format": "binary"}}}, "description": "PNG"}
}
RAW_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}
SOURCE_BODY: dict[str, Any] = {
    "requestBody": {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/SourceIn"}}}}
}
NameQuery = Annotated[Name, Query()]
Kind = Annotated[DatasetKind | None, Query(description="Left out: detected.")]


def _described(option: str) -> str:
    """Return the description of an option that comes as JSON text."""
    return f"{ReadOptions.model_fields[option].description or ''} As JSON."


Target = Annotated[str | None, Query(max_length=300, description="Tables: the column to predict.")]


def query_options(
    delimiter: Annotated[Delimiter | None, Query()] = None,
    quote: Annotated[Quote | None, Query()] = None,
    encoding: Annotated[Encoding | None, Query()] = None,
    sheet: Annotated[Sheet | None, Query()] = None,
    skip_rows: Annotated[SkipRows | None, Query()] = None,
    header: Annotated[bool | None, Query(description="Tables: whether the first row names the columns.")] = None,
    decimal: Annotated[Decimal | None, Query()] = None,
    thousands: Annotated[Thousands | None, Query()] = None,
    missing: Annotated[str | None, Query(description=_described("missing"))] = None,
    columns: Annotated[str | None, Query(description=_described("columns"))] = None,
    image_size: Annotated[ImageSize | None, Query()] = None,
    channels: Annotated[Channels | None, Query()] = None,
    task: Annotated[TargetTask | None, Query()] = None,
) -> dict[str, Any] | None:
    """The read options of a query."""
    return read_options_in("query", locals())


def form_options(
    delimiter: Annotated[Delimiter | None, Form()] = None,
    quote: Annotated[Quote | None, Form()] = None,
    encoding: Annotated[Encoding | None, Form()] = None,
    sheet: Annotated[Sheet | None, Form()] = None,
    skip_rows: Annotated[SkipRows | None, Form()] = None,
    header: Annotated[bool | None, Form()] = None,
    decimal: Annotated[Decimal | None, Form()] = None,
    thousands: Annotated[Thousands | None, Form()] = None,
    missing: Annotated[str | None, Form(description=_described("missing"))] = None,
    columns: Annotated[str | None, Form(description=_described("columns"))] = None,
    image_size: Annotated[ImageSize | None, Form()] = None,
    channels: Annotated[Channels | None, Form()] = None,
    task: Annotated[TargetTask | None, Form()] = None,
) -> dict[str, Any] | None:
    """The read options of a form."""
    return read_options_in("body", locals())


QueryOptions = Annotated[dict[str, Any] | None, Depends(query_options)]
FormOptions = Annotated[dict[str, Any] | None, Depends(form_options)]


@router.put(
    "",
    status_code=201,
    response_model=DatasetOut,
    openapi_extra=RAW_BODY,
    summary="Upload a dataset (raw body, streamed)",
)
async def upload_dataset(
    request: Request,
    response: Response,
    who: Writer,
    context: Service,
    name: NameQuery,
    read_options: QueryOptions,
    kind: Kind = None,
    target: Target = None,
    filename: Annotated[str | None, Query(max_length=300)] = None,
    content_digest: Annotated[str | None, Header()] = None,
) -> DatasetOut:
    """Stores the body as a new version of `name` and has a worker check it: `GET /v1/datasets/{dataset}` shows when it
    is `ready`, or `invalid` and why. Bytes that were the last version already, read in the same way, are answered with
    that version.

    A file beyond the limit or the project's quota is 413; a body that is not as `Content-Digest` says is refused, and
    nothing is kept. With `Expect: 100-continue` and `Content-Digest`, bytes that are stored already need not be sent.
    """
    metadata = service.DatasetMetadata(name, kind, target, filename, read_options)
    declared = request.headers.get("content-length", "")
    size = int(declared) if declared.isdigit() else None
    expected = parse_digest(content_digest)
    if expected is not None and request.headers.get("expect", "").lower() == "100-continue":
        # the client waits before it sends the body: bytes that are stored already need not be sent
        stored = await to_thread.run_sync(service.register_stored, context, who, expected, metadata)
        if stored is not None:
            response.headers.update({"Location": f"/v1/datasets/{stored.id}", "Connection": "close"})
            return await to_thread.run_sync(_out, context, stored)
    return await _receive(context, who, request.stream(), size, metadata, content_digest, response)


class JsonRoute(SessionRoute):
    """Takes only what comes as JSON; the form has a route of the same address."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        kind = next((value for name, value in scope["headers"] if name == b"content-type"), b"")
        if kind.partition(b";")[0].strip().lower() != b"application/json":
            return Match.NONE, {}
        return super().matches(scope)


by_uri = APIRouter(prefix="/v1/datasets", tags=["datasets"], route_class=JsonRoute)


@by_uri.post("", status_code=201, response_model=DatasetOut, include_in_schema=False)
def post_source(response: Response, who: Writer, context: Service, source: SourceIn) -> DatasetOut:
    read_options = read_options_of(source.model_dump(include=set(ReadOptions.model_fields)))
    metadata = service.DatasetMetadata(source.name or "", source.kind, source.target, None, read_options)
    dataset = service.register_source(context, who, source.uri, metadata)
    response.headers["Location"] = f"/v1/datasets/{dataset.id}"
    return _out(context, dataset)


class FormRoute(SessionRoute):
    """Asks for the project's quota before the form is read, which FastAPI does before anything else."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_bounded(request: Request) -> Response:
            check_role(request.scope)
            who, declared = request.state.principal, declared_length(request.scope)
            size = None if declared is None else max(0, declared - FORM_OVERHEAD)
            context = request.app.state.context
            limit, refusal = await to_thread.run_sync(service.upload_limit, context, who, size, None)
            bound_body(request.scope, limit + FORM_OVERHEAD, refusal)
            return await handle(request)

        return handle_bounded


async def create_dataset(
    response: Response,
    who: Writer,
    context: Service,
    file: Annotated[UploadFile, File()],
    read_options: FormOptions,
    name: Annotated[Name | None, Form()] = None,
    kind: Annotated[DatasetKind | None, Form()] = None,
    target: Annotated[str | None, Form(max_length=300, pattern=r"^[^\x00]*$")] = None,
) -> DatasetOut:
    """A form has the file in `file`, and stores it as `PUT /v1/datasets` does. JSON names a file by `uri`, which a
    worker fetches: `file://` below folders and `s3://` in buckets that the operator has allowed; others are 422.

    The answer is the new version, in state `validating` or `uploading`. A file beyond the limit or the quota is 413.
    """
    shown = re.sub(r"[\x00-\x1f]", "", (file.filename or "").replace("\\", "/").rsplit("/", 1)[-1])[:300]
    metadata = service.DatasetMetadata(
        name or as_name(shown.split(".")[0]) or "dataset", kind, target, shown or None, read_options
    )
    return await _receive(context, who, _chunks(file), file.size, metadata, None, response)


router.add_api_route(
    "",
    create_dataset,
    methods=["POST"],
    status_code=201,
    response_model=DatasetOut,
    openapi_extra=SOURCE_BODY,
    summary="Upload a dataset (multipart form), or register a URI (JSON)",
    route_class_override=FormRoute,
    form_limits={"max_files": 1, "max_fields": 32, "max_part_size": 16 << 10},
)


async def _chunks(file: UploadFile) -> AsyncIterator[bytes]:
    while chunk := await file.read(1 << 20):
        yield chunk


def _out(context: Context, dataset: DatasetVersion) -> DatasetOut:
    """The dataset with its aliases: a file that was sent before is the version that it was then."""
    with reading(context.sessions) as session:
        return dataset_out(dataset, names.aliases_of(session, [dataset.id])[dataset.id])


async def _receive(
    context: Context,
    who: Principal,
    chunks: AsyncIterator[bytes],
    size: int | None,
    metadata: service.DatasetMetadata,
    digest: str | None,
    response: Response,
) -> DatasetOut:
    expected = parse_digest(digest)
    # refused before the first byte is read where that is possible
    limit, refusal = await to_thread.run_sync(service.upload_limit, context, who, size, expected)
    receiver = Receiver(context.storage, limit, refusal)
    try:
        await receiver.take(chunks)
        received = await to_thread.run_sync(receiver.finish)
        if received.bytes == 0:
            raise HttpProblem(422, "empty", "The body is empty. Send the file's bytes, as curl -T FILE does.")
        check_digest(expected, received)
        dataset = await to_thread.run_sync(service.register, context, who, received, metadata)
    except ClientDisconnect:
        raise HttpProblem(400, "disconnected", "The upload ended before its last byte; nothing was kept.") from None
    finally:
        receiver.discard()
    response.headers["Location"] = f"/v1/datasets/{dataset.id}"
    return await to_thread.run_sync(_out, context, dataset)


DATASETS = ListOf(
    DatasetVersion.id,
    DatasetOut,
    sorts=[SortField("created_at", DatasetVersion.id), SortField("name", DatasetVersion.name)],
    filters=[
        ChoiceFilter("state", DatasetVersion.state, choices=get_args(DatasetState)),
        TextFilter("name", DatasetVersion.name),
        NumberFilter("version", DatasetVersion.version),
        ChoiceFilter("kind", DatasetVersion.kind, choices=get_args(DatasetKind)),
        ExactFilter("sha256", DatasetVersion.blob_sha256),
        NumberFilter("bytes", DatasetVersion.bytes),
        NumberFilter("samples", DatasetVersion.samples),
        CreatedFilter(column=DatasetVersion.created_at, ids=DatasetVersion.id, prefix="ds"),
        TimeFilter("updated_at", DatasetVersion.updated_at),
    ],
)


@router.get("", response_model=Page[DatasetOut], summary="List datasets, newest first")
def list_datasets(who: Reader, session: ReadSession, query: Annotated[ListQuery, Depends(DATASETS.query)]) -> Response:
    """Each version is a row, also those that are still being checked or were refused."""
    found = page(session, query, DatasetVersion.project_id == who.project_id)
    aliases = names.aliases_of(session, [row.id for row in found.rows])
    return query.respond(found, lambda row: dataset_out(row, aliases[row.id]))


@router.get("/{dataset}", response_model=DatasetOut, summary="One dataset")
def get_dataset(reference: DatasetReference, who: Reader, session: ReadSession) -> DatasetOut:
    """State, kind, size, classes and aliases of one version. `dataset` is an id, `name` (the newest version),
    `name:version` or `name@alias`.
    """
    row = service.find(session, who, reference)
    return dataset_out(row, names.aliases_of(session, [row.id])[row.id])


@router.post(
    "/{dataset}:reread",
    status_code=201,
    response_model=DatasetOut,
    summary="Read the stored bytes in another way, as a new version",
)
def reread_dataset(
    reference: DatasetReference, response: Response, who: Writer, context: Service, options: Annotated[RereadIn, Body()]
) -> DatasetOut:
    """The bytes need not be sent again. Where the last version of the name was read like this, it is returned."""
    dataset = service.reread(context, who, reference, options.changes)
    response.headers["Location"] = f"/v1/datasets/{dataset.id}"
    return _out(context, dataset)


@router.get(
    "/{dataset}/report",
    response_model=DatasetReportOut,
    response_model_exclude_unset=True,
    summary="What the check found",
)
def get_dataset_report(reference: DatasetReference, who: Reader, session: ReadSession) -> dict[str, Any]:
    """Facts and statistics of the data, findings such as duplicates or leakage, and errors by file and row. 409 while
    the check is under way; ask again after `Retry-After`.
    """
    dataset = service.find(session, who, reference)
    if dataset.state in ("uploading", "validating"):
        raise HttpProblem(409, "not_checked_yet", "The dataset is still being checked.", headers={"Retry-After": "1"})
    return {"facts": dataset.facts, "error": dataset.error, **(dataset.report or {})}


@router.get(
    "/{dataset}/drift", response_model=DatasetDriftOut, summary="How it differs from another dataset or version"
)
def get_dataset_drift(
    reference: DatasetReference,
    who: Reader,
    session: ReadSession,
    against: Annotated[
        str, Query(max_length=MAX_REFERENCE, description="The dataset that came before: its id, `name:version` ...")
    ],
) -> dict[str, Any]:
    """Compares the reports of both: quartiles and means of numeric columns, counts of categories and classes, means of
    image channels, and shares of missing values. No sample is read. 409 while one of them is being checked.
    """
    after, before = service.find(session, who, reference), service.find(session, who, against)
    for dataset in (after, before):
        if dataset.state in ("uploading", "validating"):
            detail = f"The dataset {dataset.name}:{dataset.version} is still being checked."
            raise HttpProblem(409, "not_checked_yet", detail, headers={"Retry-After": "1"})
        if dataset.report is None or dataset.facts is None:
            detail = f"The dataset {dataset.name}:{dataset.version} is {dataset.state} and has no report to compare."
            raise HttpProblem(409, "not_ready", detail)
    return {"before": before.id, "after": after.id, **drift_between(before.report or {}, after.report or {})}


@router.get("/{dataset}/preview.png", response_class=Response, responses=PNG, summary="A labelled contact sheet")
async def get_dataset_preview(
    reference: DatasetReference,
    who: Reader,
    context: Service,
    samples: Annotated[
        str | None,
        Query(
            pattern=r"^\d{1,12}(,\d{1,12}){0,29}$",
            description="Positions of the samples to draw, counted from 0 and comma-separated, at most 30.",
        ),
    ] = None,
) -> Response:
    """A worker draws samples of the data with their labels, as one PNG; with `samples` these alone, such as those that an
    evaluation lists as `misclassified`. 409 for a dataset that is not ready or holds weights only; 503 when no worker
    answers in time.
    """
    key = await to_thread.run_sync(_prepared_key, context, who, reference)
    request = {} if samples is None else {"samples": [int(position) for position in samples.split(",")]}
    answer = await infer(context, who, "dataset_preview", key, json.dumps(request).encode(), "application/json")
    return Response(answer.body, media_type=answer.media_type)


@router.post(
    "/{dataset}/augmentation-preview.png",
    response_class=Response,
    responses=PNG,
    summary="20 variants of one sample under a spec's `augment`",
)
async def preview_augmentation(
    reference: DatasetReference, who: Reader, context: Service, preview: Annotated[PreviewIn, Body()]
) -> Response:
    """A worker draws `count` variants of the sample at `index`, as one PNG; the same `seed` gives the same picture. 409
    for a dataset that is not ready or holds weights only; 503 when no worker answers in time.
    """
    key = await to_thread.run_sync(_prepared_key, context, who, reference)
    request = preview.model_dump_json().encode()
    answer = await infer(context, who, "augmentation_preview", key, request, "application/json")
    return Response(answer.body, media_type=answer.media_type)


def _prepared_key(context: Context, who: Principal, reference: str) -> str:
    # a session of its own: none is held while a worker draws
    with reading(context.sessions) as session:
        dataset = service.find(session, who, reference)
        if dataset.state != "ready" or dataset.prepared_key is None:
            raise HttpProblem(409, "not_ready", f"The dataset is {dataset.state}; only a ready one has a preview.")
        if dataset.kind == "weights":
            raise HttpProblem(409, "no_samples", "The dataset holds weights, which have no preview; see its report.")
        return dataset.prepared_key

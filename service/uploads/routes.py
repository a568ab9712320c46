"""HTTP of uploads: tus 1.0 (https://tus.io) for its clients, and JSON for people and scripts."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from email.utils import format_datetime
from typing import Annotated, Any, get_args

from anyio import to_thread
from fastapi import APIRouter, Depends, Header, Request, Response

from service.auth import Reader, Writer
from service.context import Context, Service
from service.errors import HttpProblem
from service.listing.filters import ChoiceFilter, CreatedFilter, ExactFilter, TextFilter, TimeFilter
from service.listing.query import ListOf, ListQuery, SortField
from service.listing.repository import page
from service.pagination import Page
from service.principal import Principal
from service.request_sessions import ReadSession, SessionRoute
from service.uploads import metadata, service
from service.uploads.schemas import UploadOut, UploadState, upload_out
from service.uploads.tables import Upload

VERSION = "1.0.0"
EXTENSIONS = "creation,creation-with-upload,creation-defer-length,checksum,termination,expiration"
CHUNK = "application/offset+octet-stream"
DATASET = "Trainkit-Dataset"
"""Response header of an upload whose dataset was created: the dataset's id."""
BODY: dict[str, Any] = {"content": {CHUNK: {"schema": {"type": "string", "format": "binary"}}}}


class TusRoute(SessionRoute):
    """Adds the version of the protocol to every response and problem."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def versioned(request: Request) -> Response:
            try:
                response = await handle(request)
            except HttpProblem as problem:
                problem.headers["Tus-Resumable"] = VERSION
                raise
            response.headers["Tus-Resumable"] = VERSION
            return response

        return versioned


router = APIRouter(prefix="/v1/uploads", tags=["uploads"], route_class=TusRoute)
Text = Annotated[str | None, Header()]


def _check_version(tus_resumable: Annotated[str | None, Header()] = None) -> None:
    if tus_resumable != VERSION:
        detail = f"This service implements tus {VERSION}: send `Tus-Resumable: {VERSION}`."
        raise HttpProblem(412, "tus_version", detail, headers={"Tus-Version": VERSION})


TusVersion = Annotated[None, Depends(_check_version)]
"""Checked after the key's scope and before everything else."""


@router.options("", status_code=204, summary="Version and extensions of tus")
def get_upload_options(who: Writer, context: Service, response: Response) -> None:
    """Headers say which versions, extensions and checksum algorithms of tus are known, and the largest file that is
    taken.
    """
    response.headers["Tus-Version"] = VERSION
    response.headers["Tus-Extension"] = EXTENSIONS
    response.headers["Tus-Max-Size"] = str(context.settings.max_upload_bytes)
    response.headers["Tus-Checksum-Algorithm"] = ",".join(metadata.ALGORITHMS)


@router.post(
    "",
    status_code=201,
    response_model=UploadOut,
    openapi_extra={"requestBody": {**BODY, "required": False}},
    summary="Begin a resumable upload (tus creation, creation-with-upload)",
)
async def create_upload(
    request: Request,
    response: Response,
    who: Writer,
    version: TusVersion,
    context: Service,
    upload_length: Text = None,
    upload_defer_length: Text = None,
    upload_metadata: Text = None,
    upload_checksum: Text = None,
) -> UploadOut:
    """Creates an upload for a file of `Upload-Length` bytes, or of a length that a later request says. Its address is
    in `Location`. A body of type `application/offset+octet-stream` is taken as the first bytes. `Upload-Metadata` names
    the dataset that the finished upload becomes.

    413 for a length beyond the limit or the quota, 429 with too many unfinished uploads, 412 for another version of
    tus.
    """
    length = metadata.number("Upload-Length", upload_length)
    if (length is None) == (upload_defer_length is None) or upload_defer_length not in (None, "1"):
        hint = "Send Upload-Length: <bytes>, or Upload-Defer-Length: 1."
        raise metadata.refuse(
            "Upload-Length", "length_needed", "exactly one of Upload-Length and Upload-Defer-Length is needed.", hint
        )
    declared = metadata.dataset_metadata(upload_metadata)
    upload = await to_thread.run_sync(service.create, context, who, length, upload_metadata or "", declared)
    response.headers["Location"] = f"/v1/uploads/{upload.id}"
    if _media_type(request) == CHUNK:
        upload = await _take(request, context, who, upload.id, 0, None, upload_checksum)
    _describe(response, upload)
    return upload_out(upload)


UPLOADS = ListOf(
    Upload.id,
    UploadOut,
    sorts=[SortField("created_at", Upload.id)],
    filters=[
        ChoiceFilter("state", Upload.state, choices=get_args(UploadState)),
        TextFilter("name", Upload.name),
        ExactFilter("dataset", Upload.dataset_id),
        CreatedFilter(column=Upload.created_at, ids=Upload.id, prefix="up"),
        TimeFilter("updated_at", Upload.updated_at),
    ],
)


@router.get("", response_model=Page[UploadOut], summary="List uploads, newest first")
def list_uploads(who: Reader, session: ReadSession, query: Annotated[ListQuery, Depends(UPLOADS.query)]) -> Response:
    """Uploads under way, and those that have become a dataset or failed. Expired ones are cleared away."""
    return query.respond(page(session, query, Upload.project_id == who.project_id), upload_out)


@router.get("/{upload_id}", response_model=UploadOut, summary="One upload and its dataset")
def get_upload(upload_id: str, who: Reader, context: Service, response: Response) -> UploadOut:
    """State, bytes received, and the dataset once there is one. Also for an upload that has expired or failed."""
    upload = service.find(context, who, upload_id, usable=False)
    _describe(response, upload)
    return upload_out(upload)


@router.head("/{upload_id}", response_class=Response, summary="Offset of an upload (tus)")
def head_upload(upload_id: str, who: Writer, version: TusVersion, context: Service) -> Response:
    """`Upload-Offset` says how many bytes are stored: the next body goes on there. 410 for an upload that has expired
    or failed.
    """
    upload = service.find(context, who, upload_id)
    response = Response()
    _describe(response, upload)
    return response


@router.patch(
    "/{upload_id}",
    status_code=204,
    openapi_extra={"requestBody": BODY},
    summary="Send the bytes from an offset on (tus)",
)
async def patch_upload(
    upload_id: str,
    request: Request,
    response: Response,
    who: Writer,
    version: TusVersion,
    context: Service,
    upload_offset: Text = None,
    upload_length: Text = None,
    upload_checksum: Text = None,
) -> None:
    """Appends the body at `Upload-Offset`. What came before a lost connection is kept. The last byte creates the
    dataset, whose id is in `Trainkit-Dataset`.

    409 for another offset than the upload has, 423 while another request writes to it, 460 when `Upload-Checksum` does
    not match, 410 when it has expired or failed.
    """
    offset = metadata.number("Upload-Offset", upload_offset)
    if offset is None:
        raise metadata.refuse("Upload-Offset", "offset_needed", "is missing.", "Ask for it with HEAD.")
    if _media_type(request) != CHUNK:
        raise HttpProblem(415, "unsupported_media_type", f"Send the bytes with Content-Type: {CHUNK}.")
    length = metadata.number("Upload-Length", upload_length)
    _describe(response, await _take(request, context, who, upload_id, offset, length, upload_checksum))


@router.post(
    "/{upload_id}",
    status_code=204,
    openapi_extra={"requestBody": BODY},
    summary="PATCH for clients that cannot send it (X-HTTP-Method-Override)",
)
async def post_upload(
    upload_id: str,
    request: Request,
    response: Response,
    who: Writer,
    version: TusVersion,
    context: Service,
    x_http_method_override: Text = None,
    upload_offset: Text = None,
    upload_length: Text = None,
    upload_checksum: Text = None,
) -> None:
    """The same as `PATCH`, with `X-HTTP-Method-Override: PATCH`; without that header it is 400."""
    if x_http_method_override != "PATCH":
        detail = "POST to an upload stands for PATCH: send `X-HTTP-Method-Override: PATCH`."
        raise HttpProblem(400, "override_needed", detail)
    await patch_upload(
        upload_id, request, response, who, version, context, upload_offset, upload_length, upload_checksum
    )


@router.delete("/{upload_id}", status_code=204, summary="Cancel an upload (tus termination)")
def delete_upload(upload_id: str, who: Writer, version: TusVersion, context: Service) -> None:
    """Deletes the upload and its bytes. A dataset that was made of it stays. 423 while another request writes to it."""
    service.terminate(context, who, upload_id)


async def _take(
    request: Request,
    context: Context,
    who: Principal,
    upload_id: str,
    offset: int,
    length: int | None,
    checksum: str | None,
) -> Upload:
    """Write the request's body at `offset` and return the upload after it."""
    expected = metadata.checksum(checksum)
    body = metadata.number("Content-Length", request.headers.get("content-length"))
    upload = await to_thread.run_sync(service.find, context, who, upload_id)
    if upload.state == "finished" and offset == upload.received and not body:
        return upload
    writer = await to_thread.run_sync(service.open_writer, context, who, upload_id, offset, length, expected)
    try:
        writer.expect(body)
        await writer.take(request.receive)
    finally:
        writer.close()
    return await to_thread.run_sync(service.find, context, who, upload_id)


def _media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def _describe(response: Response, upload: Upload) -> None:
    response.headers["Upload-Offset"] = str(upload.received)
    if upload.length is None:
        response.headers["Upload-Defer-Length"] = "1"
    else:
        response.headers["Upload-Length"] = str(upload.length)
    if upload.metadata_header:
        response.headers["Upload-Metadata"] = upload.metadata_header
    if upload.state == "uploading":
        response.headers["Upload-Expires"] = format_datetime(upload.expires_at, usegmt=True)
    if upload.dataset_id is not None:
        response.headers[DATASET] = upload.dataset_id
    response.headers["Cache-Control"] = "no-store"

"""HTTP of models: list, look, edit, download, predict."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from anyio import to_thread
from fastapi import APIRouter, Depends, Header, Query, Request, Response
from fastapi.responses import FileResponse, StreamingResponse
from sqlalchemy.orm import Session

from service.auth import Reader, Writer
from service.conditional_requests import require_match, tag_of
from service.context import Context, Service
from service.inference_requests.request_file import received_body
from service.listing.filters import (
    CreatedFilter,
    ExactFilter,
    LabelFilter,
    MetricFilter,
    NumberFilter,
    TextFilter,
    TimeFilter,
)
from service.listing.query import ListOf, ListQuery, SortField
from service.listing.repository import page
from service.models import service
from service.models.file_digests import sha256_of_single
from service.models.schemas import ModelEvaluationOut, ModelOut, ModelPatch, ModelRow, PredictionsOut, model_out
from service.models.single_file import MEDIA_TYPE as SAFETENSORS
from service.models.single_file import SingleFileResponse
from service.models.tables import Model
from service.pagination import NOT_MODIFIED, Page
from service.registry import repository as names
from service.registry.addresses import ModelReference
from service.request_sessions import ReadSession, SessionRoute, WriteSession
from trainkit.spec.metrics import DIRECTIONS

router = APIRouter(prefix="/v1/models", tags=["models"], route_class=SessionRoute)
IgnoreExtra = Annotated[bool, Query(description="Tables: allow columns that the model does not know.")]
Target = Annotated[
    str | None, Query(max_length=300, description="Tables: the column with the answers, if it has another name.")
]
DOWNLOAD: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {
            kind: {"schema": {"type": "string", "format": "binary"}}
            for kind in (SAFETENSORS, "application/zip", "application/octet-stream")
        },
        "description": "The model's files",
    },
    **NOT_MODIFIED,
}
IMAGE_FORM = {
    "type": "object",
    "properties": {"image": {"type": "string", "format": "binary"}, "columns": {"type": "object"}},
    "required": ["image", "columns"],
}
"""An image and the columns of its table, for a multimodal model."""
INPUTS = {"$ref": "#/components/schemas/PredictIn"}
BINARY = {"type": "string", "format": "binary"}
PREDICT_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": INPUTS},
            "image/png": {"schema": BINARY},
            "multipart/form-data": {"schema": IMAGE_FORM},
            "application/zip": {"schema": BINARY},
            "text/csv": {"schema": {"type": "string"}},
            "text/tab-separated-values": {"schema": {"type": "string"}},
            "application/x-ndjson": {"schema": {"type": "string"}},
            "application/vnd.apache.parquet": {"schema": BINARY},
            "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": {
                "schema": {"type": "string", "format": "binary"}
            },
        },
    }
}
EVALUATE_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": {"$ref": "#/components/schemas/EvaluationRequest"}},
            "application/zip": {"schema": BINARY},
            "multipart/form-data": {"schema": IMAGE_FORM},
            "application/octet-stream": {"schema": BINARY},
            "text/csv": {"schema": {"type": "string"}},
        },
    }
}


MODELS = ListOf(
    Model.id,
    ModelOut,
    sorts=[
        SortField("created_at", Model.id),
        SortField("metrics.", Model.metrics, "number", nullable=True, known=tuple(DIRECTIONS)),
    ],
    filters=[
        TextFilter("name", Model.name),
        NumberFilter("version", Model.version),
        ExactFilter("kind", Model.kind, max_length=40),
        ExactFilter("job", Model.job_id),
        NumberFilter("bytes", Model.bytes),
        LabelFilter(column=Model.labels),
        MetricFilter(column=Model.metrics, known=tuple(DIRECTIONS)),
        CreatedFilter(column=Model.created_at, ids=Model.id, prefix="mdl"),
        TimeFilter("updated_at", Model.updated_at),
    ],
    default_fields=",".join(ModelRow.model_fields),
)


@router.get("", response_model=Page[ModelRow], summary="List models, newest first")
def list_models(who: Reader, session: ReadSession, query: Annotated[ListQuery, Depends(MODELS.query)]) -> Response:
    """A row has neither `lineage` nor `manifest` unless `fields` asks for them."""
    found = page(session, query, Model.project_id == who.project_id)
    aliases = names.aliases_of(session, [row.id for row in found.rows])
    return query.respond(found, lambda row: model_out(row, aliases[row.id]))


@router.get("/{model}", response_model=ModelOut, summary="One model")
def get_model(reference: ModelReference, who: Reader, session: ReadSession) -> ModelOut:
    """Metrics, size, lineage, manifest, notes and aliases. `model` is an id, `name` (the newest version),
    `name:version` or `name@alias`.
    """
    return out(session, service.find(session, who, reference))


IfMatch = Annotated[str | None, Header(description="ETag of the model as the client has seen it.")]


def out(session: Session, row: Model) -> ModelOut:
    """The model with its aliases."""
    return model_out(row, names.aliases_of(session, [row.id])[row.id])


@router.patch("/{model}", response_model=ModelOut, summary="Change a model's name, notes or labels")
def update_model(
    reference: ModelReference, who: Writer, session: WriteSession, body: ModelPatch, if_match: IfMatch = None
) -> ModelOut:
    """A JSON merge patch (RFC 7396): what is left out stays, null removes notes or a label.

    Another name gives the model the next version of that name. One with an alias cannot be renamed: 409.
    With `If-Match` only while the model is as that answer showed it: 412 otherwise.
    """
    if if_match is not None:
        model = service.find_locked(session, who, reference)
        require_match(if_match, tag_of(out(session, model).model_dump_json(by_alias=True).encode()), "model")
    return out(session, service.change(session, who, reference, body))


@router.get("/{model}/download", responses=DOWNLOAD, response_class=StreamingResponse, summary="The model's files")
async def download_model(
    reference: ModelReference,
    who: Reader,
    context: Service,
    format: Literal["safetensors", "zip", "onnx"] = "safetensors",
) -> Response:
    """`safetensors` is one file with the manifest in its metadata (`manifest`, JSON), as `trainkit.load_model` and
    `safetensors.torch.load_file` read it; `zip` the folder with `model.safetensors` and `model.json`. The ONNX file is
    written by a worker when it is first asked for: 409 for a model that ONNX cannot express. An ensemble is several
    networks: `zip`, or 409. The safetensors and the ONNX file can be read in parts with `Range`, and
    `Repr-Digest` has the hash of the whole.
    """
    stored = await to_thread.run_sync(service.stored, context, who, reference)
    folder = await to_thread.run_sync(service.folder_of, context, stored)
    if format == "safetensors":
        return await to_thread.run_sync(_single_file, context, stored)
    if format == "onnx":
        path, headers = await service.onnx_file(context, who, stored)
        return FileResponse(path, media_type="application/octet-stream", filename=f"{stored.id}.onnx", headers=headers)
    headers = {"Content-Disposition": f'attachment; filename="{stored.id}.zip"', **stored.header}
    return StreamingResponse(service.archive(folder), media_type="application/zip", headers=headers)


def _single_file(context: Context, stored: service.StoredModel) -> Response:
    single = service.single_file_of(context, stored)
    sha256 = sha256_of_single(stored.digests, single)
    return SingleFileResponse(single, f"{stored.id}.safetensors", sha256, stored.header)


@router.post(
    "/{model}/predict", response_model=PredictionsOut, openapi_extra=PREDICT_BODY, summary="Predict with a model"
)
async def predict(
    reference: ModelReference, request: Request, who: Reader, context: Service, ignore_extra: IgnoreExtra = False
) -> Response:
    """Rows of a table are read as the training file was: its delimiter, missing words, separators and date formats.

    A multimodal model reads an image and the columns of its table: as a form, as `{"image": "<base64>", "columns": {...}}`
    in `inputs`, or as an archive of images with one table that names them.
    """
    stored = await to_thread.run_sync(service.stored, context, who, reference)  # before the body is read
    key, content_type = stored.storage_key, request.headers.get("content-type", "")
    async with received_body(request, context.storage) as body:
        predictions = await service.predict(context, who, key, body, content_type, ignore_extra=ignore_extra)
    return Response(predictions, media_type="application/json", headers=stored.header)


@router.post(
    "/{model}/evaluate",
    response_model=ModelEvaluationOut,
    response_model_exclude_unset=True,  # only some models have an ablation
    openapi_extra=EVALUATE_BODY,
    summary="Evaluate a model on labelled data",
)
async def evaluate_model(
    reference: ModelReference,
    request: Request,
    response: Response,
    who: Reader,
    context: Service,
    target: Target = None,
    ignore_extra: IgnoreExtra = False,
) -> dict[str, Any]:
    """Metrics as in the job's own evaluation. Labels are matched with the model's classes by name.

    A dataset is named as JSON. A file is read as predict reads rows of a table, and as an upload where the model is one
    of images, arrays or sequences.
    """
    stored = await to_thread.run_sync(service.stored, context, who, reference)  # before the body is read
    response.headers.update(stored.header)
    options: dict[str, Any] = {"target": target, "ignore_extra": ignore_extra}
    async with received_body(request, context.storage) as body:
        content_type = request.headers.get("content-type", "")
        return await service.evaluate(context, who, stored.id, body, content_type, **options)


@router.delete("/{model}", status_code=204, summary="Delete a model")
def delete_model(reference: ModelReference, who: Writer, context: Service, session: WriteSession) -> None:
    """Deletes the model and its files; the job stays. 409 (`aliased`) while an alias points to it."""
    service.delete(session, context, who, reference)

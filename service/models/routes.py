"""HTTP of models: list, look, download, predict."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from anyio import to_thread
from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import FileResponse, StreamingResponse
from pydantic import BaseModel

from service.auth import Reader, Writer
from service.context import Service
from service.models import repository, service
from service.models.schemas import ModelEvaluationOut
from service.models.tables import Model
from service.pagination import After, Limit, Page, page
from service.request_sessions import ReadSession, SessionRoute, WriteSession

router = APIRouter(prefix="/v1/models", tags=["models"], route_class=SessionRoute)
IgnoreExtra = Annotated[bool, Query(description="Tables: allow columns that the model does not know.")]
Target = Annotated[
    str | None, Query(max_length=300, description="Tables: the column with the answers, if it has another name.")
]
DOWNLOAD: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/zip": {}}, "description": "The model's files"}
}
IMAGE_FORM: dict[str, Any] = {
    "type": "object",
    "properties": {"image": {"type": "string", "format": "binary"}, "columns": {"type": "object"}},
    "required": ["image", "columns"],
}
"""An image and the columns of its table, for a multimodal model."""
PREDICT_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {"type": "object", "properties": {"inputs": {"type": "array"}}, "required": ["inputs"]}
            },
            "image/png": {"schema": {"type": "string", "format": "binary"}},
            "multipart/form-data": {"schema": IMAGE_FORM},
            "application/zip": {"schema": {"type": "string", "format": "binary"}},
            "text/csv": {"schema": {"type": "string"}},
            "text/tab-separated-values": {"schema": {"type": "string"}},
            "application/x-ndjson": {"schema": {"type": "string"}},
            "application/vnd.apache.parquet": {"schema": {"type": "string", "format": "binary"}},
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
            "application/json": {
                "schema": {
                    "anyOf": [
                        {"$ref": "#/components/schemas/EvaluateIn"},
                        {"type": "object", "properties": {"inputs": {"type": "array"}}, "required": ["inputs"]},
                    ]
                }
            },
            "application/zip": {"schema": {"type": "string", "format": "binary"}},
            "multipart/form-data": {"schema": IMAGE_FORM},
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
            "text/csv": {"schema": {"type": "string"}},
        },
    }
}


class ModelOut(BaseModel):
    """A trained model."""

    id: str
    job: str | None
    name: str
    kind: str
    metrics: dict[str, Any]
    manifest: dict[str, Any]
    bytes: int
    created_at: datetime


class PredictionsOut(BaseModel):
    """One entry an input: `{label, probabilities}` for classes, `{value}` for numbers.

    Rows of a table also have `warnings`: a list of `{column, code, message}`, code unseen_category (a category that the
    training part did not have), imputed (a missing value that was filled) or out_of_range (a number or date far outside
    the training part's).
    """

    predictions: list[dict[str, Any]]


def model_out(row: Model) -> ModelOut:
    """A row as scripts read it."""
    return ModelOut(
        id=row.id,
        job=row.job_id,
        name=row.name,
        kind=row.kind,
        metrics=row.metrics,
        manifest=row.manifest,
        bytes=row.bytes,
        created_at=row.created_at,
    )


@router.get("", response_model=Page[ModelOut], summary="List models, newest first")
def list_models(who: Reader, session: ReadSession, limit: Limit = 50, after: After = None) -> dict[str, Any]:
    return page(repository.listing(session, who.project_id, limit, after), limit, model_out)


@router.get("/{model_id}", response_model=ModelOut, summary="One model")
def get_model(model_id: str, who: Reader, session: ReadSession) -> ModelOut:
    return model_out(service.find(session, who, model_id))


@router.get("/{model_id}/download", responses=DOWNLOAD, response_class=StreamingResponse, summary="The model's files")
async def download_model(
    model_id: str, who: Reader, context: Service, format: Literal["safetensors", "onnx"] = "safetensors"
) -> Response:
    """The ONNX file is made by a worker when it is first asked for."""
    key, folder = await to_thread.run_sync(service.files_of, context, who, model_id)
    if format == "onnx":
        path = await service.onnx_file(context, who, key)
        return FileResponse(path, media_type="application/octet-stream", filename=f"{model_id}.onnx")
    headers = {"Content-Disposition": f'attachment; filename="{model_id}.zip"'}
    return StreamingResponse(service.archive(folder), media_type="application/zip", headers=headers)


@router.post(
    "/{model_id}/predict", response_model=PredictionsOut, openapi_extra=PREDICT_BODY, summary="Predict with a model"
)
async def predict(
    model_id: str, request: Request, who: Reader, context: Service, ignore_extra: IgnoreExtra = False
) -> Response:
    """Rows of a table are read as the training file was: its delimiter, missing words, separators and date formats.

    A multimodal model reads an image and the columns of its table: as a form, as `{"image": "<base64>", "columns": {...}}`
    in `inputs`, or as an archive of images with one table that names them.
    """
    key = await to_thread.run_sync(service.storage_key, context, who, model_id)  # before the body is read
    body, content_type = await request.body(), request.headers.get("content-type", "")
    predictions = await service.predict(context, who, key, body, content_type, ignore_extra=ignore_extra)
    return Response(predictions, media_type="application/json")


@router.post(
    "/{model_id}/evaluate",
    response_model=ModelEvaluationOut,
    response_model_exclude_unset=True,  # only some models have an ablation
    openapi_extra=EVALUATE_BODY,
    summary="Evaluate a model on labelled data",
)
async def evaluate(
    model_id: str,
    request: Request,
    who: Reader,
    context: Service,
    target: Target = None,
    ignore_extra: IgnoreExtra = False,
) -> dict[str, Any]:
    """Metrics as in the job's own evaluation. Labels are matched with the model's classes by name.

    A dataset is named as JSON. A file is read as predict reads rows of a table, and as an upload where the model is one
    of images, arrays or sequences.
    """
    await to_thread.run_sync(service.storage_key, context, who, model_id)  # before the body is read
    body, content_type = await request.body(), request.headers.get("content-type", "")
    return await service.evaluate(context, who, model_id, body, content_type, target=target, ignore_extra=ignore_extra)


@router.delete("/{model_id}", status_code=204, summary="Delete a model")
def delete_model(model_id: str, who: Writer, context: Service, session: WriteSession) -> None:
    service.delete(session, context, who, model_id)

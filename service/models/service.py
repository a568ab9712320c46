"""Rules of models: find, edit, download, ask for predictions."""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from anyio import to_thread
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from sqlalchemy.orm import Session

from service.body_limits import BODY_BYTES
from service.content_digests import repr_digest
from service.context import Context
from service.database import after_commit, reading
from service.datasets import service as datasets
from service.errors import HttpProblem
from service.inference_requests.request_file import ReceivedBody
from service.inference_requests.service import infer
from service.labels import merged_labels
from service.models import repository
from service.models.file_digests import ONNX, sha256_of_onnx
from service.models.references import MODELS
from service.models.schemas import EvaluateIn, ModelPatch
from service.models.single_file import DamagedFileError, SingleFile, single_file
from service.models.tables import Model
from service.principal import Principal
from service.registry import service as registry
from service.request_body import PARSERS, read_json
from trainkit.spec.json_errors import json_reason

FILES = ("model.json", "model.safetensors")
OTHER_TYPES = (
    *("text/csv", "text/plain", "text/tab-separated-values", "text/tsv"),
    *("application/x-ndjson", "application/ndjson", "application/jsonl", "application/x-jsonlines"),
    *("application/vnd.apache.parquet", "application/x-parquet", "application/parquet", "application/octet-stream"),
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
)
"""As in `trainkit.data.table.request_rows`, which the API does not load."""
ARCHIVE_TYPES = (
    "application/zip",
    "application/x-zip-compressed",
    "application/x-tar",
    "application/gzip",
    "application/x-gzip",
)
FORM = "multipart/form-data"
CHARSET = re.compile(r';\s*charset="?(?P<name>[A-Za-z0-9_.:-]{1,40})', re.IGNORECASE)
BOUNDARY = re.compile(r';\s*boundary=(?:"(?P<quoted>[^"\r\n]{1,200})"|(?P<bare>[^\s;"]{1,200}))', re.IGNORECASE)
SEND = (
    'Send {"inputs": [...]} as application/json, one image as image/png or image/jpeg, or the rows of a table as '
    "text/csv, text/tab-separated-values, application/x-ndjson, application/vnd.apache.parquet or .xlsx as "
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet; to a multimodal model multipart/form-data with "
    "`image` and `columns`, or a zip of images and one table as application/zip."
)
SEND_LABELLED = (
    'Send {"dataset": "ds_..."} as application/json, or labelled samples: the rows of a table as for predict with the '
    "column of the answers, or a file as for an upload, such as a zip of class folders as application/zip."
)


def find(session: Session, who: Principal, reference: str) -> Model:
    """The project's model of that id, name, `name:version` or `name@alias`. Raises a 404 problem."""
    return registry.find(session, who.project_id, MODELS, reference)


def delete(session: Session, context: Context, who: Principal, reference: str) -> None:
    """Delete a model and its files. Raises a 404 problem, and 409 while it has an alias."""
    model = find(session, who, reference)
    registry.check_not_aliased(session, who.project_id, MODELS, model, "deleted")
    after_commit(session, partial(context.storage.delete, model.storage_key))
    repository.delete(session, model)


def find_locked(session: Session, who: Principal, reference: str) -> Model:
    """The model, locked until the transaction ends. Raises a 404 problem."""
    model = find(session, who, reference)
    session.refresh(model, with_for_update=True)
    return model


def change(session: Session, who: Principal, reference: str, patch: ModelPatch) -> Model:
    """Apply a merge patch of name, notes and labels. Raises a 404 problem, and 409 to rename one with an alias."""
    model = find(session, who, reference)
    changes: dict[str, Any] = {}
    if patch.name is not None and patch.name != model.name:
        version = registry.rename(session, who.project_id, MODELS, model, patch.name)
        changes = {"name": patch.name, "version": version}
    if "notes" in patch.model_fields_set and patch.notes != model.notes:
        changes["notes"] = patch.notes
    if patch.labels is not None and (labels := merged_labels(model.labels, patch.labels)) != model.labels:
        changes["labels"] = labels
    if changes:
        repository.update_model(session, model.id, changes)
        session.refresh(model)
    return model


@dataclass(frozen=True, slots=True)
class StoredModel:
    """The model that a reference meant when it was asked for."""

    id: str
    storage_key: str
    digests: dict[str, Any] | None = None

    @property
    def header(self) -> dict[str, str]:
        """The header that names it in an answer."""
        return {"Trainkit-Model": self.id}


def stored(context: Context, who: Principal, reference: str) -> StoredModel:
    """Where the model's files are. Raises a 404 problem."""
    with reading(context.sessions) as session:
        model = find(session, who, reference)
        return StoredModel(model.id, model.storage_key, model.digests)


async def predict(
    context: Context, who: Principal, key: str, body: ReceivedBody, content_type: str, *, ignore_extra: bool
) -> bytes:
    """`{predictions: [...]}` as JSON from a worker, of the model whose files are at `key`.

    Raises the worker's problem, or our own for what is plainly no input.
    """
    kind = await to_thread.run_sync(check_request, body.start, content_type, limiter=PARSERS)
    options: dict[str, Any] = {"ignore_extra": ignore_extra, **_parameters(content_type)}
    return (await infer(context, who, "predict", key, body, kind, options)).body


async def evaluate(
    context: Context,
    who: Principal,
    model_id: str,
    body: ReceivedBody,
    content_type: str,
    *,
    target: str | None,
    ignore_extra: bool,
) -> dict[str, Any]:
    """The metrics of a model on a dataset, or on a file, from a worker. Raises the worker's problem, or our own."""
    kind = labelled_type(body.start, content_type)
    options: dict[str, Any] = {"target": target, "ignore_extra": ignore_extra, **_parameters(content_type)}
    named = None
    if kind == "application/json":
        named = await to_thread.run_sync(_named_dataset, body.start, limiter=PARSERS)

    def where() -> str:
        with reading(context.sessions) as session:
            model = find(session, who, model_id)
            if named is not None:
                dataset = datasets.find(session, who, named.dataset.id)
                if dataset.state != "ready" or dataset.prepared_key is None or dataset.kind == "weights":
                    state = "of weights" if dataset.kind == "weights" else dataset.state
                    detail = f"The dataset is {state}; a model is evaluated on a ready one with samples."
                    raise HttpProblem(409, "not_ready", detail)
                training_dataset = model.manifest.get("spec", {}).get("dataset", {}).get("id")
                options.update(dataset_key=dataset.prepared_key, is_training_dataset=dataset.id == training_dataset)
                options.update(part=named.part, target=named.dataset.target or target)
            return model.storage_key

    key = await to_thread.run_sync(where)
    request = b"{}" if named is not None else body
    answer = await infer(context, who, "evaluate", key, request, kind, options)
    evaluation: dict[str, Any] = json.loads(answer.body)
    return evaluation


def _parameters(content_type: str) -> dict[str, str]:
    """`charset` and `boundary` of a media type, where it has them."""
    found: dict[str, str] = {}
    if charset := CHARSET.search(content_type):
        found["charset"] = charset["name"]
    if boundary := BOUNDARY.search(content_type):
        found["boundary"] = boundary["quoted"] or boundary["bare"]
    return found


def labelled_type(body: bytes, content_type: str) -> str:
    """The media type to read labelled samples as. Raises a 415 or 422 problem for what no worker need look at."""
    kind = content_type.partition(";")[0].strip().lower()
    if not body:
        raise HttpProblem(422, "empty", f"The body is empty. {SEND_LABELLED}")
    if kind in ("", "application/x-www-form-urlencoded"):  # what curl says when it is told nothing
        return "application/json" if body.lstrip()[:1] == b"{" else "application/octet-stream"
    if kind == "application/json" or kind.endswith("+json"):
        return "application/json"
    if kind not in (*OTHER_TYPES, *ARCHIVE_TYPES, FORM):
        raise HttpProblem(415, "unsupported_media_type", f"Bodies of type {kind[:80]!r} are not read. {SEND_LABELLED}")
    return kind


def _named_dataset(body: bytes) -> EvaluateIn | None:
    """The dataset that a JSON body names; None for one with rows. Raises a 422 problem for what is neither."""
    if len(body) > BODY_BYTES:
        return None  # rows, which the worker reads
    try:
        document = read_json(body)
    except (ValueError, RecursionError) as error:
        raise HttpProblem(422, "not_json", f"The body is not JSON: {json_reason(error)}. {SEND_LABELLED}") from None
    if isinstance(document, dict) and isinstance(document.get("inputs"), list):
        return None
    if not isinstance(document, dict) or "dataset" not in document:
        message = "the body has neither `dataset` nor a list `inputs`"
        item = {"pointer": "/dataset", "code": "missing", "message": message, "hint": SEND_LABELLED}
        raise HttpProblem(422, "invalid_input", message, errors=[item])
    try:
        return EvaluateIn.model_validate(document)
    except ValidationError as error:
        items = error.errors(include_url=False)
        raise RequestValidationError([{**item, "loc": ("body", *item["loc"])} for item in items]) from None


def check_request(body: bytes, content_type: str) -> str:
    """The media type to read the body as. Raises a 415 or 422 problem for what no worker need look at."""
    kind = content_type.partition(";")[0].strip().lower()
    if not body:
        raise HttpProblem(422, "empty", f"The body is empty. {SEND}")
    if kind in ("", "application/x-www-form-urlencoded"):  # what curl says when it is told nothing
        kind = "application/json"
    if kind == "application/json" or kind.endswith("+json"):
        if len(body) > BODY_BYTES:
            return kind  # the worker reads it: it would hold the interpreter here for seconds
        try:
            document = read_json(body)
        except (ValueError, RecursionError) as error:
            raise HttpProblem(422, "not_json", f"The body is not JSON: {json_reason(error)}. {SEND}") from None
        if not isinstance(document, dict) or not isinstance(document.get("inputs"), list):
            message = "the body has no list `inputs`"
            item = {"pointer": "/inputs", "code": "missing", "message": message, "hint": SEND}
            raise HttpProblem(422, "invalid_input", message, errors=[item])
    elif not kind.startswith("image/") and kind not in (*OTHER_TYPES, *ARCHIVE_TYPES, FORM):
        raise HttpProblem(415, "unsupported_media_type", f"Bodies of type {kind[:80]!r} are not read. {SEND}")
    return kind


GONE = "The model's files are gone from storage."


def folder_of(context: Context, model: StoredModel) -> Path:
    """The folder of the model's files. Raises a 404 problem when they are gone."""
    folder = context.storage.local_path(model.storage_key)
    if not (folder / "model.json").exists():
        raise HttpProblem(404, "files_missing", GONE)
    return folder


def single_file_of(context: Context, model: StoredModel) -> SingleFile:
    """The model as one safetensors file. Raises a 404 problem without it, 409 of an ensemble."""
    folder = folder_of(context, model)
    if not (folder / "model.safetensors").exists():
        if (folder / "member-0").exists():
            detail = "An ensemble is several networks and has no single file: download it with `format=zip`."
            raise HttpProblem(409, "no_safetensors", detail)
        raise HttpProblem(404, "files_missing", GONE)
    try:
        return single_file(folder)
    except (OSError, DamagedFileError) as error:
        detail = f"The model's file in storage is damaged: {error}. Train the model again."
        raise HttpProblem(404, "files_missing", detail) from None


async def onnx_file(context: Context, who: Principal, model: StoredModel) -> tuple[Path, dict[str, str]]:
    """`model.onnx`, made by a worker when it is not there yet, and the headers of its download.

    Raises the worker's problem, or 503 without a worker.
    """
    path = context.storage.local_path(model.storage_key) / ONNX
    if not await to_thread.run_sync(path.exists):
        await infer(context, who, "onnx", model.storage_key, b"{}", "application/json")
        model = await to_thread.run_sync(stored, context, who, model.id)
    return path, {**model.header, **repr_digest(sha256_of_onnx(model.digests))}


def archive(folder: Path) -> Iterator[bytes]:
    """A zip of the model's files, those of an ensemble's members included, as a stream.

    They are stored without compression: weights do not shrink.
    """
    sink = _Sink()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED) as bundle:
        for path in sorted(path for path in folder.rglob("*") if path.name in FILES):
            name = path.relative_to(folder).as_posix()
            with bundle.open(zipfile.ZipInfo(name), "w", force_zip64=True) as entry, path.open("rb") as file:
                while chunk := file.read(1 << 20):
                    entry.write(chunk)
                    yield sink.taken()
    yield sink.taken()


class _Sink(io.RawIOBase):
    """A write-only file that a zip is streamed through."""

    def __init__(self) -> None:
        super().__init__()
        self._parts: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._parts.append(bytes(data))
        return len(data)

    def taken(self) -> bytes:
        """All that was written since the last call."""
        parts, self._parts = self._parts, []
        return b"".join(parts)

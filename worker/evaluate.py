"""From labelled data, a dataset's or a client's file, to a model's metrics, or to a problem that points at the mistake."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from service.metrics.service import finite
from trainkit.spec.read_options import ReadOptions, TargetTask
from worker.image_rows import FORM, read_image_rows
from worker.predict import read_rows
from worker.request_input import BadInputError, is_json, point_at_rows

if TYPE_CHECKING:
    from trainkit.data import Dataset
    from trainkit.data.image_rows import ImageRows
    from trainkit.data.table.request_rows import TableRows
    from trainkit.fit import EnsembleModel, TrainedModel

GZIP_TYPES = ("application/gzip", "application/x-gzip")


def evaluate(model_folder: Path, request: bytes, media_type: str, options: Mapping[str, Any]) -> tuple[bytes, str]:
    """`{split, samples, metrics, per_class, confusion_matrix, classes, warnings}` as JSON. Raises BadInputError.

    `options`: `dataset_folder` of a prepared dataset (without it, `request` is a file with labelled samples), `part`,
    `target`, `is_training_dataset`, `ignore_extra`, and `charset` and `boundary` of the media type.
    """
    from trainkit.fit import evaluate_model, load_model

    model = load_model(model_folder)
    unreadable: list[dict[str, str]] = []
    unlabelled: list[dict[str, str]] = []
    data: Dataset | TableRows | ImageRows
    if folder := options.get("dataset_folder"):
        data = _dataset(Path(folder))
    elif model.table_encoders and model.image_encoders:
        data = read_image_rows(model, request, media_type, options)
    elif model.table_encoders:
        encoder = model.table_encoders[0]
        if media_type in GZIP_TYPES:
            media_type = "application/octet-stream"  # what is inside tells what it is
        data = read_rows(encoder.format, encoder.names, request, media_type, options.get("charset"))
    else:
        data, unreadable, unlabelled = _file(model, request, media_type, options.get("target"))
    answer = point_at_rows(
        lambda: evaluate_model(
            model,
            data,
            target=options.get("target"),
            part=options.get("part") or "all",
            is_training_dataset=bool(options.get("is_training_dataset")),
            ignore_extra=bool(options.get("ignore_extra")),
        ),
        root="dataset" if folder else "inputs",
    )
    answer["warnings"] += [{"code": found["code"], "message": found["message"]} for found in unlabelled]
    if unreadable:
        first, count = unreadable[0], len(unreadable)
        message = f"{count} samples could not be read and are left out, such as {first['where']}: {first['reason']}"
        answer["warnings"].insert(0, {"code": "unreadable", "message": message, "rows": count})
    return json.dumps(finite(answer)).encode(), "application/json"


def _dataset(folder: Path) -> Dataset:
    from trainkit.data import DataError, Dataset

    try:
        return Dataset.load(folder)
    except DataError as error:
        hint = "Upload the dataset again."
        raise BadInputError("not_ready", f"the dataset cannot be read: {error}", "/dataset", hint, 409) from None


def _file(
    model: TrainedModel | EnsembleModel, request: bytes, media_type: str, target: str | None
) -> tuple[Dataset, list[dict[str, str]], list[dict[str, str]]]:
    """(samples of a file that is read as an upload of the model's kind is, those that could not be read, findings of
    those without a label)."""
    if is_json(media_type):
        hint = 'Send {"dataset": "ds_..."}, or a file as for an upload: a zip of class folders, an NPZ with X and y.'
        raise BadInputError("not_a_table", "only the rows of a table are sent as JSON", "/inputs", hint)
    if media_type == FORM:
        hint = "Send the file's bytes as the body, such as a zip as application/zip."
        raise BadInputError("unsupported_media_type", "only a multimodal model reads a form", "", hint, 415)
    from trainkit.data import DataError
    from trainkit.data.load import detect_kind, read

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "upload"
        path.write_bytes(request)
        try:
            kind, _ = detect_kind(path)
            if kind == "table" and model.description.get("task") == "forecasting" and model.sequence_table is None:
                hint = 'Upload it as a dataset and send {"dataset": "ds_..."}: its report says how it was read.'
                message = "the model does not know how the file of its series was read"
                raise BadInputError("not_a_dataset", message, "", hint)
            if kind == "table" and model.description.get("dataset", {}).get("kind") == "sequences":
                kind = "sequences"  # in long form
            data, _, details = read(path, kind=kind, target=target, reading=_reading(model, kind))
        except DataError as error:
            raise BadInputError.of_items(
                [
                    {"pointer": "", "code": one.code, "message": f"{one.where}: {one.message}", "hint": one.hint}
                    for one in error.problems[:20]
                ]
            ) from None
    unlabelled = [found for found in details.get("column_findings") or () if found["code"] == "unlabelled_rows"]
    return data, list(details.get("unreadable") or ()), unlabelled


def _reading(model: TrainedModel | EnsembleModel, kind: str) -> ReadOptions:
    """How a file of that kind is read so that it has the form of the training data."""
    from trainkit.fit.encoding.encode import ImageEncoder
    from trainkit.fit.models.trained_model import TrainedModel

    dataset = model.description.get("dataset", {})
    if kind in ("arrays", "sequences"):
        task: TargetTask = "regression" if model.classes is None else "classification"
        return ReadOptions(task=task, channels=dataset.get("channels") if kind == "arrays" else None)
    first = model
    while not isinstance(first, TrainedModel):
        first = first.members[0]
    if isinstance(first.encoder, ImageEncoder):
        _, height, width = first.encoder.shape
        return ReadOptions(image_size=f"{width}x{height}")
    return ReadOptions()

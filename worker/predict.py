"""From the bytes a client sent to predictions, or to a problem that points at the mistake."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from service.metrics.service import finite
from worker.image_rows import read_image_rows
from worker.request_input import (
    LARGEST_IMAGE_PIXELS,
    BadInputError,
    encoded_image,
    image_of,
    is_json,
    json_inputs,
    point_at_rows,
)

if TYPE_CHECKING:
    from trainkit.data.table.request_rows import TableRows
    from trainkit.data.table.table_format import TableFormat


def predict(model_folder: Path, request: bytes, media_type: str, options: Mapping[str, Any]) -> tuple[bytes, str]:
    """`{predictions: [...]}` as JSON. Raises BadInputError.

    `options`: `ignore_extra` allows columns that the model does not know; `charset` and `boundary` are those of the
    media type.
    """
    from trainkit.fit import load_model

    model = load_model(model_folder)
    ignore_extra, charset, steps = bool(options.get("ignore_extra")), options.get("charset"), model.sequence_table
    if model.table_encoders and model.image_encoders:
        samples = read_image_rows(model, request, media_type, options)
        predictions = point_at_rows(lambda: model.predict(samples, ignore_extra=ignore_extra))
    elif model.table_encoders:
        encoder = model.table_encoders[0]
        rows = read_rows(encoder.format, encoder.names, request, media_type, charset)
        predictions = point_at_rows(lambda: model.predict(rows, ignore_extra=ignore_extra))
    elif steps is not None and not is_json(media_type):
        rows = read_rows(steps.format, [steps.id_column, *steps.features], request, media_type, charset)
        if ignore_extra:
            rows = rows.without(rows.columns.keys() - steps.format.names)
        predictions = point_at_rows(lambda: model.predict(rows))
    else:
        predictions = predict_or_point(model.predict, read_inputs(request, media_type))
    return json.dumps(finite({"predictions": predictions})).encode(), "application/json"


def write_onnx(model_folder: Path, request: bytes, media_type: str, options: Mapping[str, Any]) -> tuple[bytes, str]:
    """Write `model.onnx` into the `output_folder` of the options. Raises BadInputError for what ONNX cannot express."""
    from trainkit.fit import load_model
    from trainkit.fit.models.export import ExportError, export_onnx
    from trainkit.fit.models.trained_model import TrainedModel

    model = load_model(model_folder)
    hint = "Its files are there: `format=zip`."
    if not isinstance(model, TrainedModel):
        raise BadInputError("no_onnx", "an ensemble has no ONNX form of its own; its members have", "", hint, 409)
    try:
        path = export_onnx(model, Path(options["output_folder"]) / "model.onnx")
    except ExportError as error:
        raise BadInputError("no_onnx", str(error), "", hint, 409) from error
    return json.dumps({"bytes": path.stat().st_size}).encode(), "application/json"


def read_rows(
    table: TableFormat, names: Sequence[str], request: bytes, media_type: str, charset: str | None = None
) -> TableRows:
    """The rows of a table: `{"inputs": [...]}`, or a table's file, read as the training file was. Raises BadInputError."""
    from trainkit.data.table.request_rows import TABLE_TYPES, read_request, records_of

    if is_json(media_type):
        inputs = json_inputs(request)
        return point_at_rows(lambda: records_of(inputs, names, strict=True))
    if media_type in TABLE_TYPES:
        return point_at_rows(lambda: read_request(table, request, media_type, names, charset=charset))
    hint = "Send application/json, text/csv, text/tab-separated-values, application/x-ndjson, Parquet or .xlsx."
    raise BadInputError("unsupported_media_type", f"the model reads rows of a table, not {media_type!r}", "", hint, 415)


def read_inputs(request: bytes, media_type: str) -> Any:
    """`{"inputs": [...]}`, whose texts are images as base64, or an image. Raises BadInputError."""
    if is_json(media_type):
        return _with_images(json_inputs(request))
    if media_type.startswith("image/") or media_type == "application/octet-stream":
        return [image_of(request)]
    hint = "Send application/json, image/png or image/jpeg; only models of tables read a table's file."
    raise BadInputError("unsupported_media_type", f"bodies of type {media_type!r} are not read", "", hint, 415)


def _with_images(inputs: list[Any]) -> list[Any]:
    """The samples, with the images of those that are texts; together they have at most as many pixels as one may have."""
    samples, pixels = [], 0
    for row, sample in enumerate(inputs):
        if isinstance(sample, str):
            sample = encoded_image(sample, where=f"/inputs/{row}", what=f"row {row}: the image")
            pixels += sample.width * sample.height
            if pixels > LARGEST_IMAGE_PIXELS:
                message = f"the images up to row {row} have more than {LARGEST_IMAGE_PIXELS:,} pixels together"
                raise BadInputError("too_large", message, f"/inputs/{row}", "Send fewer images in one request.")
        samples.append(sample)
    return samples


def predict_or_point(predict: Callable[[Any], list[dict[str, Any]]], inputs: list[Any]) -> list[dict[str, Any]]:
    """Predictions for all inputs; when one cannot be read, a BadInputError that points at it."""
    try:
        return predict(inputs)
    except (ValueError, TypeError, KeyError, IndexError) as error:
        hint = "Every input has the form of the samples that the model was trained on."
        for number, one in enumerate(inputs):
            try:
                predict([one])
            except (ValueError, TypeError, KeyError, IndexError) as reason:
                message = f"row {number}: {_refusal(reason)}"
                raise BadInputError("invalid_input", message, f"/inputs/{number}", hint) from None
        raise BadInputError("invalid_input", _refusal(error), "/inputs", hint) from None


def _refusal(error: Exception) -> str:
    """The sentence of an InputError; what a library says of its own inside tells a client nothing."""
    from trainkit.data.errors import InputError

    return str(error) if isinstance(error, InputError) else "the sample cannot be read as one of the training data"

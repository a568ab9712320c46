"""From the bytes a client sent to predictions, or to a problem that points at the mistake."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from service.metrics.service import finite

IMAGE_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP")
LARGEST_IMAGE_PIXELS = 64_000_000
JSON_TYPES = ("application/json", "text/json", "")


class BadInputError(Exception):
    """What the client sent cannot be read; `pointer` says where."""

    def __init__(self, code: str, message: str, pointer: str = "", hint: str = "", status: int = 422) -> None:
        super().__init__(message)
        self.error = {"status": status, "code": code, "message": message, "pointer": pointer, "hint": hint}


def predict(model_folder: Path, request: bytes, media_type: str) -> tuple[bytes, str]:
    """`{predictions: [...]}` as JSON. Raises BadInputError."""
    from trainkit.fit import load_model

    inputs = read_inputs(request, media_type)
    answer = {"predictions": predict_or_point(load_model(model_folder).predict, inputs)}
    return json.dumps(finite(answer)).encode(), "application/json"


def write_onnx(model_folder: Path, request: bytes, media_type: str) -> tuple[bytes, str]:
    """Put `model.onnx` beside the model's files, whole or not at all. Raises BadInputError for what ONNX cannot express."""
    from trainkit.fit import load_model
    from trainkit.fit.models.export import ExportError, export_onnx
    from trainkit.fit.models.trained_model import TrainedModel

    model = load_model(model_folder)
    hint = "Its safetensors are there: leave out `format`."
    if not isinstance(model, TrainedModel):
        raise BadInputError("no_onnx", "an ensemble has no ONNX form of its own; its members have", "", hint, 409)
    try:
        path = export_onnx(model, model_folder / "model.onnx")
    except ExportError as error:
        raise BadInputError("no_onnx", str(error), "", hint, 409) from error
    return json.dumps({"bytes": path.stat().st_size}).encode(), "application/json"


def read_inputs(request: bytes, media_type: str) -> Any:
    """`{"inputs": [...]}`, an image, or CSV rows with a header. Raises BadInputError."""
    if media_type in JSON_TYPES or media_type.endswith("+json"):
        return _json_inputs(request)
    if media_type.startswith("image/") or media_type == "application/octet-stream":
        return [_image(request)]
    if media_type in ("text/csv", "text/plain"):
        return _csv_rows(request)
    hint = "Send application/json, image/png, image/jpeg or text/csv."
    raise BadInputError("unsupported_media_type", f"bodies of type {media_type!r} are not read", "", hint, 415)


def _json_inputs(request: bytes) -> list[Any]:
    hint = 'Send {"inputs": [...]}, one entry for each sample.'
    try:
        document = json.loads(request)
    except (ValueError, RecursionError) as error:
        raise BadInputError("invalid_json", f"the body is not JSON: {error}", "", hint) from None
    if not isinstance(document, dict) or "inputs" not in document:
        raise BadInputError("missing", "the body has no `inputs`", "/inputs", hint)
    if unknown := sorted(set(document) - {"inputs"}):
        raise BadInputError("unknown_field", f"there is no field {unknown[0]!r}", f"/{unknown[0]}", hint)
    inputs = document["inputs"]
    if not isinstance(inputs, list) or not inputs:
        raise BadInputError("not_a_list", "`inputs` is a list with at least one sample", "/inputs", hint)
    return inputs


def _image(request: bytes) -> Any:
    from PIL import Image, UnidentifiedImageError

    Image.MAX_IMAGE_PIXELS = LARGEST_IMAGE_PIXELS // 2  # Pillow's error comes at twice its warning
    try:
        image = Image.open(io.BytesIO(request), formats=IMAGE_FORMATS)
        image.load()
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, ValueError, SyntaxError) as error:
        hint = f"Send one image as {', '.join(IMAGE_FORMATS)}."
        raise BadInputError("unreadable_image", f"the body is not a readable image: {error}", "", hint) from None
    return image


def _csv_rows(request: bytes) -> list[dict[str, str | None]]:
    hint = "Send a header line with the column names, then one line for each sample, in UTF-8."
    try:
        text = request.decode("utf-8-sig")
        rows: list[dict[Any, Any]] = list(csv.DictReader(io.StringIO(text, newline=""), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise BadInputError("invalid_csv", f"the body is not CSV: {error}", "", hint) from None
    if not rows:
        raise BadInputError("invalid_csv", "the CSV has no rows below its header", "", hint)
    for number, row in enumerate(rows):
        if None in row:
            message = f"line {number + 2} has more values than the header has names"
            raise BadInputError("invalid_csv", message, f"/inputs/{number}", hint)
    return rows


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
                raise BadInputError("invalid_input", str(reason), f"/inputs/{number}", hint) from None
        raise BadInputError("invalid_input", str(error), "/inputs", hint) from None

"""From the bytes a client sent to predictions, or to a problem that points at the mistake."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from service.metrics.service import finite
from trainkit.data import decoding
from trainkit.data.table.json_rows import unique_keys
from trainkit.spec.json_errors import json_reason
from trainkit.spec.problems import pointer

if TYPE_CHECKING:
    from trainkit.data.table.request_rows import TableRows
    from trainkit.data.table.table_format import TableFormat

IMAGE_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP")
LARGEST_IMAGE_PIXELS = 64_000_000
T = TypeVar("T")
JSON_TYPES = ("application/json", "text/json", "")


class BadInputError(Exception):
    """What the client sent cannot be read; `pointer` says where."""

    def __init__(self, code: str, message: str, pointer: str = "", hint: str = "", status: int = 422) -> None:
        super().__init__(message)
        item = {"pointer": pointer, "code": code, "message": message, "hint": hint}
        self.error: dict[str, Any] = {"status": status, **item, "errors": [item]}

    @classmethod
    def of_items(cls, items: list[dict[str, str]]) -> BadInputError:
        """One refusal for several mistakes: the first one's code, and all of their sentences."""
        first, count = items[0], len(items) - 1
        more = f" (and {count} more problem{'s' if count > 1 else ''})" if count else ""
        refused = cls(first["code"], first["message"] + more, first["pointer"], first["hint"])
        refused.error["errors"] = items
        return refused


def predict(model_folder: Path, request: bytes, media_type: str, options: Mapping[str, Any]) -> tuple[bytes, str]:
    """`{predictions: [...]}` as JSON. Raises BadInputError.

    `options`: `ignore_extra` allows columns that the model does not know; `charset` is that of the media type.
    """
    from trainkit.fit import load_model

    model = load_model(model_folder)
    ignore_extra, charset, steps = bool(options.get("ignore_extra")), options.get("charset"), model.sequence_table
    if model.table_encoders:
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
    hint = "Its safetensors are there: leave out `format`."
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
        inputs = _json_inputs(request)
        return point_at_rows(lambda: records_of(inputs, names, strict=True))
    if media_type in TABLE_TYPES:
        return point_at_rows(lambda: read_request(table, request, media_type, names, charset=charset))
    hint = "Send application/json, text/csv, text/tab-separated-values, application/x-ndjson, Parquet or .xlsx."
    raise BadInputError("unsupported_media_type", f"the model reads rows of a table, not {media_type!r}", "", hint, 415)


def is_json(media_type: str) -> bool:
    """Whether the body is one JSON document."""
    return media_type in JSON_TYPES or media_type.endswith("+json")


def point_at_rows(work: Callable[[], T], *, root: str = "inputs") -> T:
    """Do `work`; an InputError of it becomes a BadInputError that points at the rows, below the field `root`."""
    from trainkit.data.errors import InputError

    try:
        return work()
    except InputError as error:
        items = [
            {
                "pointer": pointer([root, *(part for part in (one.row, one.column) if part is not None)]),
                "code": one.code,
                "message": one.message,
                "hint": one.hint,
            }
            for one in error.problems
        ]
        raise BadInputError.of_items(items) from None


def read_inputs(request: bytes, media_type: str) -> Any:
    """`{"inputs": [...]}` or an image. Raises BadInputError."""
    if is_json(media_type):
        return _json_inputs(request)
    if media_type.startswith("image/") or media_type == "application/octet-stream":
        return [_image(request)]
    hint = "Send application/json, image/png or image/jpeg; only models of tables read a table's file."
    raise BadInputError("unsupported_media_type", f"bodies of type {media_type!r} are not read", "", hint, 415)


def _json_inputs(request: bytes) -> list[Any]:
    hint = 'Send {"inputs": [...]}, one entry for each sample.'
    try:
        document = json.loads(request, object_pairs_hook=unique_keys)
    except (ValueError, RecursionError) as error:
        raise BadInputError("invalid_json", f"the body is not JSON: {json_reason(error)}", "", hint) from None
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
        raise BadInputError(
            "unreadable_image", f"the body is not a readable image: {decoding.reason(error)}", "", hint
        ) from None
    return image


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

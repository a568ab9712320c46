"""From a request to a multimodal model to images with their rows: JSON, a multipart form, or an archive with a table."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from python_multipart.exceptions import ParseError
from python_multipart.multipart import MultipartParser, parse_options_header

from trainkit.data.table.json_rows import unique_keys
from trainkit.spec.json_errors import json_reason
from worker.request_input import BadInputError, encoded_image, image_of, is_json, json_inputs, point_at_rows

if TYPE_CHECKING:
    from trainkit.data.image_rows import ImageRows
    from trainkit.fit import EnsembleModel, TrainedModel

FORM = "multipart/form-data"
ARCHIVE_TYPES = (
    *("application/zip", "application/x-zip-compressed", "application/x-tar", "application/gzip", "application/x-gzip"),
    "application/octet-stream",
)
SEND = (
    'Send multipart/form-data with the parts `image` and `columns` (a JSON object), {"inputs": [{"image": "<base64>", '
    '"columns": {...}}]} as application/json, or a zip of images and one table that names them.'
)


def read_image_rows(
    model: TrainedModel | EnsembleModel, request: bytes, media_type: str, options: Mapping[str, Any]
) -> ImageRows:
    """The samples of a request. Raises BadInputError.

    `options`: `boundary` is that of a multipart form.
    """
    from trainkit.data import DataError
    from trainkit.data.image_rows import image_rows, read_image_archive

    names = model.table_encoders[0].names
    # an image is brought to the trained size as soon as it is decoded: of many large ones memory holds one at a time
    sizes = {encoder.shape for encoder in model.image_encoders}
    resize = model.image_encoders[0].resized if len(sizes) == 1 else lambda image: image
    if is_json(media_type):
        inputs = [_decoded(sample, row, resize) for row, sample in enumerate(json_inputs(request))]
        return point_at_rows(lambda: image_rows(inputs, names, strict=True))
    if media_type == FORM:
        inputs = _form_samples(request, str(options.get("boundary") or ""), resize)
        return point_at_rows(lambda: image_rows(inputs, names, strict=True))
    if media_type not in ARCHIVE_TYPES:
        message = f"the model reads images with the columns of a table, not {media_type!r} alone"
        raise BadInputError("unsupported_media_type", message, "", SEND, 415)
    _, height, width = model.image_encoders[0].shape
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "upload"
        path.write_bytes(request)
        try:
            table = model.table_encoders[0].format
            return point_at_rows(lambda: read_image_archive(path, table, names, size=(height, width)))
        except DataError as error:
            raise BadInputError.of_items(
                [
                    {
                        "pointer": "",
                        "code": one.code,
                        "message": f"{one.where}: {one.message}",
                        "hint": one.hint or SEND,
                    }
                    for one in error.problems[:20]
                ]
            ) from None


def _decoded(sample: Any, row: int, resize: Callable[[Any], Any]) -> Any:
    """The sample of a JSON document with its image read, where that is the base64 text of a file."""
    if not isinstance(sample, dict) or not isinstance(sample.get("image"), str):
        return sample
    where, text = f"/inputs/{row}/image", sample["image"]
    return {**sample, "image": resize(encoded_image(text, where=where, what=f"row {row}: the image"))}


def _form_samples(request: bytes, boundary: str, resize: Callable[[Any], Any]) -> list[dict[str, Any]]:
    """One sample for each part `image`, with the row of `columns` in its place."""
    images: list[Any] = []
    texts: list[bytes] = []
    for name, data in _parts(request, boundary):
        if name == "image":
            where = f"/inputs/{len(images)}/image"
            images.append(resize(image_of(data, where=where, what=f"image {len(images)}")))
        elif name == "columns":
            texts.append(data)
        else:
            raise BadInputError("unknown_field", f"the form has a part {name!r} that is not read", f"/{name}", SEND)
    if not images:
        raise BadInputError("missing", "the form has no part `image`", "/image", SEND)
    rows: list[Any] = []
    for text in texts:
        try:
            document = json.loads(text, object_pairs_hook=unique_keys)
        except (ValueError, RecursionError) as error:
            message = f"`columns` is not JSON: {json_reason(error)}"
            raise BadInputError("invalid_json", message, "/columns", SEND) from None
        rows += document if isinstance(document, list) else [document]
    if len(rows) != len(images):
        message = f"the form has {len(images)} images and {len(rows)} rows of `columns`"
        hint = "Send a row for each image: `columns` is an object, or a list of objects in the order of the images."
        raise BadInputError("unequal_counts", message, "/columns", hint)
    return [{"image": image, "columns": row} for image, row in zip(images, rows, strict=True)]


def _parts(request: bytes, boundary: str) -> list[tuple[str, bytes]]:
    """(name, bytes) of each part of a multipart form. Raises BadInputError."""
    if not boundary:
        raise BadInputError("invalid_form", "the Content-Type names no boundary of the form's parts", "", SEND)
    parts: list[tuple[str, bytearray]] = []
    header: list[bytes] = [b"", b""]
    ended = False

    def on_header_end() -> None:
        if header[0].strip().lower() == b"content-disposition":
            _, fields = parse_options_header(header[1])
            parts[-1] = (fields.get(b"name", b"").decode("utf-8", "replace")[:100], parts[-1][1])
        header[:] = [b"", b""]

    def on_header_field(data: bytes, start: int, end: int) -> None:
        header[0] += data[start:end]

    def on_header_value(data: bytes, start: int, end: int) -> None:
        header[1] += data[start:end]

    def on_part_data(data: bytes, start: int, end: int) -> None:
        parts[-1][1].extend(data[start:end])

    def on_end() -> None:
        nonlocal ended
        ended = True

    try:
        parser = MultipartParser(
            boundary.encode("latin-1"),
            {
                "on_part_begin": lambda: parts.append(("", bytearray())),
                "on_header_field": on_header_field,
                "on_header_value": on_header_value,
                "on_header_end": on_header_end,
                "on_part_data": on_part_data,
                "on_end": on_end,
            },
        )
        parser.write(request)
        parser.finalize()
    except (ParseError, ValueError):
        message = "the body is no multipart form with the boundary of its Content-Type"
        raise BadInputError("invalid_form", message, "", SEND) from None
    if not ended:
        raise BadInputError("invalid_form", "the multipart form ends before its last boundary", "", SEND)
    return [(name, bytes(data)) for name, data in parts]

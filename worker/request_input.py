"""What every request to predict or evaluate has in common: refusals that point at the mistake, JSON, image files."""

from __future__ import annotations

import base64
import binascii
import io
import json
from collections.abc import Callable
from typing import Any, TypeVar

from trainkit.data import decoding
from trainkit.data.table.json_rows import unique_keys
from trainkit.spec.json_errors import json_reason
from trainkit.spec.problems import pointer

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


def is_json(media_type: str) -> bool:
    """Whether the body is one JSON document."""
    return media_type in JSON_TYPES or media_type.endswith("+json")


def json_inputs(request: bytes) -> list[Any]:
    """The list of a document `{"inputs": [...]}`. Raises BadInputError."""
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


def image_of(data: bytes, *, where: str = "", what: str = "the body") -> Any:
    """The PIL image of a file's bytes. Raises BadInputError that points at `where` and names it as `what`."""
    from PIL import Image, UnidentifiedImageError

    Image.MAX_IMAGE_PIXELS = LARGEST_IMAGE_PIXELS // 2  # Pillow's error comes at twice its warning
    try:
        image = Image.open(io.BytesIO(data), formats=IMAGE_FORMATS)
        image.load()
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, ValueError, SyntaxError) as error:
        hint = f"Send one image as {', '.join(IMAGE_FORMATS)}."
        message = f"{what} is not a readable image: {decoding.reason(error)}"
        raise BadInputError("unreadable_image", message, where, hint) from None
    return image


def encoded_image(text: str, *, where: str, what: str) -> Any:
    """The PIL image of the base64 text of a file, also as a `data:` URL. Raises BadInputError that points at `where`."""
    if text.startswith("data:"):
        text = text.partition(",")[2]
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        hint = "Send the file's bytes as base64 text, or pixels as nested lists."
        raise BadInputError("not_base64", f"{what} is no base64 text", where, hint) from None
    return image_of(data, where=where, what=what)


def point_at_rows(work: Callable[[], T], *, root: str = "inputs") -> T:
    """Do `work`; an InputError of it becomes a BadInputError that points at the rows, below the field `root`."""
    from trainkit.data.errors import InputError

    try:
        return work()
    except InputError as error:
        items = [
            {
                "pointer": pointer([root, *(part for part in (one.row, one.within, one.column) if part is not None)]),
                "code": one.code,
                "message": one.message,
                "hint": one.hint,
            }
            for one in error.problems
        ]
        raise BadInputError.of_items(items) from None

"""Pages for people, open to everybody: they hold no data of anybody, only what is in the source and in Swagger UI.

Every address in a page is relative to it, so that the pages work below any path. Nothing is loaded from another host.
"""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path

from anyio import to_thread
from fastapi import FastAPI, Request, Response

from service.api_docs.errors_page import errors_page
from service.problem_types import ERRORS_PATH

DOCS_PATH = "/docs"
FOLDER = Path(__file__).parent
SWAGGER_UI = "fastapi_swagger"
"""The package that brings the files of a release of Swagger UI, unchanged; nothing of its code is imported."""
HTML, CSS, SCRIPT, PNG = (
    "text/html; charset=utf-8",
    "text/css; charset=utf-8",
    "text/javascript; charset=utf-8",
    "image/png",
)


@dataclass(frozen=True, slots=True)
class StaticFile:
    """A file in memory, as it is and compressed."""

    content: bytes
    compressed: bytes
    tag: str


@cache
def read_static(read: Callable[[], bytes]) -> StaticFile:
    """Read, compress and hash it, once."""
    content = read()
    tag = hashlib.sha256(content).hexdigest()[:32]
    return StaticFile(content, gzip.compress(content, 9, mtime=0), f'W/"{tag}"')


async def serve(request: Request, read: Callable[[], bytes], media_type: str) -> Response:
    """Answer with a static file, or with 304 to who has it already."""
    file = await to_thread.run_sync(read_static, read)
    headers = {"ETag": file.tag, "Cache-Control": "no-cache", "Vary": "Accept-Encoding"}
    if file.tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    if "gzip" in request.headers.get("accept-encoding", ""):
        return Response(file.compressed, media_type=media_type, headers={**headers, "Content-Encoding": "gzip"})
    return Response(file.content, media_type=media_type, headers=headers)


def swagger_ui_folder() -> Path:
    """Return the folder of Swagger UI's files. Raises ModuleNotFoundError."""
    spec = find_spec(SWAGGER_UI)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("fastapi-swagger is not installed: pip install fastapi-swagger", name=SWAGGER_UI)
    return Path(spec.submodule_search_locations[0]) / "resources"


def install(app: FastAPI) -> None:
    """Add the pages and their files."""
    ui = swagger_ui_folder()
    pages: dict[str, tuple[Callable[[], bytes], str]] = {
        DOCS_PATH: ((FOLDER / "page.html").read_bytes, HTML),
        f"{DOCS_PATH}/page.css": ((FOLDER / "page.css").read_bytes, CSS),
        f"{DOCS_PATH}/page.js": ((FOLDER / "page.js").read_bytes, SCRIPT),
        f"{DOCS_PATH}/swagger-ui.css": ((ui / "swagger-ui.css").read_bytes, CSS),
        f"{DOCS_PATH}/swagger-ui-bundle.js": ((ui / "swagger-ui-bundle.js").read_bytes, SCRIPT),
        f"{DOCS_PATH}/favicon-32x32.png": ((ui / "favicon-32x32.png").read_bytes, PNG),
        ERRORS_PATH: (errors_page, HTML),
        f"{DOCS_PATH}/errors.css": ((FOLDER / "errors.css").read_bytes, CSS),
    }
    for path, (read, media_type) in pages.items():
        app.add_route(path, partial(serve, read=read, media_type=media_type), include_in_schema=False)

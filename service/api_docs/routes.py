"""Pages for people, open to everybody: they hold no data of anybody, only what is in the source and in Swagger UI.

Every address in a page is relative to it, so that the pages work below any path. Nothing is loaded from another host.
"""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

from anyio import to_thread
from fastapi import FastAPI, Request, Response

from service.api_docs.errors_page import errors_page
from service.errors import HttpProblem
from service.problem_types import ERRORS_PATH

DOCS_PATH = "/docs"
FOLDER = Path(__file__).parent
SWAGGER_UI = FOLDER.parent / "web/dist/docs"
"""Swagger UI's files as published at npm (swagger-ui-dist), put there by the build of `service/web`."""
TEXTS = FOLDER / "llms"
"""What `docs/llms.py` writes: llms.txt, and the pages of the documentation as Markdown."""
TEXT, MARKDOWN = "text/plain; charset=utf-8", "text/markdown; charset=utf-8"
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


async def serve_text(request: Request) -> Response:
    """Answer with a file of the documentation as Markdown, from the contents (`/llms.txt`) or below `/docs/pages/`."""
    path = request.scope["path"].removeprefix("/")
    file = await to_thread.run_sync(text_files().get, path)
    if file is None:
        hint = (
            "/llms.txt lists the pages." if text_files() else "It is built by `make setup`, or `python -m docs.llms`."
        )
        raise HttpProblem(404, "not_found", f"The documentation has no text {path[:80]!r}. {hint}")
    return await serve(request, file.read_bytes, MARKDOWN if path.endswith(".md") else TEXT)


@cache
def text_files() -> dict[str, Path]:
    """Return the files that `docs/llms.py` has written, by their path."""
    return {str(file.relative_to(TEXTS)): file for file in sorted(TEXTS.rglob("*")) if file.is_file()}


def install(app: FastAPI) -> None:
    """Add the pages and their files. Where Swagger UI has not been built, the page says how to get it."""
    pages: dict[str, tuple[Callable[[], bytes], str]] = {
        DOCS_PATH: ((FOLDER / "page.html").read_bytes, HTML),
        f"{DOCS_PATH}/page.css": ((FOLDER / "page.css").read_bytes, CSS),
        f"{DOCS_PATH}/page.js": ((FOLDER / "page.js").read_bytes, SCRIPT),
        ERRORS_PATH: (errors_page, HTML),
        f"{DOCS_PATH}/errors.css": ((FOLDER / "errors.css").read_bytes, CSS),
    }
    for name, media_type in {"swagger-ui.css": CSS, "swagger-ui-bundle.js": SCRIPT, "favicon-32x32.png": PNG}.items():
        if (file := SWAGGER_UI / name).exists():
            pages[f"{DOCS_PATH}/{name}"] = (file.read_bytes, media_type)
    for path in ("/llms.txt", "/llms-full.txt", f"{DOCS_PATH}/pages/{{page:path}}"):
        app.add_route(path, serve_text, include_in_schema=False)
    for path, (read, media_type) in pages.items():
        app.add_route(path, partial(serve, read=read, media_type=media_type), include_in_schema=False)

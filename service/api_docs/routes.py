"""Pages for people, open to everybody: they hold no data of anybody, only what is in the source."""

from __future__ import annotations

from functools import cache, partial
from pathlib import Path

from anyio import to_thread
from fastapi import FastAPI, Request, Response

from service.api_docs.errors_page import errors_page
from service.problem_types import ERRORS_PATH

FOLDER = Path(__file__).parent
HTML, CSS = "text/html; charset=utf-8", "text/css; charset=utf-8"


@cache
def _file(path: Path) -> bytes:
    return path.read_bytes()


@cache
def _errors_page() -> bytes:
    return errors_page()


async def serve_errors(request: Request) -> Response:
    return Response(await to_thread.run_sync(_errors_page), media_type=HTML)


async def serve_file(request: Request, path: Path, media_type: str) -> Response:
    return Response(await to_thread.run_sync(_file, path), media_type=media_type)


def install(app: FastAPI) -> None:
    """Add the pages and their files."""
    app.add_route(ERRORS_PATH, serve_errors, include_in_schema=False)
    app.add_route(
        "/docs/pages.css", partial(serve_file, path=FOLDER / "pages.css", media_type=CSS), include_in_schema=False
    )

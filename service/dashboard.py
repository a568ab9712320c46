"""The dashboard: static files that a browser loads, and which ask the public API with the user's own key."""

from __future__ import annotations

from pathlib import Path

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.staticfiles import StaticFiles

FOLDER = Path(__file__).parent / "web/dist"
"""What `make web` builds from the sources in service/web; it is not committed."""


def install(app: FastAPI) -> None:
    """Serve the files below /ui, and lead a browser that asks for / there. Nothing where they have not been built."""
    if not (FOLDER / "index.html").exists():
        return
    app.mount("/ui", StaticFiles(directory=FOLDER, html=True), name="dashboard")
    app.add_route("/", _lead_to_dashboard, include_in_schema=False)


async def _lead_to_dashboard(request: Request) -> Response:
    return RedirectResponse("/ui/", status_code=307)  # the path of a proxy is put before it with all others

"""The dashboard: static files that a browser loads, and which ask the public API with the user's own key."""

from __future__ import annotations

from pathlib import Path

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.staticfiles import StaticFiles

FOLDER = Path(__file__).parent / "web/dist"
"""What `make web` builds from the sources in service/web; it is not committed."""


SIGN_IN = '<meta name="trainkit-sign-in" content="provider">'
"""Tells the page that people may sign in with a provider: it asks nothing before somebody has signed in."""


def install(app: FastAPI, *, sign_in: bool) -> None:
    """Serve the files below /ui, and lead a browser that asks for / there. Nothing where they have not been built.

    Args:
        app: The application to which the routes are added.
        sign_in: Whether an identity provider is set up.
    """
    if not (FOLDER / "index.html").exists():
        return
    if sign_in:
        app.add_route("/ui/", _page_with_sign_in, include_in_schema=False)
    app.mount("/ui", StaticFiles(directory=FOLDER, html=True), name="dashboard")
    app.add_route("/", _lead_to_dashboard, include_in_schema=False)


def _page_with_sign_in(request: Request) -> Response:
    page = (FOLDER / "index.html").read_text(encoding="utf-8")
    return HTMLResponse(page.replace("</title>", f"</title>\n{SIGN_IN}", 1), headers={"Cache-Control": "no-cache"})


async def _lead_to_dashboard(request: Request) -> Response:
    return RedirectResponse("/ui/", status_code=307)  # the path of a proxy is put before it with all others

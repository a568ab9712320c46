"""`uvicorn service.asgi:serve --factory`: the application as a process of its own, with its log set up."""

from __future__ import annotations

from fastapi import FastAPI

from service.app import create_app
from service.logging import set_up
from service.private_files import keep_files_private
from service.settings import Settings


def serve() -> FastAPI:
    """Called by uvicorn after it has set up its own log, which ours takes the place of."""
    settings = Settings.from_env()
    set_up(settings)
    keep_files_private(settings)
    return create_app(settings)

"""The application: middleware, routes, errors. `uvicorn service.app:create_app --factory` serves it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from anyio import to_thread
from fastapi import FastAPI

from service import errors, tables
from service.auth import Authentication
from service.catalog import routes as catalog
from service.context import Context
from service.database import make_engine, session_factory
from service.datasets import routes as datasets
from service.doorbell import Doorbell
from service.health import routes as health
from service.jobs import routes as jobs
from service.keys import routes as keys
from service.metrics import routes as metrics
from service.metrics import stream
from service.models import routes as models
from service.settings import Settings
from service.storage import Storage
from service.workers import routes as workers

__all__ = ["create_app", "tables"]
THREADS = 64
"""Requests that may wait for the database at once; waiting readers (long-poll, SSE) hold no thread."""


def create_app(settings: Settings | None = None) -> FastAPI:
    """The service with its own engine, storage and doorbell."""
    settings = settings or Settings.from_env()
    engine = make_engine(settings.database_url)
    sessions = session_factory(engine)
    context = Context(settings, engine, sessions, Storage(settings.storage_url), Doorbell(settings.broker_url))

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        to_thread.current_default_thread_limiter().total_tokens = THREADS
        yield
        engine.dispose()

    app = FastAPI(
        title="trainkit",
        version="0.1.0",
        summary="Trains deep networks: exact, resumable, explained.",
        lifespan=lifespan,
        docs_url="/docs",
        redoc_url=None,
    )
    app.state.context = context
    errors.install(app)
    for room in (datasets, jobs, metrics, stream, models, catalog, workers, keys, health):
        app.include_router(room.router)
    app.add_middleware(Authentication, sessions=sessions)
    return app

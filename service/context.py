"""What every request handler needs, made once when the application starts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request
from sqlalchemy import Engine
from sqlalchemy.orm import Session, sessionmaker

from service.doorbell import Doorbell
from service.job_watcher import JobWatcher
from service.settings import Settings
from service.storage import Storage


@dataclass(frozen=True, slots=True)
class Context:
    """The service's own parts."""

    settings: Settings
    engine: Engine
    sessions: sessionmaker[Session]
    storage: Storage
    doorbell: Doorbell
    job_watcher: JobWatcher


async def context_of(request: Request) -> Context:
    """The context that the application was made with. (A plain function would cost a thread.)"""
    context: Context = request.app.state.context
    return context


Service = Annotated[Context, Depends(context_of)]

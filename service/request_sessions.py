"""One database session per request, injected: `ReadSession` for a snapshot, `WriteSession` for a transaction."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import partial, wraps
from typing import Annotated, Any

from anyio import CancelScope, CapacityLimiter, to_thread
from fastapi import Depends, Request, Response
from fastapi.routing import APIRoute
from sqlalchemy import Engine
from sqlalchemy.orm import Session, sessionmaker

from service.audit.changes import record_request
from service.database import read_only
from service.request_body import read_json_body

THREADS = "threads"


class RequestSessions:
    """The sessions of requests, at most `limit` at a time; a request beyond that waits here, and holds nothing.

    A request with a session never waits for anything but the database: `limit` connections of the pool are left to
    these sessions, and as many threads are their own. So whoever waits for a lock of it, in whatever thread, waits for
    a request that moves on, and no request ends with a timeout of the pool.
    """

    def __init__(self, engine: Engine, sessions: sessionmaker[Session], limit: int) -> None:
        self._open, self._threads = CapacityLimiter(limit), CapacityLimiter(limit)
        self._write_sessions = sessions
        self._read_sessions = sessionmaker(read_only(engine), expire_on_commit=False)

    @asynccontextmanager
    async def read(self) -> AsyncIterator[Session]:
        """A session that reads one snapshot. It takes a connection with its first statement."""
        async with self._one(self._read_sessions) as session:
            yield session

    @asynccontextmanager
    async def write(self) -> AsyncIterator[Session]:
        """A transaction: committed at the end, rolled back by an exception. Raises what the commit raises."""
        async with self._one(self._write_sessions) as session:
            yield session
            await self._end(session, _commit)

    @asynccontextmanager
    async def _one(self, factory: sessionmaker[Session]) -> AsyncIterator[Session]:
        session = factory(info={THREADS: self._threads})
        await self._open.acquire_on_behalf_of(session)
        try:
            yield session
        finally:
            try:
                await self._end(session, Session.close)
            finally:
                self._open.release_on_behalf_of(session)

    async def _end(self, session: Session, end: Callable[[Session], None]) -> None:
        if not session.in_transaction():
            return  # it has no connection
        # the connection goes back to the pool also when the request is cancelled
        with CancelScope(shield=True):
            await to_thread.run_sync(end, session, limiter=self._threads)


def _commit(session: Session) -> None:
    with session:  # closed in the same thread: an error leaves no connection behind
        session.commit()


class SessionRoute(APIRoute):
    """Runs a function with a parameter `session` in a thread of the request sessions.

    FastAPI runs it, and checks its answer, in two threads that other requests want as well. It would hold a connection,
    or even a lock, while it waits for the second.
    """

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        super().__init__(path, _in_worker_thread(endpoint), **options)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        if self.body_field is None:
            return handle

        async def handle_parsed(request: Request) -> Response:
            # FastAPI would parse on the event loop; it takes what the request has parsed already
            await read_json_body(request)
            return await handle(request)

        return handle_parsed


def _in_worker_thread(endpoint: Callable[..., Any]) -> Callable[..., Any]:
    if inspect.iscoroutinefunction(endpoint) or "session" not in inspect.signature(endpoint).parameters:
        return endpoint

    @wraps(endpoint)
    async def run(**arguments: Any) -> Any:
        limiter = arguments["session"].info[THREADS]
        return await to_thread.run_sync(partial(endpoint, **arguments), limiter=limiter)

    return run


async def read_session(request: Request) -> AsyncIterator[Session]:
    """Open the request's snapshot."""
    sessions: RequestSessions = request.app.state.request_sessions
    async with sessions.read() as session:
        yield session


async def write_session(request: Request, response: Response) -> AsyncIterator[Session]:
    """Open the request's transaction. Its entry in the audit log is committed with it, also where nothing was changed."""
    sessions: RequestSessions = request.app.state.request_sessions
    async with sessions.write() as session:
        yield session
        record_request(session, response.status_code or request.scope["route"].status_code or 200)


# `function`: the session ends before the answer is sent. A slow client holds no connection, and a commit that fails is
# answered with its problem.
ReadSession = Annotated[Session, Depends(read_session, scope="function")]
"""One moment's picture of the database. A route has this or `WriteSession`, never both: each is one of the limit."""
WriteSession = Annotated[Session, Depends(write_session, scope="function")]
"""The request's transaction, committed before the answer is sent."""

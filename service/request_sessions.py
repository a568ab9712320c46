"""One database session per request, injected: `ReadSession` for a snapshot, `WriteSession` for a transaction."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from anyio import CancelScope, CapacityLimiter, to_thread
from fastapi import Depends, Request
from sqlalchemy import Engine
from sqlalchemy.orm import Session, sessionmaker

from service.database import read_only


class RequestSessions:
    """The sessions of requests, at most `limit` at a time; a request beyond that waits here, without a thread.

    A request may need a thread while it holds a connection: its answer is validated in one. Threads that wait for the
    pool would then wait for requests that wait for a thread, until the pool gives up. So `limit` is smaller than the
    pool: an injected session never waits for a connection, and explicit sessions have the rest of the pool.
    """

    def __init__(self, engine: Engine, sessions: sessionmaker[Session], limit: int) -> None:
        self._write_sessions = sessions
        self._read_sessions = sessionmaker(read_only(engine), expire_on_commit=False)
        self._open = CapacityLimiter(limit)
        # ends never wait for the threads of functions; there are as many as there are sessions
        self._ends = CapacityLimiter(limit)

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
            await self._end(session, commit=True)

    @asynccontextmanager
    async def _one(self, factory: sessionmaker[Session]) -> AsyncIterator[Session]:
        session = factory()
        await self._open.acquire_on_behalf_of(session)
        try:
            yield session
        finally:
            try:
                await self._end(session, commit=False)
            finally:
                self._open.release_on_behalf_of(session)

    async def _end(self, session: Session, *, commit: bool) -> None:
        if not session.in_transaction():
            session.close()  # it has no connection: nothing here waits
            return
        # the connection goes back to the pool also when the request is cancelled
        with CancelScope(shield=True):
            await to_thread.run_sync(_commit if commit else Session.close, session, limiter=self._ends)


def _commit(session: Session) -> None:
    with session:  # closed in the same thread: an error leaves no connection behind
        session.commit()


async def _read(request: Request) -> AsyncIterator[Session]:
    sessions: RequestSessions = request.app.state.request_sessions
    async with sessions.read() as session:
        yield session


async def _write(request: Request) -> AsyncIterator[Session]:
    sessions: RequestSessions = request.app.state.request_sessions
    async with sessions.write() as session:
        yield session


# `function`: the session ends before the answer is sent. A slow client holds no connection, and a commit that fails is
# answered with its problem.
ReadSession = Annotated[Session, Depends(_read, scope="function")]
"""One moment's picture of the database. A route has this or `WriteSession`, never both: each is one of the limit."""
WriteSession = Annotated[Session, Depends(_write, scope="function")]
"""The request's transaction, committed before the answer is sent."""

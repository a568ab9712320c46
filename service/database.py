"""The database, SQLite or PostgreSQL: the engine, the column types, the database's clock, time-sortable ids."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from sqlalchemy import (
    JSON,
    CursorResult,
    DateTime,
    Dialect,
    Double,
    Engine,
    Index,
    Result,
    String,
    create_engine,
    event,
    literal,
    select,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import DeclarativeBase, Session, SessionTransaction, sessionmaker
from sqlalchemy.sql.expression import ColumnElement
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.sql.visitors import InternalTraversal
from sqlalchemy.types import TypeDecorator

ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
"""Crockford's base 32: sorts as the numbers do, no look-alikes."""

Json = JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")
SessionFactory = Callable[[], Session]
POOL_SIZE, MAX_CONNECTIONS = 10, 30
"""Connections of one process: how many are kept open, and how many there are at most."""
BUSY_MS = 15_000
"""How long a writer waits for others on SQLite."""
MAX_WAL_BYTES = 64 * 2**20
"""Length beyond which SQLite's write-ahead log is emptied by force."""
TRUNCATE_WAIT_MS = 50


class UtcDateTime(TypeDecorator[datetime]):
    """An aware UTC datetime: timestamptz on PostgreSQL, text in UTC on SQLite."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        value = value.astimezone(UTC)
        return value if dialect.name == "postgresql" else value.replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Audited:
    """What the audit log shows of a table's rows."""

    kind: str
    """Kind of resource, as in the names of path parameters: `job` for `job_id`."""
    omitted: frozenset[str] = frozenset()
    """Columns that no person decides about."""
    secret: frozenset[str] = frozenset()
    """Columns of which only a change is shown, never a value."""


class Base(DeclarativeBase):
    """All tables."""

    audited: ClassVar[Audited | None] = None
    """None: changes of its rows are not shown in the audit log."""


Name = String(200).with_variant(String(200, collation="C"), "postgresql")
"""Names, in the order of their bytes on both databases: an index finds those that begin with a text."""


def partial_index(name: str, *columns: str, where: str, unique: bool = False) -> Index:
    """An index of the rows `where` alone, on both databases. A statement uses it that says the same, or implies it."""
    return Index(name, *columns, unique=unique, sqlite_where=text(where), postgresql_where=text(where))


class db_now(ColumnElement[datetime]):  # noqa: N801 - reads as the SQL function it is
    """The database's own clock, `plus` seconds on: leases never trust a worker's clock."""

    type = UtcDateTime()
    # `plus` is written into the SQL, so it belongs to the key under which a compiled statement is found again
    _traverse_internals = [("plus", InternalTraversal.dp_plain_obj)]

    def __init__(self, plus: float = 0.0) -> None:
        self.plus = float(plus)


@compiles(db_now, "postgresql")
def _now_postgresql(element: db_now, compiler: Any, **kw: Any) -> str:
    # milliseconds, as SQLite has them: a time that was shown compares as it is stored
    return f"(date_trunc('milliseconds', clock_timestamp()) + make_interval(secs => {element.plus!r}))"


@compiles(db_now, "sqlite")
def _now_sqlite(element: db_now, compiler: Any, **kw: Any) -> str:
    # three digits of a second padded to SQLAlchemy's six, so that text order is time order
    return f"(strftime('%Y-%m-%d %H:%M:%f', 'now', '{element.plus:+f} seconds') || '000')"


class json_number(FunctionElement[float]):  # noqa: N801 - reads as the SQL function it is
    """A member of a JSON object as a number; NULL where it is none."""

    type = Double()
    inherit_cache = True

    def __init__(self, column: Any, key: str) -> None:
        super().__init__(column, literal(key, String()), literal(f'$."{key}"', String()))


@compiles(json_number, "postgresql")
def _json_number_postgresql(element: json_number, compiler: Any, **kw: Any) -> str:
    column, key, _ = (compiler.process(clause, **kw) for clause in element.clauses)
    return (
        f"(CASE WHEN jsonb_typeof({column} -> {key}) = 'number' THEN CAST({column} ->> {key} AS double precision) END)"
    )


@compiles(json_number, "sqlite")
def _json_number_sqlite(element: json_number, compiler: Any, **kw: Any) -> str:
    column, path = (compiler.process(clause, **kw) for clause in list(element.clauses)[::2])
    return f"(CASE WHEN json_type({column}, {path}) IN ('integer', 'real') THEN json_extract({column}, {path}) END)"


def new_id(prefix: str) -> str:
    """`job_` and 26 characters: 48 bits of milliseconds, then 80 random bits; later ids sort later."""
    return _id(prefix, time.time_ns() // 1_000_000, int.from_bytes(os.urandom(10)))


def first_id(prefix: str, at: datetime) -> str:
    """Return the least id of a row that was made at that time or later."""
    return _id(prefix, min(max(0, int(at.timestamp() * 1000)), 2**48 - 1), 0)


def _id(prefix: str, milliseconds: int, random: int) -> str:
    number = milliseconds << 80 | random
    return prefix + "_" + "".join(ALPHABET[number >> shift & 31] for shift in range(125, -1, -5))


def make_engine(url: str) -> Engine:
    """An engine whose transactions are serialisable enough for leases, and whose calls end in bounded time."""
    pool = {"pool_size": POOL_SIZE, "max_overflow": MAX_CONNECTIONS - POOL_SIZE}
    if url.startswith("sqlite"):
        engine = create_engine(url, **pool, connect_args={"timeout": BUSY_MS / 1000, "check_same_thread": False})
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    return create_engine(
        url,
        pool_pre_ping=True,
        **pool,
        connect_args={"connect_timeout": 5, "options": "-c statement_timeout=30000 -c lock_timeout=10000"},
    )


def _prepare_sqlite(connection: Any, record: Any) -> None:
    # SQLAlchemy, not the driver, says when a transaction begins
    connection.isolation_level = None
    for pragma in (
        "journal_mode=WAL",
        "synchronous=FULL",
        "foreign_keys=ON",
        f"busy_timeout={BUSY_MS}",
        # a file that one large transaction made long is cut when the log begins anew
        f"journal_size_limit={MAX_WAL_BYTES}",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Any) -> None:
    # a read that later writes would fail with SQLITE_BUSY instead of waiting: writers say so at once
    read_only = connection.get_execution_options().get("read_only", False)
    connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")


def truncate_wal(engine: Engine) -> bool:
    """Empty SQLite's write-ahead log when it is longer than `MAX_WAL_BYTES`; False when it still is afterwards.

    SQLite itself begins the log anew only in a moment without readers, which may never come under load. Most pages are
    copied first while everybody goes on; the rest with the write lock, for `TRUNCATE_WAIT_MS` at most.
    """
    path = engine.url.database
    if engine.dialect.name != "sqlite" or not path or _size(f"{path}-wal") <= MAX_WAL_BYTES:
        return True
    connection = engine.raw_connection()
    try:
        cursor = connection.cursor()
        cursor.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        cursor.execute(f"PRAGMA busy_timeout={TRUNCATE_WAIT_MS}")
        busy, _, _ = cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        cursor.execute(f"PRAGMA busy_timeout={BUSY_MS}")
    finally:
        connection.close()
    return not busy


def scrub(engine: Engine) -> None:
    """Write the tables anew, so that no file of the database keeps what was overwritten."""
    connection = engine.raw_connection()
    try:
        if engine.dialect.name == "sqlite":
            connection.cursor().execute("VACUUM")
            connection.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        else:
            connection.rollback()
            connection.driver_connection.autocommit = True  # type: ignore[union-attr]
            connection.cursor().execute("VACUUM FULL webhooks, mirrors")
            connection.driver_connection.autocommit = False  # type: ignore[union-attr]
    finally:
        connection.close()


def _size(path: str) -> int:
    try:
        return Path(path).stat().st_size
    except OSError:
        return 0


def db_time(session: Session) -> datetime:
    """Return the database's time, the one clock that all processes share."""
    now: datetime | None = session.scalar(select(db_now()))
    assert now is not None
    return now


def json_bytes(*documents: Any) -> int:
    """Return how many bytes documents have as JSON; None has none."""
    return sum(len(json.dumps(one, separators=(",", ":"))) for one in documents if one is not None)


def rows_changed(result: Result[Any]) -> int:
    """Return how many rows an UPDATE or DELETE has changed."""
    assert isinstance(result, CursorResult)
    return int(result.rowcount)


def ping(session: Session) -> None:
    """Read a table, so that a database without a schema fails as well."""
    session.execute(text("SELECT 1 FROM projects LIMIT 1"))


def read_only(engine: Engine) -> Engine:
    """The engine, for transactions that only read: one moment's picture, and no waiting for a writer on SQLite."""
    return engine.execution_options(**_read_only_options(engine.dialect))


@contextmanager
def reading(factory: SessionFactory) -> Iterator[Session]:
    """A session of its own that only reads one moment's picture. A route takes a `ReadSession` instead."""
    with factory() as session:
        session.connection(execution_options=_read_only_options(session.get_bind().dialect))
        yield session


def _read_only_options(dialect: Dialect) -> dict[str, Any]:
    # an ETag and the body that it is for must come from the same moment
    isolation = {"isolation_level": "REPEATABLE READ"} if dialect.name == "postgresql" else {}
    return {"read_only": True, **isolation}


YIELD_SECONDS = 0.005
SHORT_SECONDS = 0.02
"""After so long a batch of writes is committed, so that others wait for SQLite's write lock no longer than that."""
Item = TypeVar("Item")


def in_short_transactions(
    sessions: sessionmaker[Session],
    items: Iterable[Item],
    work: Callable[[Session, Item], bool | None],
    deadline: float | None = None,
) -> bool:
    """Call `work` for each item, for as many in one transaction as fit into SHORT_SECONDS.

    A process that dies in between leaves the first items done and the others not. Ends early, with what was done
    committed, where `work` returns False or the monotonic `deadline` is over; returns whether all items were done.
    """
    waiting = iter(items)
    for first in waiting:
        begun = time.monotonic()
        if deadline is not None and begun > deadline:
            return False
        with sessions.begin() as session:
            for item in chain([first], waiting):
                if work(session, item) is False:
                    return False
                if time.monotonic() - begun > SHORT_SECONDS:
                    break
        # one that waits for SQLite's lock looks for it every few milliseconds: give it the chance
        time.sleep(YIELD_SECONDS)
    return True


AFTER_COMMIT, COMMITTED = "after_commit", "committed"


def after_commit(session: Session, callback: Callable[[], object]) -> None:
    """Call `callback` once the session's transaction is committed; drop it when it is rolled back.

    The connection is back in the pool by then, and SQLite's write lock is free: a callback may wait for others.
    """
    session.info.setdefault(AFTER_COMMIT, []).append(callback)


@contextmanager
def savepoint(session: Session) -> Iterator[None]:
    """Undo what was done inside when it raises, callbacks of `after_commit` included; the transaction goes on."""
    before = len(session.info.get(AFTER_COMMIT, ()))
    try:
        with session.begin_nested():
            yield
    except BaseException:
        del session.info.get(AFTER_COMMIT, [])[before:]
        raise


@event.listens_for(Session, "after_commit")
def _confirm_callbacks(session: Session) -> None:
    if not session.in_nested_transaction():
        session.info[COMMITTED] = session.info.pop(AFTER_COMMIT, ())


@event.listens_for(Session, "after_transaction_end")
def _run_callbacks(session: Session, transaction: SessionTransaction) -> None:
    if transaction.parent is None:
        for callback in session.info.pop(COMMITTED, ()):
            callback()


@event.listens_for(Session, "after_rollback")
def _drop_callbacks(session: Session) -> None:
    if not session.in_nested_transaction():
        session.info.pop(AFTER_COMMIT, None)

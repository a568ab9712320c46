"""Clock, times, ids, and who waits for whom."""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from sqlalchemy import Engine, select, text

from service.database import ALPHABET, BUSY_MS, db_now, make_engine, new_id, reading, truncate_wal
from service.projects.tables import Project
from service.sessions import session_factory

pytestmark = pytest.mark.postgresql


@pytest.fixture
def engine(migrated_url: str) -> Engine:
    return make_engine(migrated_url)


def test_later_ids_sort_later() -> None:
    first = new_id("job")
    time.sleep(0.002)
    second = new_id("job")
    assert first < second
    assert len(first) == len("job_") + 26
    assert set(first[4:]) <= set(ALPHABET)
    assert len({new_id("x") for _ in range(1000)}) == 1000


def test_an_id_holds_the_milliseconds_of_its_birth() -> None:
    before = time.time_ns() // 1_000_000
    number = 0
    for character in new_id("x")[2:]:
        number = number * 32 + ALPHABET.index(character)
    assert before <= number >> 80 <= time.time_ns() // 1_000_000


def test_the_database_says_what_time_it_is(engine: Engine) -> None:
    with session_factory(engine)() as session:
        now, later, earlier = session.execute(select(db_now(), db_now(plus=90.5), db_now(plus=-3600))).one()
        assert session.scalar(select(db_now(plus=1) > db_now()))
    assert now.tzinfo is not None
    assert abs(now - datetime.now(UTC)) < timedelta(seconds=60)
    assert abs((later - now) - timedelta(seconds=90.5)) < timedelta(seconds=1)
    assert abs((now - earlier) - timedelta(hours=1)) < timedelta(seconds=1)


def test_times_come_back_as_utc_whatever_zone_they_had(engine: Engine) -> None:
    moment = datetime(2026, 3, 4, 1, 2, 3, 456789, timezone(timedelta(hours=9)))
    with session_factory(engine).begin() as session:
        session.add(Project(id="p", name="p", created_at=moment))
    with session_factory(engine)() as session:
        stored = session.get_one(Project, "p").created_at
    assert stored == moment
    assert stored.utcoffset() == timedelta(0)


def test_stored_times_compare_with_the_clock(engine: Engine) -> None:
    sessions = session_factory(engine)
    with sessions.begin() as session:
        for name, seconds in (("past", -1), ("future", 60)):
            session.add(Project(id=name, name=name, created_at=datetime.now(UTC) + timedelta(seconds=seconds)))
    with sessions() as session:
        assert session.scalars(select(Project.id).where(Project.created_at < db_now())).all() == ["past"]


def test_reading_does_not_wait_for_a_writer(engine: Engine) -> None:
    sessions = session_factory(engine)
    with sessions.begin() as writer:
        writer.add(Project(id="new", name="new", created_at=datetime.now(UTC)))
        writer.flush()
        with reading(sessions) as reader:
            assert reader.get(Project, "new") is None
    with reading(sessions) as reader:
        assert reader.get(Project, "new") is not None


def test_writers_wait_for_each_other_and_none_is_lost(engine: Engine) -> None:
    sessions = session_factory(engine)
    with sessions.begin() as session:
        session.execute(text("CREATE TABLE counter (n INTEGER)"))
        session.execute(text("INSERT INTO counter VALUES (0)"))

    def count() -> None:
        for _ in range(20):
            with sessions.begin() as session:
                session.execute(text("UPDATE counter SET n = n + 1"))

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with sessions() as session:
        assert session.scalar(text("SELECT n FROM counter")) == 80


def test_sqlite_keeps_foreign_keys_and_a_write_ahead_log(migrated_url: str) -> None:
    engine = make_engine(migrated_url)
    if engine.dialect.name == "sqlite":
        with engine.connect() as connection:
            pragmas = [connection.execute(text(f"PRAGMA {name}")).scalar() for name in ("foreign_keys", "journal_mode")]
        assert pragmas == [1, "wal"]
    engine.dispose()


def test_the_write_ahead_log_is_bounded_though_readers_never_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It grew to 1.5 GB: while somebody reads an old picture SQLite cannot begin it anew, and its file never shrinks."""
    monkeypatch.setattr("service.database.MAX_WAL_BYTES", 1 << 20)
    engine = make_engine(f"sqlite:///{tmp_path}/long.db")
    log = tmp_path / "long.db-wal"
    sessions = session_factory(engine)
    with sessions.begin() as session:
        session.execute(text("CREATE TABLE blocks (body BLOB)"))

    def write() -> None:
        with sessions.begin() as session:
            session.execute(text("INSERT INTO blocks VALUES (randomblob(200000))"))

    # readers that overlap: there is always one
    with ExitStack() as readers:
        for number in range(20):
            reader = readers.enter_context(ExitStack())
            session = reader.enter_context(reading(sessions))
            session.scalar(text("SELECT count(*) FROM blocks"))
            write()
            if number % 2:
                reader.close()
        assert log.stat().st_size > 3 << 20
        assert not truncate_wal(engine), "an old picture is still read"
        write()
    assert truncate_wal(engine)
    assert log.stat().st_size == 0
    # a writer alone keeps it short
    for _ in range(20):
        write()
    assert log.stat().st_size < 6 << 20, "SQLite's own bound of 1,000 pages, and a transaction"
    with reading(sessions) as session:
        assert session.scalar(text("SELECT count(*) FROM blocks")) == 41
    with engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA busy_timeout").scalar() == BUSY_MS
    engine.dispose()

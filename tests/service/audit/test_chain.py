"""The chain: what is committed gets its place once, what was changed is found, and the database itself refuses changes."""

from __future__ import annotations

import ast
import json
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from service.audit import repository
from service.audit import service as audit
from service.audit.__main__ import main
from service.audit.documents import FIRST_HASH, canonical, hash_of
from service.audit.service import BrokenChainError
from service.audit.tables import AuditEntry
from service.audit.trail import acting, command
from service.database import reading
from service.keys.service import create_key
from service.settings import Settings
from tests.support.api import Served

ROOT = Path(__file__).parents[3]
pytestmark = pytest.mark.postgresql


def make_entries(service: Served, count: int) -> None:
    """That many entries, sealed after those that are there."""
    for number in range(count):
        with acting(command("createKey")), service.sessions.begin() as session:
            create_key(session, "default", f"key {number}", "viewer")
    audit.seal(service.sessions)


def verify(service: Served, *arguments: Any) -> audit.Verified:
    with reading(service.sessions) as session:
        return audit.verify(session, *arguments)


def without_triggers(service: Served, change: Callable[[Session], None]) -> None:
    """What somebody does who owns the database, and takes the triggers away first."""
    with service.sessions.begin() as session:
        if session.get_bind().dialect.name == "postgresql":
            session.execute(text("ALTER TABLE audit_log DISABLE TRIGGER USER"))
        else:
            for name in ("audit_log_no_update", "audit_log_no_delete"):
                session.execute(text(f"DROP TRIGGER IF EXISTS {name}"))
        change(session)


def run(statement: str, **values: Any) -> Callable[[Session], None]:
    return lambda session: session.execute(text(statement), values) and None


def forge(session: Session) -> None:
    """Replace an entry by another one with a hash that fits it."""
    row = repository.chain(session, 2, 1)[0]
    fields = {**json.loads(row.document), "operation": "nothing"}
    document = canonical(fields)
    session.execute(
        text("UPDATE audit_log SET document = :document, hash = :hash, operation = 'nothing' WHERE seq = 3"),
        {"document": document, "hash": hash_of(document)},
    )


def insert_behind(session: Session) -> None:
    """Move all from 4 on by one, and put a copy of 3 into the gap."""
    for seq in range(6, 3, -1):
        session.execute(text("UPDATE audit_log SET seq = :new WHERE seq = :old"), {"new": seq + 1, "old": seq})
    columns = "created_at, project_id, actor, operation, outcome, resource_id, document, hash"
    session.execute(text(f"INSERT INTO audit_log (seq, {columns}) SELECT 4, {columns} FROM audit_log WHERE seq = 3"))


def swap(session: Session) -> None:
    for old, new in ((3, 99), (4, 3), (99, 4)):
        session.execute(text("UPDATE audit_log SET seq = :new WHERE seq = :old"), {"new": new, "old": old})


TAMPERING: dict[str, tuple[Callable[[Session], None], int]] = {
    "a text was changed": (run("UPDATE audit_log SET document = replace(document, 'createKey', 'x') WHERE seq = 3"), 3),
    "a column was changed": (run("UPDATE audit_log SET actor = 'key:other' WHERE seq = 3"), 3),
    "a time was changed": (run("UPDATE audit_log SET created_at = '2020-01-01 00:00:00.000000' WHERE seq = 3"), 3),
    "text and hash were changed": (forge, 4),
    "one was removed": (run("DELETE FROM audit_log WHERE seq = 3"), 3),
    "the first one was removed": (run("DELETE FROM audit_log WHERE seq = 1"), 1),
    "one was inserted": (insert_behind, 4),
    "two changed places": (swap, 3),
    "not ASCII": (run("UPDATE audit_log SET document = 'ä' WHERE seq = 2"), 2),
}


def test_an_untouched_chain_is_verified(service: Served) -> None:
    make_entries(service, 5)
    result = verify(service)
    assert (result.entries, result.first_seq) == (5, 1)
    assert result.head is not None
    assert result.head[0] == 5
    assert verify(service, result.head) == result
    with reading(service.sessions) as session:
        first = json.loads(repository.chain(session, 0, 1)[0].document)
    assert (first["seq"], first["previous_hash"]) == (1, FIRST_HASH)


def test_whatever_is_changed_is_found_and_the_first_bad_seq_is_named(service: Served) -> None:
    make_entries(service, 6)
    with reading(service.sessions) as session:
        names = [column.key for column in AuditEntry.__table__.columns]
        original = [{name: getattr(row, name) for name in names} for row in repository.walk(session, 0)]
    for name, (change, first_bad) in TAMPERING.items():
        without_triggers(service, change)
        with pytest.raises(BrokenChainError) as broken:
            verify(service)
        assert broken.value.seq == first_bad, f"{name}: {broken.value}"
        without_triggers(service, run("DELETE FROM audit_log"))
        with service.sessions.begin() as session:
            repository.add_sealed(session, original)
        assert verify(service).entries == 6, name


def test_a_kept_head_finds_what_was_removed_at_the_end(service: Served) -> None:
    make_entries(service, 6)
    head = verify(service).head
    without_triggers(service, run("DELETE FROM audit_log WHERE seq > 4"))
    assert verify(service).entries == 4
    with pytest.raises(BrokenChainError) as broken:
        verify(service, head)
    assert broken.value.seq == 5
    make_entries(service, 2)
    with pytest.raises(BrokenChainError) as broken:
        verify(service, head)
    assert broken.value.seq == 6


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit_log SET actor = 'x' WHERE seq = 2",
        "DELETE FROM audit_log WHERE seq = 2",
        "DELETE FROM audit_log",
        "UPDATE audit_anchors SET hash = 'x'",
        "DELETE FROM audit_anchors",
    ],
)
def test_the_database_refuses_changes(service: Served, statement: str) -> None:
    make_entries(service, 3)
    with service.sessions.begin() as session:
        repository.add_anchor(session, 1, "0" * 64)
    with pytest.raises(DBAPIError, match="append-only"), service.sessions.begin() as session:
        session.execute(text(statement))


def test_postgresql_refuses_to_truncate(service: Served) -> None:
    if service.context.engine.dialect.name != "postgresql":
        return  # SQLite has no TRUNCATE
    make_entries(service, 2)
    with pytest.raises(DBAPIError, match="append-only"), service.sessions.begin() as session:
        session.execute(text("TRUNCATE audit_log"))


def test_retention_cuts_the_oldest_and_leaves_an_anchor(service: Served) -> None:
    make_entries(service, 6)
    with reading(service.sessions) as session:
        fourth = repository.chain(session, 3, 1)[0].hash
    # as if the first four were old: their times are part of what is hashed, so the clock is moved instead
    assert audit.cut(service.sessions, 1) == 0
    assert audit.cut(service.sessions, None) == 0
    without_triggers(service, age_first_four)
    assert audit.cut(service.sessions, 1) == 4
    assert audit.cut(service.sessions, 1) == 0
    audit.seal(service.sessions)
    result = verify(service)
    assert (result.entries, result.first_seq) == (3, 5)
    with reading(service.sessions) as session:
        assert repository.anchor(session) == (4, fourth)
        last = audit.exported(next(repository.walk(session, 6)))
    assert (last["operation"], last["actor"]["kind"]) == ("cutAuditLog", "housekeeping")
    assert (last["resource"]["id"], last["before"]) == ("1-4", {"hash": fourth})
    assert audit.cut(service.sessions, 1) == 0


def age_first_four(session: Session) -> None:
    session.execute(text("UPDATE audit_log SET created_at = '2020-01-01 00:00:00.000000' WHERE seq <= 4"))


def test_everything_may_be_cut(service: Served) -> None:
    make_entries(service, 3)
    without_triggers(service, run("UPDATE audit_log SET created_at = '2020-01-01 00:00:00.000000'"))
    assert audit.cut(service.sessions, 1) == 3
    assert verify(service).entries == 0
    make_entries(service, 1)
    assert verify(service).first_seq == 4


def test_two_who_seal_at_once_seal_each_entry_once(service: Served) -> None:
    for number in range(8):
        with acting(command("createKey")), service.sessions.begin() as session:
            create_key(session, "default", f"key {number}", "viewer")
    ready, sealed = threading.Barrier(3), []

    def seal() -> None:
        ready.wait()
        sealed.append(audit.seal(service.sessions))

    threads = [threading.Thread(target=seal) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    audit.seal(service.sessions)
    assert verify(service).entries == 8
    with reading(service.sessions) as session:
        assert repository.pending_count(session)[0] == 0
        entries = [audit.exported(row) for row in repository.walk(session, 0)]
    keys = [one["after"]["name"] for one in entries if one["resource"]["kind"] == "key"]
    assert sorted(keys) == [f"key {number}" for number in range(8)]


def test_an_export_is_verified_without_the_database(service: Served, tmp_path: Path) -> None:
    make_entries(service, 5)
    lines = "".join(audit.export(service.sessions, None)).splitlines()
    assert audit.verify_export(lines) == verify(service)
    changed = [line.replace("key 2", "key X") for line in lines]
    for broken, seq in ((changed, 3), (lines[:2] + lines[3:], 3), ([lines[0], lines[2], lines[1]], 2)):
        with pytest.raises(BrokenChainError) as error:
            audit.verify_export(broken)
        assert error.value.seq == seq
    with pytest.raises(ValueError, match="line 1 is no entry"):
        audit.verify_export(["{}"])


def test_the_command_verifies_and_exports(
    service: Served,
    settings: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    make_entries(service, 3)
    monkeypatch.setenv("TRAINKIT_DATABASE_URL", settings.database_url)

    def trainkit(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["audit", *arguments])
        capsys.readouterr()
        code = main()
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    code, output, errors = trainkit("verify")
    assert (code, errors) == (0, "")
    head = output.rpartition("Head: ")[2].strip()
    _, exported, _ = trainkit("export", "--after", "1")
    assert [json.loads(line)["seq"] for line in exported.splitlines()] == [2, 3]
    (tmp_path / "log.jsonl").write_text(exported)
    assert f"Head: {head}" in trainkit("verify", "--file", str(tmp_path / "log.jsonl"))[1]
    without_triggers(service, run("DELETE FROM audit_log WHERE seq = 3"))
    code, output, errors = trainkit("verify", "--head", head)
    assert (code, output) == (1, "")
    assert errors.startswith("BROKEN at seq 3: entry 3 is missing")
    assert trainkit("verify", "--head", "3")[0] == trainkit("verify", "--file", "/nowhere")[0] == 2


def calls(file: Path) -> Iterator[tuple[str, set[str]]]:
    """(function it is in, names in it) of each call of `update` and `delete`."""
    for function in ast.walk(ast.parse(file.read_text())):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            for node in ast.walk(function):
                if (
                    isinstance(node, ast.Call)
                    and isinstance(node.func, ast.Name)
                    and node.func.id in ("update", "delete")
                ):
                    yield function.name, {name.id for name in ast.walk(node) if isinstance(name, ast.Name)}


def test_only_housekeeping_deletes_and_nothing_updates() -> None:
    """Of the sources: one function deletes sealed entries, and no statement updates one."""
    found = {
        f"{file.relative_to(ROOT)}:{function}"
        for file in (ROOT / "service").rglob("*.py")
        if "Audit" in file.read_text()
        for function, names in calls(file)
        if {"AuditEntry", "AuditAnchor"} & names
    }
    assert found == {"service/audit/repository.py:delete_through"}

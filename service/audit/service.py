"""Seal entries into the chain, verify it, cut off its oldest part."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, sessionmaker

from service.audit import repository
from service.audit.changes import SUCCEEDED
from service.audit.documents import FIRST_HASH, HASH, canonical, hash_of, hash_of_exported, time_text
from service.audit.tables import AuditEntry
from service.audit.trail import housekeeping
from service.database import reading

log = logging.getLogger(__name__)
BATCH = 200
"""Entries sealed or deleted in one transaction: on SQLite all other writers wait for it."""


class BrokenChainError(Exception):
    """The log is not what was sealed; `seq` is the first place where it is not."""

    def __init__(self, seq: int, reason: str) -> None:
        super().__init__(reason)
        self.seq = seq


@dataclass(frozen=True, slots=True)
class Verified:
    """A chain without a flaw."""

    entries: int
    first_seq: int | None
    head: tuple[int, str] | None
    """Seq and hash of the newest entry: kept elsewhere, it proves later that nothing before it was changed."""


def seal(sessions: sessionmaker[Session]) -> int:
    """Give committed entries their places in the chain; returns how many. Safe from several processes at once."""
    sealed = 0
    while True:
        with reading(sessions) as session:
            if not repository.any_pending(session):
                return sealed
        try:
            with sessions.begin() as session:
                count = _seal_batch(session)
        except IntegrityError:  # another process has sealed them
            return sealed
        sealed += count
        if count < BATCH:
            return sealed


def _seal_batch(session: Session) -> int:
    waiting = repository.pending(session, BATCH)
    seq, previous = repository.head(session) or (0, FIRST_HASH)
    rows = []
    for one in waiting:
        seq += 1
        fields = json.loads(one.document)
        document = canonical({**fields, "seq": seq, "created_at": time_text(one.created_at), "previous_hash": previous})
        previous = hash_of(document)
        rows.append({**repository.entry_columns(seq, one.created_at, fields), "document": document, "hash": previous})
    if rows:
        repository.add_sealed(session, rows)
        repository.delete_pending(session, [one.id for one in waiting])
    return len(rows)


def verify(session: Session, kept_head: tuple[int, str] | None = None) -> Verified:
    """Check every entry against its hash, and each hash against the next entry.

    Args:
        kept_head: seq and hash of an entry, as kept outside of the database.

    Raises:
        BrokenChainError: an entry was changed, removed, inserted or moved; it names the first such place.
    """
    seq, previous = start = repository.anchor(session) or (0, FIRST_HASH)
    entries = 0
    for row in repository.walk(session, seq):
        if row.seq != seq + 1:
            raise BrokenChainError(seq + 1, f"entry {seq + 1} is missing: after {seq} comes {row.seq}")
        _check_row(row, previous)
        seq, previous, entries = row.seq, row.hash, entries + 1
        if kept_head is not None and kept_head[0] == seq and kept_head[1] != previous:
            raise BrokenChainError(seq, f"entry {seq} has the hash {previous}, not {kept_head[1]}")
    if kept_head is not None and kept_head[0] > seq:
        raise BrokenChainError(seq + 1, f"entry {seq + 1} is missing: the log ends at {seq}, not at {kept_head[0]}")
    if kept_head is not None and kept_head[0] < start[0]:
        raise BrokenChainError(kept_head[0], f"entry {kept_head[0]} was cut off: the log begins after {start[0]}")
    return Verified(entries, start[0] + 1 if entries else None, (seq, previous) if seq else None)


def _check_row(row: AuditEntry, previous: str) -> None:
    if hash_of_text(row.document) != row.hash:
        raise BrokenChainError(row.seq, f"entry {row.seq} was changed: its hash is not that of its text")
    fields = json.loads(row.document)
    if fields["previous_hash"] != previous:
        raise BrokenChainError(
            row.seq, f"entry {row.seq} does not follow entry {row.seq - 1}: one of them was replaced"
        )
    if fields["seq"] != row.seq or not repository.is_copied(row, fields):
        raise BrokenChainError(row.seq, f"entry {row.seq} was changed: its columns are not what its text says")


def hash_of_text(document: str) -> str:
    """Return the hash of a stored text, which may hold anything; empty for what no entry can be."""
    return hash_of(document) if document.isascii() else ""


def verify_export(lines: Iterable[str]) -> Verified:
    """Check an export of the whole platform as `verify` checks the database. Of a project's, see `docs/how-to/audit.md`.

    Raises:
        BrokenChainError: as `verify` does; ValueError for a line that is no entry.
    """
    entries, first, head = 0, None, None
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            seq, stated, previous = int(entry["seq"]), str(entry[HASH]), str(entry["previous_hash"])
        except (ValueError, TypeError, KeyError):
            raise ValueError(f"line {number} is no entry of an audit log") from None
        if hash_of_exported(entry) != stated:
            raise BrokenChainError(seq, f"entry {seq} was changed: its hash is not that of its text")
        if head is not None and seq != head[0] + 1:
            raise BrokenChainError(head[0] + 1, f"entry {head[0] + 1} is missing: after {head[0]} comes {seq}")
        if head is not None and previous != head[1]:
            raise BrokenChainError(seq, f"entry {seq} does not follow entry {head[0]}: one of them was replaced")
        first, head, entries = first or seq, (seq, stated), entries + 1
    return Verified(entries, first, head)


def exported(row: AuditEntry) -> dict[str, Any]:
    """Return an entry as clients see it: its document and its hash."""
    return {**json.loads(row.document), HASH: row.hash}


def export(sessions: sessionmaker[Session], project: str | None, after: int = 0) -> Iterator[str]:
    """Yield entries after a seq as JSON Lines, oldest first, some hundred at a time and none twice."""
    while True:
        with reading(sessions) as session:
            rows = repository.following(session, after, project, BATCH)
            lines = [canonical(exported(row)) + "\n" for row in rows]
        if not rows:
            return
        yield "".join(lines)
        after = rows[-1].seq


def cut(sessions: sessionmaker[Session], days: int | None) -> int:
    """Delete entries that are older than `days`, and leave an anchor that the rest of the chain goes on from."""
    with reading(sessions) as session:
        old = repository.last_older_than(session, days) if days else None
        before = repository.anchor(session)
    if old is not None and (before is None or before[0] < old[0]):
        with sessions.begin() as session:
            repository.add_anchor(session, *old)
            repository.add_pending(session, [_cut_entry(before, *old)])
    last, deleted = old or before, 0
    while last is not None:
        with sessions.begin() as session:
            count = repository.delete_through(session, last[0], BATCH)
        deleted += count
        if count < BATCH:
            break
    return deleted


def _cut_entry(before: tuple[int, str] | None, seq: int, hash: str) -> Mapping[str, Any]:
    first = 1 if before is None else before[0] + 1
    return {
        **housekeeping("cutAuditLog").facts(),
        "outcome": SUCCEEDED,
        "status": None,
        "code": None,
        "reason": None,
        "count": 1,
        "resource": {"kind": "audit_log", "id": f"{first}-{seq}"},
        "before": {"hash": hash},
        "after": None,
    }

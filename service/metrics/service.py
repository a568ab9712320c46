"""The metric log: append under the fence, read by cursor. What was read once reads the same for ever."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from math import isfinite
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from service.database import db_now
from service.jobs.leases import held
from service.jobs.tables import Decision, Job
from service.metrics import repository
from service.metrics.chunks import Row, decode

SMALLER_IS_BETTER = frozenset({"loss", "mse", "mae", "batch_loss"})
LARGER_IS_BETTER = frozenset({"accuracy", "top5_accuracy", "precision", "recall", "f1", "roc_auc", "r2"})
CHUNKS_A_READ = 64


@dataclass(frozen=True, slots=True)
class LoggedRow:
    """A row with its place in the log."""

    seq: int
    attempt: int
    superseded: bool
    row: Row


def append(session: Session, job_id: str, fence: int, rows: Sequence[Row]) -> tuple[int, int]:
    """Store rows; returns (first_seq, last_seq). Raises StaleFence and stores nothing when the fence is stale."""
    best = _best(repository.best_so_far(session, job_id), rows)
    first = repository.append_chunk(session, job_id, fence, rows, best)
    return first, first + len(rows) - 1


def _best(known: Mapping[str, float], rows: Sequence[Row]) -> dict[str, float]:
    best = dict(known)
    for row in rows:
        if not isfinite(row.value):
            continue
        key = f"{row.split}_{row.name}"
        smaller, larger = row.name in SMALLER_IS_BETTER, row.name in LARGER_IS_BETTER
        if (smaller and row.value < best.get(key, float("inf"))) or (
            larger and row.value > best.get(key, float("-inf"))
        ):
            best[key] = row.value
    return best


def supersede_after(session: Session, job_id: str, fence: int, metric_seq: int) -> None:
    """An attempt resumes where the log had `metric_seq` rows: the later ones are marked, never dropped.

    The best values are found again from the rows that still count, so that a best of a step that was
    run again does not linger.
    """
    job = held(session, job_id, fence)
    last = job.next_seq - 1
    if last > metric_seq:
        repository.mark_superseded(session, job_id, fence, metric_seq + 1, last)
        live = [entry.row for entry in read(session, job_id, 0, limit=last) if not entry.superseded]
        latest = {f"{row.split}_{row.name}": row.value if isfinite(row.value) else None for row in live}
        session.execute(
            update(Job)
            .where(Job.id == job_id)
            .values(metrics_best=_best({}, live), metrics_last=latest)
            .execution_options(synchronize_session=False)
        )


def append_decisions(session: Session, job_id: str, fence: int, decisions: Sequence[Mapping[str, Any]]) -> None:
    """Store early-stop decisions with their inputs; `seq` is gap-free per job."""
    job = held(session, job_id, fence)
    first = job.next_decision_seq
    now = session.scalar(select(db_now()))
    for offset, decision in enumerate(decisions):
        repository.add_decision(
            session,
            Decision(
                job_id=job_id,
                seq=first + offset,
                at=now,
                fence=fence,
                step=decision["step"],
                epoch=decision["epoch"],
                rule=decision["rule"] if isinstance(decision["rule"], dict) else {"kind": decision["rule"]},
                inputs=finite(decision["inputs"]),
                action=decision["action"],
                reason=decision.get("reason"),
            ),
        )
    job.next_decision_seq = first + len(decisions)


def finite(value: Any) -> Any:
    """The same JSON with NaN and infinity as null: JSON has neither."""
    if isinstance(value, float):
        return value if isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value


def read(
    session: Session, job_id: str, after: int, *, limit: int = 500, names: frozenset[str] | None = None
) -> list[LoggedRow]:
    """Up to `limit` rows with seq > after, in order; `names` keeps `val_accuracy` or, of every part, `accuracy`."""
    ranges = repository.superseded_ranges(session, job_id)
    found: list[LoggedRow] = []
    cursor = after
    while len(found) < limit:
        chunks = repository.chunks_after(session, job_id, cursor, CHUNKS_A_READ)
        for chunk in chunks:
            for seq, row in enumerate(decode(chunk.body), chunk.first_seq):
                if seq <= after or (names and row.name not in names and f"{row.split}_{row.name}" not in names):
                    continue
                superseded = any(first <= seq <= last for first, last in ranges)
                found.append(LoggedRow(seq, chunk.fence, superseded, row))
                if len(found) == limit:
                    return found
        if len(chunks) < CHUNKS_A_READ:
            return found
        cursor = chunks[-1].last_seq
    return found


def as_wire(entry: LoggedRow) -> dict[str, Any]:
    """The row as scripts read it; a value that JSON cannot hold is null, and `nonfinite` says which it was."""
    row = entry.row
    wire: dict[str, Any] = {
        "seq": entry.seq,
        "attempt": entry.attempt,
        "split": row.split,
        "name": row.name,
        "step": row.step,
        "epoch": row.epoch,
        "value": row.value if isfinite(row.value) else None,
        "at": datetime.fromtimestamp(row.at, UTC).isoformat(timespec="milliseconds"),
        "superseded": entry.superseded,
    }
    if not isfinite(row.value):
        wire["nonfinite"] = str(row.value)
    return wire

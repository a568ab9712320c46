"""The metric log: append under the fence, read by cursor. What was read once reads the same for ever."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy.orm import Session

from service.database import db_time, json_bytes
from service.jobs import repository as jobs
from service.jobs.attempts import stop_by_rule
from service.jobs.leases import lock_claimed
from service.jobs.tables import Decision, Job
from service.leases import Claim
from service.metrics import repository
from service.metrics.chunks import Columns, MetricRow, columns_of, decode_columns
from service.outbox import service as outbox
from service.peer_evaluations import service as comparisons
from trainkit.diagnose.early_stopping import first_stop
from trainkit.spec.metrics import LOGGED_DIRECTIONS

CHUNKS_A_READ = 64
ROWS_A_PAGE = 500_000
"""So many rows are looked at for one page: a reader of a rare series comes back with the cursor it got."""


@dataclass(frozen=True, slots=True)
class Slice:
    """One chunk's columns with the places that were asked for."""

    attempt: int
    columns: Columns
    seq: NDArray[np.int64]
    superseded: NDArray[np.bool_]
    places: NDArray[np.intp]
    last_seq: int

    def until(self, last: int) -> Slice:
        """Without the rows beyond seq `last`."""
        return self if last >= self.last_seq else replace(self, places=self.places[self.seq[self.places] <= last])


def append(session: Session, claim: Claim, rows: Sequence[MetricRow]) -> tuple[int, int]:
    """Store rows and return (first_seq, last_seq). Raises StaleFence, and stores nothing, for a void claim."""
    if not rows:
        following = lock_claimed(session, claim).next_seq
        return following, following - 1
    columns = columns_of(rows)
    best = _best(repository.best_so_far(session, claim.id), _extremes(columns))
    first = repository.append_chunk(session, claim, columns, best)
    job = jobs.by_id(session, claim.id)
    project_id = job.project_id
    _compare(session, job, claim, first, rows)
    outbox.observe(session, project_id, rows, first, partial(jobs.summary, session, claim.id))
    return first, first + len(rows) - 1


def _compare(session: Session, job: Job, claim: Claim, first: int, rows: Sequence[MetricRow]) -> None:
    """Ask the rules across jobs about evaluations among the rows, and pass on the first stop."""
    decisions = comparisons.observe(session, job, first, rows, rows_before(session, job.id, first))
    if decisions:
        append_decisions(session, claim, [decision.as_dict() for decision in decisions], across=True)
        stop = first_stop(decisions)
        if stop is not None:
            stop_by_rule(session, job, f"{stop.rule['kind']}: {stop.reason}")


def _extremes(columns: Columns) -> dict[tuple[str, str], tuple[float, float]]:
    """(smallest, largest) finite value of each series."""
    found: dict[tuple[str, str], tuple[float, float]] = {}
    for index, series in enumerate(columns.series):
        values = columns.value[columns.index == index]
        finite_ones = values[np.isfinite(values)]
        if len(finite_ones):
            found[series] = float(finite_ones.min()), float(finite_ones.max())
    return found


def _best(known: Mapping[str, float], extremes: Mapping[tuple[str, str], tuple[float, float]]) -> dict[str, float]:
    best = dict(known)
    for (split, name), (low, high) in extremes.items():
        key = f"{split}_{name}"
        direction = LOGGED_DIRECTIONS.get(name)
        if direction == "min":
            best[key] = min(low, best.get(key, low))
        elif direction == "max":
            best[key] = max(high, best.get(key, high))
    return best


def supersede_after(session: Session, claim: Claim, metric_seq: int) -> None:
    """An attempt resumes where the log had `metric_seq` rows: the later ones are marked, never dropped.

    The best values are found again from the rows that still count, so that a best of a step that was
    run again does not linger.
    """
    job = lock_claimed(session, claim)
    last = job.next_seq - 1
    if last <= metric_seq:
        return
    repository.mark_superseded(session, claim, metric_seq + 1, last)
    session.flush()
    comparisons.supersede_after(session, job, metric_seq)
    best: dict[str, float] = {}
    latest: dict[str, float | None] = {}
    for piece in scan(session, claim.id, 0):
        live = piece.columns.at_places(np.flatnonzero(~piece.superseded))
        best = _best(best, _extremes(live))
        latest |= repository.newest(live)
    repository.write_best(session, job.project_id, claim.id, job.metrics_best, best)
    jobs.update_job(session, claim.id, metrics_best=best, metrics_last=latest)


def append_decisions(
    session: Session, claim: Claim, decisions: Sequence[Mapping[str, Any]], *, across: bool = False
) -> None:
    """Store early-stop decisions with their inputs; `seq` is gap-free per job. `across`: not the training process's."""
    job = lock_claimed(session, claim)
    first = job.next_decision_seq
    now = db_time(session)
    size = 0
    for offset, decision in enumerate(decisions):
        rule = decision["rule"] if isinstance(decision["rule"], dict) else {"kind": decision["rule"]}
        inputs = finite(decision["inputs"])
        size += json_bytes(rule, inputs, decision.get("reason"))
        repository.add_decision(
            session,
            Decision(
                job_id=claim.id,
                seq=first + offset,
                at=now,
                fence=claim.fence,
                step=decision["step"],
                epoch=decision["epoch"],
                rule=rule,
                inputs=inputs,
                action=decision["action"],
                reason=decision.get("reason"),
            ),
        )
    job.next_decision_seq = first + len(decisions)
    job.record_bytes += size
    if across:
        job.peer_decisions += len(decisions)
    session.flush()


def finite(value: Any) -> Any:
    """The same JSON with NaN and infinity as null: JSON has neither."""
    if isinstance(value, float):
        return value if isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value


def scan(
    session: Session,
    job_id: str,
    after: int,
    names: frozenset[str] | None = None,
    chunks: int = CHUNKS_A_READ,
    ranges: Sequence[tuple[int, int]] | None = None,
) -> Iterator[Slice]:
    """The log chunk by chunk, from seq `after` + 1 on; `names` keeps `val_accuracy` or, of every part, `accuracy`.

    The first read takes `chunks` chunks, and each further one twice as many as that before. `ranges` are those of the
    rows that were run again, for who knows them already.
    """
    ranges = repository.superseded_ranges(session, job_id) if ranges is None else ranges
    cursor = after
    while found := repository.chunks_after(session, job_id, cursor, chunks):
        for chunk in found:
            columns = decode_columns(chunk.body)
            seq = np.arange(chunk.first_seq, chunk.last_seq + 1)
            # what was small chunks at the last read may be a larger one by now, begun before the cursor
            selected = seq > cursor
            if names is not None:
                named = [name in names or f"{split}_{name}" in names for split, name in columns.series]
                selected &= np.asarray(named, bool)[columns.index]
            superseded = np.zeros(len(seq), bool)
            for first, last in ranges:
                if first <= chunk.last_seq and last >= chunk.first_seq:
                    superseded |= (seq >= first) & (seq <= last)
            yield Slice(chunk.fence, columns, seq, superseded, np.flatnonzero(selected), chunk.last_seq)
            cursor = chunk.last_seq
        chunks = min(2 * chunks, CHUNKS_A_READ)


def rows_before(session: Session, job_id: str, seq: int) -> Iterator[tuple[MetricRow, bool]]:
    """The rows before `seq`, the last one first, each with whether it is superseded."""
    ranges = repository.superseded_ranges(session, job_id)
    while (chunk := repository.chunk_before(session, job_id, seq)) is not None:
        columns = decode_columns(chunk.body)
        for place in range(chunk.last_seq - chunk.first_seq, -1, -1):
            at = chunk.first_seq + place
            yield columns.row(place), any(first <= at <= last for first, last in ranges)
        seq = chunk.first_seq


def page_slices(
    session: Session,
    job_id: str,
    after: int,
    limit: int = 500,
    names: frozenset[str] | None = None,
    ranges: Sequence[tuple[int, int]] | None = None,
) -> tuple[list[Slice], int]:
    """Slices with up to `limit` rows beyond `after`, and the last seq that was looked at to find them.

    Fewer rows come when more than `ROWS_A_PAGE` others had to be looked at.
    """
    found: list[Slice] = []
    left, most = limit, after + ROWS_A_PAGE
    for piece in scan(session, job_id, after, names, 1, ranges):
        taken = piece.places[:left]
        left -= len(taken)
        if len(taken):
            found.append(replace(piece, places=taken))
        if not left:
            return found, int(piece.seq[taken[-1]])
        after = piece.last_seq
        if after >= most:
            break
    return found, after

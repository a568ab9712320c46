"""Bring one job's copy in one mirror up to date: what is new since its cursors, in bounded steps."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from sqlalchemy.orm import Session

from service.context import Context
from service.database import reading
from service.failpoints import fp
from service.leases import Claim, StaleFence
from service.metrics.repository import count_superseded
from service.metrics.service import page_slices, scan
from service.mirrors import repository
from service.mirrors.job_view import JobView, MetricPoint, files_of, read_job
from service.mirrors.rest_client import REQUEST_SECONDS, upload_seconds

COPY_SECONDS = 10.0
"""After so long a sender turns to another job; the rest is due at once."""
CLAIM_SECONDS = 2 * REQUEST_SECONDS
MAX_REPLACED = 200_000
"""Rows of earlier attempts that are compared with those of a later one."""


class MirrorWriter(Protocol):
    """Writes a job to a mirror. Every method may be repeated with the same arguments, and raises MirrorError.

    `position` is what the copy has of its own; a method may change it, and it is stored afterwards.
    """

    rows_per_write: int
    is_rewritten: bool
    """Whether a copy is written anew, from its first row, where a later attempt runs steps again."""

    def begin(self, job: JobView, position: dict[str, Any]) -> str:
        """Find or create the job's copy; returns its id."""

    def describe(self, external_id: str, job: JobView, position: dict[str, Any]) -> None:
        """Write what does not change."""

    def write(
        self, external_id: str, points: Sequence[MetricPoint], position: dict[str, Any], restart: int | None
    ) -> None:
        """Write metrics. `restart`: a later attempt begins with this step, and replaces what was written of later ones."""

    def put_file(
        self, external_id: str, name: str, parts: Iterator[bytes], size: int, position: dict[str, Any]
    ) -> None:
        """Write a file of the job."""

    def set_state(self, external_id: str, job: JobView, position: dict[str, Any]) -> None:
        """Write the job's state and what belongs to it."""


@dataclass(slots=True)
class ClaimedCopy:
    """A copy that this sender has claimed, and how far it has come."""

    mirror_id: str
    claim: Claim
    external_id: str | None
    metric_seq: int
    event_seq: int
    position: dict[str, Any]
    artifacts: bool
    failures: int
    complete: bool = False


@dataclass(slots=True)
class Replaced:
    """Rows of earlier attempts, up to the cursor, that a later attempt runs again."""

    times: dict[tuple[str, str, int, str], float] = field(default_factory=dict)
    first_step: int | None = None
    """Of the rows that no restart has taken back yet: a second resume leaves what the first one ran again."""
    last_step: int = -1


def copy_job(context: Context, writer: MirrorWriter, copy: ClaimedCopy) -> None:
    """Copy what is new of a job, for COPY_SECONDS. Raises MirrorError, and StaleFence when another sender has it."""
    end = time.monotonic() + COPY_SECONDS
    with reading(context.sessions) as session:
        job = read_job(session, copy.claim.id)
    if copy.external_id is None:
        copy.external_id = writer.begin(job, copy.position)
        fp("after_mirror_begin")
        _save(context, copy)
    superseded = count_superseded(job.superseded)
    if writer.is_rewritten and job.metric_seq and copy.position.get("superseded", 0) != superseded:
        copy.metric_seq, copy.position = 0, {"superseded": superseded}
        _save(context, copy)
    described = dict(copy.position)
    writer.describe(copy.external_id, job, copy.position)
    if copy.position != described:
        _save(context, copy)
    while _copy_rows(context, writer, copy, job):
        if time.monotonic() > end:
            return
    if job.has_ended and copy.artifacts and not _copy_files(context, writer, copy, job, end):
        return
    if copy.event_seq < job.event_seq:
        writer.set_state(copy.external_id, job, copy.position)
        fp("after_mirror_state")
        copy.event_seq, copy.complete = job.event_seq, job.has_ended
        _save(context, copy)


def _copy_rows(context: Context, writer: MirrorWriter, copy: ClaimedCopy, job: JobView) -> bool:
    """Copy some rows; False when there are none beyond the cursor."""
    assert copy.external_id is not None
    if copy.metric_seq >= job.metric_seq:
        return False
    with reading(context.sessions) as session:
        replaced = _replaced(session, copy, job)
        ranges = job.superseded
        slices, last = page_slices(session, job.id, copy.metric_seq, writer.rows_per_write, ranges=ranges)
    points = [
        MetricPoint(row.split, row.name, row.step, row.value, row.at, row.epoch)
        for piece in slices
        for row in piece.columns.rows(piece.places[~piece.superseded[piece.places]])
    ]
    restart = None
    if replaced is not None:
        points = [point._replace(at=replaced.times.get(point.identity, point.at)) for point in points]
        if not replaced.times or (points and min(point.step for point in points) > replaced.last_step):
            copy.position["superseded"] = count_superseded(ranges)
        if points and replaced.first_step is not None:
            restart = replaced.first_step
            copy.position["restarted"] = [list(one) for one in ranges]
    writer.write(copy.external_id, points, copy.position, restart)
    fp("after_mirror_write")
    copy.metric_seq = last
    _save(context, copy)
    return True


def _replaced(session: Session, copy: ClaimedCopy, job: JobView) -> Replaced | None:
    """Return the rows that were copied and are run again; None when the mirror is past them.

    A row that is measured again with the same value keeps the time of the first: then it is the same row to the mirror.
    """
    if count_superseded(job.superseded) == copy.position.get("superseded", 0):
        return None
    found = Replaced()
    taken_back = copy.position.get("restarted", ())
    for first, last in job.superseded:
        last = min(last, copy.metric_seq)
        if first > last:
            continue
        for piece in scan(session, job.id, first - 1, ranges=()):
            places = piece.places[piece.seq[piece.places] <= last]
            for seq, row in zip(piece.seq[places].tolist(), piece.columns.rows(places), strict=True):
                point = MetricPoint(row.split, row.name, row.step, row.value, row.at, row.epoch)
                found.times.setdefault(point.identity, point.at)
                found.last_step = max(found.last_step, point.step)
                if not any(begin <= seq <= end for begin, end in taken_back):
                    found.first_step = point.step if found.first_step is None else min(found.first_step, point.step)
            if piece.last_seq >= last or len(found.times) > MAX_REPLACED:
                break
    return found


def _copy_files(context: Context, writer: MirrorWriter, copy: ClaimedCopy, job: JobView, end: float) -> bool:
    """Copy the files that are not there yet; False when the time is over before."""
    assert copy.external_id is not None
    with reading(context.sessions) as session:
        files = files_of(session, context, job.id)
    for file in files:
        if file.name in copy.position.get("files", ()):
            continue
        if time.monotonic() > end:
            return False
        _save(context, copy, CLAIM_SECONDS + upload_seconds(file.size))
        writer.put_file(copy.external_id, file.name, file.parts(context), file.size, copy.position)
        fp("after_mirror_file")
        copy.position["files"] = [*copy.position.get("files", ()), file.name]
        _save(context, copy)
    return True


def _save(context: Context, copy: ClaimedCopy, claim_seconds: float = CLAIM_SECONDS) -> None:
    values = {
        "external_id": copy.external_id,
        "metric_seq": copy.metric_seq,
        "event_seq": copy.event_seq,
        "position": copy.position,
    }
    with context.sessions.begin() as session:
        if not repository.save(session, copy.mirror_id, copy.claim, claim_seconds, **values):
            raise StaleFence(copy.claim.id)

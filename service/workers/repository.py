"""SQL of workers' heartbeats, and of the lease that lets one worker at a time run housekeeping."""

from __future__ import annotations

from typing import Any

from sqlalchemy import delete, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from service.database import db_now, db_time, rows_changed
from service.workers.tables import Housekeeping, Worker

ALIVE_SECONDS = 30.0
FORGET_SECONDS = 3600.0
FAR_SECONDS = 60.0


def record_heartbeat(session: Session, worker_id: str, **about: Any) -> None:
    """Insert or renew a worker's row; `about` holds host, pid, queues, slots, device, versions."""
    now = db_time(session)
    known = session.get(Worker, worker_id)
    if known is None:
        session.add(Worker(id=worker_id, started_at=now, seen_at=now, **about))
    else:
        known.seen_at = now


def remove(session: Session, worker_id: str) -> None:
    """Delete the row of a worker that shuts down."""
    session.execute(delete(Worker).where(Worker.id == worker_id))


def claim_housekeeping(session: Session, owner: str, seconds: float) -> bool:
    """Claim or renew the lease of housekeeping for `seconds`; False while another owner holds it."""
    claimed = session.execute(
        update(Housekeeping)
        .where(
            Housekeeping.name == "housekeeping",
            or_(
                Housekeeping.owner == owner,
                Housekeeping.expires_at < db_now(),
                Housekeeping.expires_at > db_now(plus=2 * seconds + FAR_SECONDS),  # the clock was set back
            ),
        )
        .values(owner=owner, expires_at=db_now(plus=seconds))
        .returning(Housekeeping.name)
        .execution_options(synchronize_session=False)
    ).first()
    if claimed is not None:
        return True
    if session.get(Housekeeping, "housekeeping") is not None:
        return False
    try:
        with session.begin_nested():
            expires = session.scalar(select(db_now(plus=seconds)))
            session.add(Housekeeping(name="housekeeping", owner=owner, expires_at=expires))
    except IntegrityError:
        return False
    return True


def alive(session: Session, *, host: str | None = None) -> list[Worker]:
    """Return the workers with a recent heartbeat, of one host or of all."""
    lately = select(Worker).where(Worker.seen_at > db_now(plus=-ALIVE_SECONDS))
    if host is not None:
        lately = lately.where(Worker.host == host)
    return list(session.scalars(lately.order_by(Worker.id)))


def train_slots(session: Session) -> int:
    """Sum the slots of the live workers that train."""
    return sum(worker.slots for worker in alive(session) if "train" in worker.queues)


def remove_silent(session: Session, limit: int) -> int:
    """Delete up to `limit` workers without a heartbeat for `FORGET_SECONDS`; returns how many."""
    silent = select(Worker.id).where(Worker.seen_at < db_now(plus=-FORGET_SECONDS)).limit(limit)
    return rows_changed(session.execute(delete(Worker).where(Worker.id.in_(silent))))

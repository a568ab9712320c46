"""Workers say that they are alive; housekeeping is one worker's turn at a time."""

from __future__ import annotations

from typing import Any

from sqlalchemy import delete, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from service.database import db_now
from service.workers.tables import Housekeeping, Worker

ALIVE_SECONDS = 30.0
FORGET_SECONDS = 3600.0
FAR_SECONDS = 60.0


def seen(session: Session, worker_id: str, **about: Any) -> None:
    """Renew a worker's sign of life; `about` holds host, pid, queues, slots, device, versions."""
    now = session.scalar(select(db_now()))
    assert now is not None
    known = session.get(Worker, worker_id)
    if known is None:
        session.add(Worker(id=worker_id, started_at=now, seen_at=now, **about))
    else:
        known.seen_at = now


def gone(session: Session, worker_id: str) -> None:
    """The worker says good-bye."""
    session.execute(delete(Worker).where(Worker.id == worker_id))


def take_housekeeping(session: Session, owner: str, seconds: float) -> bool:
    """Whether it is this owner's turn to keep house; the turn lasts `seconds`."""
    mine = session.execute(
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
    if mine is not None:
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
    """Workers seen lately, of one host or of all."""
    lately = select(Worker).where(Worker.seen_at > db_now(plus=-ALIVE_SECONDS))
    if host is not None:
        lately = lately.where(Worker.host == host)
    return list(session.scalars(lately.order_by(Worker.id)))


def forget_old(session: Session) -> None:
    """Drop workers that have long been silent."""
    session.execute(delete(Worker).where(Worker.seen_at < db_now(plus=-FORGET_SECONDS)))

"""What may be counted only once it has happened: after the commit, never after a rollback."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import event
from sqlalchemy.orm import Session

WAITING = "after_commit"


def after_commit(session: Session, act: Callable[[], object]) -> None:
    """Do `act` when the session's transaction has been committed; forget it when it is rolled back."""
    session.info.setdefault(WAITING, []).append(act)


@event.listens_for(Session, "after_commit")
def _committed(session: Session) -> None:
    if not session.in_nested_transaction():
        for act in session.info.pop(WAITING, ()):
            act()


@event.listens_for(Session, "after_rollback")
def _rolled_back(session: Session) -> None:
    if not session.in_nested_transaction():
        session.info.pop(WAITING, None)

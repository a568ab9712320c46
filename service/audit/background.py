"""Sealing and the counting of refusals, every second, as long as the API runs."""

from __future__ import annotations

import logging

import anyio
from anyio import CancelScope, to_thread
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session, sessionmaker

from service.audit import service
from service.audit.refusals import Refusals

log = logging.getLogger(__name__)
SEAL_SECONDS = 1.0


async def keep_audit_log(sessions: sessionmaker[Session], refusals: Refusals) -> None:
    """Write counted refusals and seal what was committed, every SEAL_SECONDS, until cancelled; then once more."""
    try:
        while True:
            await anyio.sleep(SEAL_SECONDS)
            await to_thread.run_sync(_keep, sessions, refusals, False)
    finally:
        with CancelScope(shield=True):
            await to_thread.run_sync(_keep, sessions, refusals, True)


def _keep(sessions: sessionmaker[Session], refusals: Refusals, last: bool) -> None:
    try:
        refusals.write(sessions, all_of_it=last)
        service.seal(sessions)
    except DBAPIError as error:
        log.debug("the audit log waits: the database does not answer: %s", error.orig)
    except Exception:
        log.exception("keeping the audit log failed")

"""The API's own look at leases of ended processes of its host: when all workers are killed, no housekeeping is left."""

from __future__ import annotations

import logging

import anyio
from anyio import to_thread
from sqlalchemy.exc import DBAPIError

from service.background.lease_expiry import release_ended
from service.context import Context

log = logging.getLogger(__name__)
WATCH_SECONDS = 1.0


async def watch_leases(context: Context) -> None:
    """Give back what ended processes of this host held, every WATCH_SECONDS, until cancelled."""
    limit = context.settings.max_interruptions
    while True:
        await anyio.sleep(WATCH_SECONDS)
        try:
            await to_thread.run_sync(release_ended, context.sessions, limit, context.doorbell.ring)
        except DBAPIError as error:
            log.debug("leases are not watched: the database does not answer: %s", error.orig)
        except Exception:
            log.exception("watching leases failed")

"""`python -m worker.healthcheck`: exit 0 when a worker of this host has sent a heartbeat lately."""

from __future__ import annotations

import socket
import sys

from sqlalchemy.exc import DBAPIError

from service.database import make_engine
from service.sessions import session_factory
from service.settings import Settings
from service.workers.repository import alive


def main() -> int:
    sessions = session_factory(make_engine(Settings.from_env().database_url))
    try:
        with sessions() as session:
            found = alive(session, host=socket.gethostname())
    except DBAPIError as error:
        print(f"the database is away: {error.orig}", file=sys.stderr)
        return 1
    print("\n".join(f"{worker.id} {','.join(worker.queues)}" for worker in found) or "no worker of this host is alive")
    return 0 if found else 1


if __name__ == "__main__":
    sys.exit(main())

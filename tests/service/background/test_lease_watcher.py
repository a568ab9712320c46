"""The API gives back what ended processes of its host held: when all workers are killed, no housekeeping is left."""

from __future__ import annotations

import os
import sys

import pytest
from sqlalchemy import update

from service import process_identity
from service.jobs.tables import Job
from tests.support.api import Served
from tests.support.stack import wait_for

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has /proc")


def test_the_api_gives_the_job_of_a_killed_worker_back(service: Served) -> None:
    child = os.fork()
    if not child:
        os._exit(0)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    identity = process_identity._of_process(child)
    job = service.submit()
    service.claim()
    with service.sessions.begin() as session:
        session.execute(update(Job).values(lease_process=identity))
    wait_for(lambda: service.job(job)["state"] == "queued", seconds=25, what="a lease of 30 s that is not waited for")
    os.waitpid(child, 0)

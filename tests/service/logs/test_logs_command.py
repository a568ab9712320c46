"""`trainkit jobs logs` against a service that listens."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn

from service.jobs import attempts
from tests.support.api import Served

pytestmark = pytest.mark.parametrize("migrated_url", ["sqlite"], indirect=True)
COMMAND = [str(Path(sys.executable).parent / "trainkit"), "jobs", "logs"]


@pytest.fixture
def url(service: Served) -> Iterator[str]:
    server = uvicorn.Server(uvicorn.Config(service.app, port=0, log_level="warning", lifespan="off"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join()


def trainkit(service: Served, url: str, *arguments: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "TRAINKIT_URL": url, "TRAINKIT_KEY": service.key("default", "viewer")}
    both = subprocess.PIPE
    return subprocess.Popen([*COMMAND, *arguments], env=environment, stdout=both, stderr=both, text=True)


def output_of(process: subprocess.Popen[str]) -> tuple[int, list[str], str]:
    out, err = process.communicate(timeout=60)
    return process.returncode, [line.split(" ", 1)[1] for line in out.splitlines()], err


def test_lines_are_printed_filtered_and_followed(service: Served, url: str) -> None:
    job = service.submit()
    first = service.claim()
    service.say(first, *(f"line {n}" for n in range(1500)))
    service.say(first, "Broken", level="error")
    with service.sessions.begin() as session:
        attempts.hand_back(session, first.claim, "x")
    second = service.claim("worker-2")
    service.say(second, "again")
    following = trainkit(service, url, job, "--follow", "--tail", "2")
    every = [f"1 info line {n}" for n in range(1500)] + ["1 error Broken", "2 info again"]
    assert output_of(trainkit(service, url, job)) == (0, every, "")
    assert output_of(trainkit(service, url, job, "--level", "warning"))[1] == ["1 error Broken"]
    assert output_of(trainkit(service, url, job, "--grep", "LINE 149", "--attempt", "1"))[1] == [
        *(f"1 info line {n}" for n in [149, *range(1490, 1500)]),
    ]
    assert output_of(trainkit(service, url, job, "--tail", "1"))[1] == ["2 info again"]
    service.say(second, "last")
    service.finish(second)
    assert output_of(following) == (0, ["1 error Broken", "2 info again", "2 info last"], "")


def test_what_is_wrong_is_said_in_one_line(service: Served, url: str) -> None:
    code, out, err = output_of(trainkit(service, url, "job_nobody"))
    assert (code, out) == (3, [])
    assert err.startswith("trainkit: There is no job 'job_nobody'")
    code, _, err = output_of(trainkit(service, "http://127.0.0.1:1", "job_x"))
    assert (code, len(err.splitlines())) == (5, 1)

"""The log of a job over HTTP: filters, cursor, tail, waiting, two forms; under the fence, without a gap."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from service.jobs import attempts
from service.leases import Claim
from service.logs import service as log_service
from service.logs.chunks import CUT, LINE_CHARACTERS, LogLine, clean, decode, encode
from tests.support.api import Served

SQLITE = pytest.mark.parametrize("migrated_url", ["sqlite"], indirect=True)


def logs(service: Served, job: str, query: str = "") -> Any:
    answer = service.client.get(f"/v1/jobs/{job}/logs?format=json{query}")
    assert answer.status_code == 200, answer.text
    return answer.json()


def texts(service: Served, job: str, query: str = "") -> list[str]:
    return [line["text"] for line in logs(service, job, query)["data"]]


@pytest.fixture
def job(service: Served) -> str:
    """Two attempts: 0..9 in two flushes, of which 3 is a warning and 7 an error, then a and b."""
    job = service.submit()
    first = service.claim()
    service.say(first, *(f"line {n}" for n in range(3)))
    service.say(first, "LogLine 3", level="warning")
    service.say(first, *(f"line {n}" for n in range(4, 7)))
    service.say(first, "line 7", level="error")
    service.say(first, "line 8", "line 9", level="debug")
    with service.sessions.begin() as session:
        attempts.hand_back(session, first.claim, "the worker stops")
    service.say(service.claim("worker-2"), "a", "b")
    return job


def test_every_line_of_every_attempt_by_a_gap_free_seq(service: Served, job: str) -> None:
    everything = logs(service, job)
    assert [line["seq"] for line in everything["data"]] == list(range(1, 13))
    assert [line["attempt"] for line in everything["data"]] == [1] * 10 + [2] * 2
    assert (everything["next"], everything["done"]) == (12, False)
    line = everything["data"][3]
    assert set(line) == {"seq", "at", "attempt", "level", "source", "text"}
    assert (line["level"], line["source"], line["text"]) == ("warning", "training", "LogLine 3")
    assert line["at"].endswith("Z")


def test_filters_narrow_and_the_cursor_passes_over_the_rest(service: Served, job: str) -> None:
    assert texts(service, job, "&attempt=2") == ["a", "b"]
    assert texts(service, job, "&level=warning") == ["LogLine 3", "line 7"]
    assert texts(service, job, "&contains=LINE 3") == ["LogLine 3"]
    assert texts(service, job, "&level=error&attempt=2") == []
    assert logs(service, job, "&level=error&attempt=2")["next"] == 12
    page = logs(service, job, "&level=info&limit=5")
    assert ([line["seq"] for line in page["data"]], page["next"]) == ([1, 2, 3, 4, 5], 5)
    rest = logs(service, job, f"&level=info&after={page['next']}")
    assert ([line["seq"] for line in rest["data"]], rest["next"]) == ([6, 7, 8, 11, 12], 12)
    assert logs(service, job, "&after=99") == {"data": [], "next": 99, "done": False}


def test_the_tail_is_the_last_of_what_is_wanted(service: Served, job: str) -> None:
    assert texts(service, job, "&tail=3") == ["line 9", "a", "b"]
    assert texts(service, job, "&tail=1&level=warning") == ["line 7"]
    assert texts(service, job, "&tail=100&after=10") == ["a", "b"]
    assert logs(service, job, "&tail=1&level=warning")["next"] == 12
    text = service.client.get(f"/v1/jobs/{job}/logs?tail=1").text
    assert text.split(" ", 1)[1] == "2 info b\n"


def test_text_is_the_default_and_accept_chooses(service: Served, job: str) -> None:
    answer = service.client.get(f"/v1/jobs/{job}/logs")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    lines = answer.text.splitlines()
    assert len(lines) == int(answer.headers["trainkit-next"]) == 12
    assert lines[3].split(" ")[1:] == ["1", "warning", "LogLine", "3"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    for accept, kind in (
        ("application/json", "application/json"),
        ("text/plain, application/json", "text/plain"),
        ("text/html, application/json;q=0.5", "application/json"),
        ("*/*", "text/plain"),
    ):
        answer = service.client.get(f"/v1/jobs/{job}/logs", headers={"Accept": accept})
        assert answer.headers["content-type"].startswith(kind), accept


def test_text_has_all_of_a_long_log_and_a_limit_cuts(service: Served) -> None:
    job = service.submit()
    claimed = service.claim()
    for start in range(0, 3000, 300):
        service.say(claimed, *(f"line {start + n}" for n in range(300)))
    lines = service.client.get(f"/v1/jobs/{job}/logs").text.splitlines()
    assert [line.rsplit(" ", 1)[1] for line in lines] == [str(n) for n in range(3000)]
    assert len(service.client.get(f"/v1/jobs/{job}/logs?contains=7").text.splitlines()) == sum(
        "7" in str(n) for n in range(3000)
    )
    cut = service.client.get(f"/v1/jobs/{job}/logs?limit=10&after=5")
    assert (len(cut.text.splitlines()), cut.headers["trainkit-next"]) == (10, "15")
    assert len(logs(service, job)["data"]) == 1000


def test_waiting_answers_when_a_wanted_line_comes(service: Served, job: str) -> None:
    claimed = service.job(job)
    assert claimed["state"] == "running"

    def work() -> None:
        with service.sessions.begin() as session:
            log_service.append(session, Claim(job, 2), [LogLine(time.time(), "info", "supervisor", "not wanted")])
        time.sleep(0.3)
        with service.sessions.begin() as session:
            log_service.append(session, Claim(job, 2), [LogLine(time.time(), "error", "supervisor", "wanted")])

    later = threading.Timer(0.3, work)
    later.start()
    found = logs(service, job, "&after=12&level=error&wait=20")
    later.join()
    assert [(line["seq"], line["source"], line["text"]) for line in found["data"]] == [(14, "supervisor", "wanted")]
    begun = time.monotonic()
    assert logs(service, job, "&after=14&wait=0.5") == {"data": [], "next": 14, "done": False}
    assert time.monotonic() - begun >= 0.5


def test_the_end_is_told(service: Served) -> None:
    job = service.submit()
    claimed = service.claim()
    service.say(claimed, "one", "two")
    service.finish(claimed)
    assert logs(service, job, "&limit=1")["done"] is False
    assert logs(service, job, "&after=1&wait=20")["done"] is True
    assert logs(service, job, "&after=2&wait=20") == {"data": [], "next": 2, "done": True}


@SQLITE
def test_a_stranger_s_log_is_not_there_and_wrong_queries_are_refused(service: Served, job: str) -> None:
    assert service.client_for("other").get(f"/v1/jobs/{job}/logs").status_code == 404
    for query in ("level=loud", "attempt=0", "limit=0", "tail=5001", "wait=26", "after=-1", "format=xml"):
        answer = service.client.get(f"/v1/jobs/{job}/logs?{query}")
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request"), query


@SQLITE
def test_a_job_of_an_earlier_version_shows_its_file(service: Served) -> None:
    job = service.submit()
    claimed = service.claim()
    part = service.context.storage.new_part()
    part.write_bytes("für all".encode())
    key = f"artifacts/{job}/1-log.txt"
    service.context.storage.put_file(key, part)
    service.finish(claimed, files=[attempts.StoredFile("log.txt", key, "text/plain", 8)])
    assert service.client.get(f"/v1/jobs/{job}/logs").text == "für all"
    assert logs(service, job)["data"] == []


def test_lines_are_cleaned_and_kept_as_they_are_otherwise(service: Served) -> None:
    job = service.submit()
    claimed = service.claim()
    service.say(claimed, "a\x00b\x1b[31mred\x1b[0m\tü 😀\r", "x" * 10_000, "\ud800", "")
    red, long, half, empty = texts(service, job)
    assert red == "abred\tü 😀"
    assert long == "x" * LINE_CHARACTERS + CUT
    assert (half, empty) == ("", "")


def test_a_body_gives_back_its_lines() -> None:
    lines = [LogLine(1e9 + n / 1000, "warning", "supervisor", f"text {n} ü") for n in range(50)]
    assert decode(encode(lines)) == lines
    assert clean(lines[0]) == lines[0]

"""The stream of a list of jobs: nothing is lost, whatever changes, and a thousand quiet jobs cost next to nothing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

import pytest

from service.jobs import list_stream, list_watcher
from service.jobs.list_stream import follow, parse_event_id
from service.jobs.list_watcher import JobListWatcher
from service.jobs.routes import JOB_STREAM
from tests.support.api import Served, assert_problem, row
from tests.support.bulk_rows import Amounts, fill, finished_job
from tests.support.example_checks import event_schemas, schema_errors

pytestmark = pytest.mark.postgresql
BUDGET = 40_000
"""Bytes a minute that a dashboard of 1,000 unchanged jobs may cost."""


@pytest.fixture(autouse=True)
def fast_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(list_watcher, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(list_watcher, "MAX_SHARE", 0.9)
    monkeypatch.setattr(list_watcher, "RECONCILE_SECONDS", 0.2)


@dataclass
class Reader:
    """A client of the stream, which keeps the list as the documentation says."""

    jobs: dict[str, Any] = field(default_factory=dict)
    last_id: str | None = None
    received: int = 0
    syncs: int = 0
    messages: list[tuple[str, Any]] = field(default_factory=list)
    """(event, data), comments left out."""

    def take(self, message: bytes) -> None:
        self.received += len(message)
        fields = dict(line.split(": ", 1) for line in message.decode().splitlines() if line and line[0] != ":")
        self.last_id = fields.get("id", self.last_id)
        data = json.loads(fields.get("data", "null"))
        if "event" in fields:
            self.messages.append((fields["event"], data))
        match fields.get("event"):
            case "sync":
                self.syncs += 1
                self.jobs = {job: self.jobs.get(job) for job in data["ids"]}
            case "jobs":
                self.jobs.update({job["id"]: job for job in data})
            case "left":
                for job in data:
                    del self.jobs[job]


Script = Callable[["Session"], Coroutine[Any, Any, None]]


@dataclass
class Session:
    """Two readers of one list, one of whom comes back now and then."""

    service: Served
    query: str
    readers: list[Reader]
    streams: list[AsyncGenerator[bytes]] = field(default_factory=list)

    def open(self, watcher: JobListWatcher, project: str) -> None:
        query = JOB_STREAM.parse(parse_qsl(self.query))
        self.streams = [
            follow(watcher, project, query, self.query, parse_event_id(reader.last_id)) for reader in self.readers
        ]

    async def read(self, until: Callable[[Reader], bool]) -> None:
        """Let every reader read on until it has what is expected of it."""
        for reader, stream in zip(self.readers, self.streams, strict=True):
            async with asyncio.timeout(10):
                while not until(reader):
                    reader.take(await anext(stream))

    async def same_as_list(self) -> None:
        """Wait until every reader has what the list has now."""
        query = self.query if "limit" in self.query else f"limit=1000&{self.query}"
        answer = await asyncio.to_thread(self.service.client.get, f"/v1/jobs?{query}")
        expected = {job["id"]: job for job in answer.json()["data"]}
        await self.read(lambda reader: reader.jobs == expected)


def play(service: Served, query: str, *scripts: Script) -> list[Reader]:
    """Run the scripts, each with a new connection of the same readers."""
    readers = [Reader(), Reader()]
    project = service.client.get("/v1/projects").json()["data"][0]["id"]

    async def run() -> None:
        for script in scripts:
            session = Session(service, query, readers)
            session.open(JobListWatcher(service.sessions), project)
            async with aclosing(session.streams[0]), aclosing(session.streams[1]):
                await script(session)

    asyncio.run(run())
    return readers


def changes(service: Served) -> list[Callable[[], object]]:
    """One of everything that can happen to a list of jobs."""
    jobs = [service.submit(name=f"job-{number}") for number in range(3)]

    def run() -> None:
        claimed = service.claim()
        service.append(claimed, row("loss", 0.5))
        service.append(claimed, row("loss", 0.4, 2))

    def end() -> None:
        service.client.post(f"/v1/jobs/{jobs[1]}/cancel").raise_for_status()

    return [
        lambda: service.submit(name="new"),
        run,
        end,
        lambda: service.client.delete(f"/v1/jobs/{jobs[1]}").raise_for_status(),
        lambda: service.client.post(f"/v1/jobs/{jobs[2]}/cancel").raise_for_status(),
        lambda: service.client.post(f"/v1/jobs/{jobs[2]}/retry").raise_for_status(),
    ]


@pytest.mark.parametrize("query", ["", "state=queued", "limit=2", "name=job-*&fields=id,state,metrics.last"])
def test_readers_see_every_change(service: Served, query: str) -> None:
    steps = changes(service)

    async def script(session: Session) -> None:
        await session.same_as_list()
        for step in steps:
            await asyncio.to_thread(step)
            await session.same_as_list()

    one, other = play(service, query, script)
    assert one.jobs == other.jobs


def test_every_message_is_as_the_document_says(service: Served) -> None:
    steps = changes(service)

    async def script(session: Session) -> None:
        await session.same_as_list()
        for step in steps:
            await asyncio.to_thread(step)
            await session.same_as_list()

    reader, _ = play(service, "state=queued", script)
    document = service.app.openapi()
    events = event_schemas(document, "/v1/jobs/stream")
    assert {event for event, _ in reader.messages} == set(events)
    for event, data in reader.messages:
        assert not list(schema_errors(document, events[event], data)), event


def test_a_reader_who_comes_back_has_missed_nothing(service: Served) -> None:
    steps = changes(service)
    scripts: list[Script] = []

    async def look(session: Session) -> None:
        await session.same_as_list()

    for step in steps:

        async def away(session: Session, step: Callable[[], object] = step) -> None:
            await session.same_as_list()
            # from here on it reads no more
            await asyncio.to_thread(step)

        scripts += [away, look]
    readers = play(service, "", *scripts)
    assert readers[0].last_id is not None


def test_a_slow_reader_gets_the_whole_list_anew(service: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    service.submit(name="first")

    async def script(session: Session) -> None:
        await session.same_as_list()
        watch_of = session.streams[1].ag_frame.f_locals["watch"]
        for number in range(3):
            before = watch_of.number
            await asyncio.to_thread(service.submit, name=f"job-{number}")
            async with asyncio.timeout(10):
                while watch_of.number == before:
                    await asyncio.sleep(0.01)
        await session.same_as_list()

    monkeypatch.setattr(list_watcher, "CHANGES_KEPT", 2)
    _, slow = play(service, "", script)
    assert slow.syncs == 2


def test_heartbeats_keep_a_quiet_stream_alive(service: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(list_stream, "PING_SECONDS", 0.05)
    sent: list[bytes] = []

    async def script(session: Session) -> None:
        for _ in range(4):
            sent.append(await anext(session.streams[0]))

    play(service, "", script)
    assert [part for part in sent if part.startswith(b":")]


def test_wrong_ids_and_pages_are_refused(service: Served) -> None:
    answer = service.client.get("/v1/jobs/stream", headers={"Last-Event-ID": "x"})
    assert_problem(answer, 422, "bad_cursor")
    for query in ("after=abc", "state=nonsense", "zzz=1", "fields=nothing"):
        assert service.client.get(f"/v1/jobs/stream?{query}").status_code == 422
    head = service.client.head("/v1/jobs/stream?state=running")
    assert (head.status_code, head.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")


def size(answer: Any) -> int:
    """Bytes of a request and its answer, heads included."""
    heads = [*answer.request.headers.items(), *answer.headers.items()]
    return sum(len(name) + len(value) + 4 for name, value in heads) + len(str(answer.request.url)) + len(answer.content)


def test_a_dashboard_of_a_thousand_unchanged_jobs_is_cheap(service: Served) -> None:
    job = finished_job(service)
    fill(service.context.engine, job, Amounts(queued=500, ended=499))
    first = service.client.get("/v1/jobs?limit=1000")
    assert len(first.json()["data"]) == 1000
    assert len(first.content) < 400 * 1000
    known = {"If-None-Match": first.headers["etag"]}
    polls = [service.client.get("/v1/jobs?limit=1000", headers=known) for _ in range(3)]
    assert {poll.status_code for poll in polls} == {304}
    polled = 30 * max(map(size, polls))  # every two seconds
    waited = (60 / 25) * max(map(size, polls))
    pages = size(service.client.get("/v1/jobs?limit=200", headers={"If-None-Match": "*"}))
    assert max(polled, waited, 30 * pages) < BUDGET, (polled, waited, pages)

    async def script(session: Session) -> None:
        await session.read(lambda reader: len(reader.jobs) == 1000 and all(reader.jobs.values()))
        before = [reader.received for reader in session.readers]
        for reader, stream in zip(session.readers, session.streams, strict=True):
            with pytest.raises(TimeoutError):  # noqa: PT012
                async with asyncio.timeout(0.5):
                    while True:
                        reader.take(await anext(stream))
        assert [reader.received for reader in session.readers] == before

    play(service, "", script)
    heartbeats = 60 / list_stream.PING_SECONDS * len(list_stream.KEEPALIVE_COMMENT)
    assert heartbeats < 100

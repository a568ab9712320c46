"""Load shedding: a bounded number of requests in work, fair turns for the others, and 503 in time for the rest."""

from __future__ import annotations

import asyncio
import gc
import itertools
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest
from httpx import ASGITransport, AsyncClient, Response
from sqlalchemy import select
from starlette.types import Message, Receive, Scope, Send

from service.jobs.tables import Job
from service.load_shedding import IN_WORK, MAX_RETRY_SECONDS, WAITING, LoadShedding, Place, leave_work
from service.principal import Principal
from tests.support.api import Served, assert_problem

Handler = Callable[[str, Receive], Awaitable[None]]


class Load:
    """Requests to an application that finishes each when the test says so."""

    def __init__(self, handler: Handler | None = None, **limits: Any) -> None:
        self.begun: list[str] = []
        self.finish: dict[str, asyncio.Event] = {}
        self.answers: dict[str, tuple[int, dict[bytes, bytes], bytes]] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self._handler = handler
        self.load_shedding = LoadShedding(self._work, **{"wait_seconds": 30.0, **limits})

    async def _work(self, scope: Scope, receive: Receive, send: Send) -> None:
        name = scope["path"][1:]
        self.begun.append(name)
        if self._handler is not None:
            await self._handler(name, receive)
        if name in self.finish:
            await self.finish[name].wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})

    async def send(self, name: str, project: str = "p", receive: Receive | None = None, *, hold: bool = True) -> None:
        """Send a request and let everything that can happen at once happen."""
        if hold:
            self.finish[name] = asyncio.Event()
        messages: list[Message] = []

        async def keep(message: Message) -> None:
            messages.append(message)
            if message["type"] == "http.response.body":
                first = messages[0]
                self.answers[name] = first["status"], dict(first["headers"]), message["body"]

        async def nothing() -> Message:
            return {"type": "http.request", "body": b"", "more_body": False}

        principal = Principal("k", project, "developer")
        scope = {"type": "http", "path": f"/{name}", "state": {"principal": principal}, "headers": []}
        self.tasks[name] = asyncio.create_task(self.load_shedding(scope, receive or nothing, keep))
        await self.settle()

    async def end(self, name: str) -> None:
        self.finish[name].set()
        await self.settle()

    async def settle(self) -> None:
        for _ in range(20):
            await asyncio.sleep(0)

    def status(self, name: str) -> int | None:
        return self.answers[name][0] if name in self.answers else None


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(test, 20))


def test_beyond_the_limit_requests_wait_and_beyond_those_are_refused_at_once() -> None:
    async def test() -> None:
        load = Load(limit=2, waiting=3)
        for number in range(7):
            await load.send(f"r{number}")
        assert load.begun == ["r0", "r1"]
        assert {name: load.status(name) for name in ("r4", "r5", "r6")} == {"r4": None, "r5": 503, "r6": 503}
        _, headers, body = load.answers["r5"]
        assert headers[b"retry-after"] == b"1"
        assert json.loads(body)["code"] == "overloaded"
        for number in range(5):
            await load.end(f"r{number}")
        assert load.begun == [f"r{number}" for number in range(5)], "in their order, each once"
        assert [load.status(f"r{number}") for number in range(5)] == [200] * 5
        await load.send("later", hold=False)
        assert load.status("later") == 200

    run(test())


def test_who_waits_too_long_is_refused_and_nothing_of_the_request_was_begun() -> None:
    async def test() -> None:
        load = Load(limit=1, wait_seconds=0.05)
        await load.send("first")
        await load.send("second")
        await load.tasks["second"]
        assert (load.status("second"), load.begun) == (503, ["first"])
        await load.end("first")
        await load.send("third", hold=False)
        assert load.status("third") == 200

    run(test())


def test_no_more_wait_than_will_have_their_turns_in_time_and_the_others_come_back_one_by_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def test() -> None:
        now, loop = 1000.0, asyncio.get_running_loop()
        monkeypatch.setattr(loop, "time", lambda: now)
        load = Load(limit=1, waiting=100, wait_seconds=2.0)
        for number in range(4):
            await load.send(f"r{number}")
        for number in range(10):  # two requests a second
            now += 0.5
            await load.send(f"r{number + 4}")
            await load.end(f"r{number}")
        await load.send("the fourth")
        assert [load.status(name) for name in ("r13", "the fourth")] == [None, None], "in two seconds it has its turn"
        for number in range(40):
            await load.send(f"late{number}")
        delays = [int(load.answers[f"late{number}"][1][b"retry-after"]) for number in range(40)]
        assert delays[:4] == [3, 3, 4, 4], "behind the four that wait, and those that were refused before"
        assert delays == sorted(delays)
        assert delays[-1] == MAX_RETRY_SECONDS
        now += 60
        await load.send("much later")
        assert load.answers["much later"][1][b"retry-after"] == b"3"

    run(test())


def test_projects_take_turns_however_many_requests_one_of_them_sends() -> None:
    async def test() -> None:
        load = Load(limit=1)
        await load.send("first", "many")
        for number in range(3):
            await load.send(f"many{number}", "many")
        await load.send("few0", "few")
        for name in ("first", "many0", "few0", "many1", "many2"):
            await load.end(name)
        assert load.begun == ["first", "many0", "few0", "many1", "many2"]

    run(test())


def test_a_project_that_fills_the_queue_gives_room_to_another() -> None:
    async def test() -> None:
        load = Load(limit=1, waiting=3)
        for number in range(4):
            await load.send(f"many{number}", "many")
        await load.send("few", "few")
        assert load.status("many3") == 503, "the last one of the longest queue"
        await load.send("few1", "few")
        assert load.status("few1") == 503, "no project pushes out one that has as few"
        for name in ("many0", "many1", "few", "many2"):
            await load.end(name)
        assert load.begun == ["many0", "many1", "few", "many2"]

    run(test())


def test_a_cancelled_request_leaves_the_queue_and_its_place() -> None:
    async def test() -> None:
        load = Load(limit=1, waiting=1)
        await load.send("in work")
        await load.send("waiting")
        load.tasks["waiting"].cancel()
        await load.settle()
        await load.send("next")
        assert load.status("next") is None, "there is room in the queue again"
        load.tasks["in work"].cancel()
        await load.settle()
        assert load.begun == ["in work", "next"]

    run(test())


def test_an_error_gives_the_place_back() -> None:
    async def fail(name: str, receive: Receive) -> None:
        if name == "wrong":
            raise RuntimeError(name)

    async def test() -> None:
        load = Load(fail, limit=1)
        await load.send("wrong", hold=False)
        assert isinstance(load.tasks["wrong"].exception(), RuntimeError)
        await load.send("right", hold=False)
        assert load.status("right") == 200

    run(test())


def test_who_waits_for_a_client_or_a_worker_keeps_nobody_waiting() -> None:
    async def wait_for_a_worker(name: str, receive: Receive) -> None:
        if name == "prediction":
            leave_work()
        if name == "upload":
            await receive()

    async def test() -> None:
        load = Load(wait_for_a_worker, limit=1)
        await load.send("prediction")
        await load.send("second", hold=False)
        assert (load.status("prediction"), load.status("second")) == (None, 200)
        sent = asyncio.Event()

        async def slowly() -> Message:
            await sent.wait()
            return {"type": "http.request", "body": b"x", "more_body": False}

        await load.send("upload", receive=slowly, hold=False)
        await load.send("third", hold=False)
        await load.tasks["third"]
        assert (load.status("upload"), load.status("third")) == (None, 200)
        sent.set()
        await load.tasks["upload"]
        assert load.status("upload") == 200

    run(test())


def test_who_is_slow_leaves_its_place_to_others_as_long_as_few_are() -> None:
    async def test() -> None:
        load = Load(limit=2, slow=3, slow_seconds=0.02)
        for number in range(8):
            await load.send(f"r{number}")
        assert load.begun == ["r0", "r1"]
        await asyncio.sleep(0.2)
        assert load.begun == ["r0", "r1", "r2", "r3", "r4"], "three are slow, and two more in work"
        await load.end("r0")
        assert load.begun[5:] == ["r5"]
        await asyncio.sleep(0.1)
        assert load.begun[6:] == []
        for number in range(1, 8):
            await load.end(f"r{number}")
        assert [load.status(f"r{number}") for number in range(8)] == [200] * 8
        for number in range(2):
            await load.send(f"later{number}")
        await load.send("waits")
        assert load.begun[8:] == ["later0", "later1"], "every place is free again, and there are no more than two"

    run(test())


def test_health_and_metrics_are_answered_under_any_load() -> None:
    async def test() -> None:
        load = Load(limit=1, waiting=0)
        await load.send("jobs")
        for name in ("healthz", "readyz", "metrics", "ui/index.html"):
            await load.send(name, hold=False)
            assert load.status(name) == 200
        await load.send("jobs2")
        assert load.status("jobs2") == 503

    run(test())


def test_of_many_requests_at_once_all_that_are_accepted_are_kept_and_the_others_know_it(service: Served) -> None:
    spec = {"dataset": service.ready_dataset(), "model": {"kind": "mlp"}}
    headers = dict(service.client.headers)
    keys = itertools.cycle([service.key("default") for _ in range(4)])  # one alone would meet the limit of a key

    async def submit(client: AsyncClient) -> Response:
        return await client.post("/v1/jobs", json=spec, headers={"Authorization": f"Bearer {next(keys)}"})

    async def everybody() -> tuple[list[Response], Response, Response]:
        async with AsyncClient(transport=ASGITransport(service.app), base_url="http://test", headers=headers) as client:
            await submit(client)
            requests = [asyncio.create_task(submit(client)) for _ in range(2 * (IN_WORK + WAITING))]
            await asyncio.sleep(0.01)
            health = await client.get("/healthz")
            return await asyncio.gather(*requests), health, await submit(client)

    answers, health, later = asyncio.run(everybody())
    statuses = Counter(answer.status_code for answer in answers)
    assert set(statuses) == {201, 503}
    assert statuses[201] >= IN_WORK
    assert statuses[503] >= IN_WORK + WAITING, "no more than so many wait"
    for answer in answers:
        if answer.status_code == 503:
            assert_problem(answer, 503, "overloaded")
            assert 1 <= int(answer.headers["retry-after"]) <= MAX_RETRY_SECONDS
    accepted = {answer.json()["id"] for answer in answers if answer.status_code == 201}
    with service.sessions() as session:
        kept = set(session.scalars(select(Job.id)))
    assert len(accepted) == statuses[201]
    assert accepted < kept
    assert len(kept) == len(accepted) + 2, "of the refused ones nothing was begun"
    assert (health.status_code, later.status_code) == (200, 201)


def test_a_request_that_has_ended_is_freed_while_others_wait() -> None:
    """Who leaves lets the next one in, within the own context: each would keep the one before, as long as there is load."""

    async def test() -> None:
        load = Load(limit=1, waiting=9)
        for number in range(8):
            await load.send(f"r{number}")
        for number in range(6):
            await load.end(f"r{number}")
            del load.tasks[f"r{number}"]
        await load.settle()
        gc.collect()
        assert load.begun[-1] == "r6", "the seventh is in work, and the eighth waits"
        # and the sixth, in whose context the seventh has its timer
        assert sum(isinstance(one, Place) for one in gc.get_objects()) == 3
        for number in (6, 7):
            await load.end(f"r{number}")

    run(test())

"""Following a job through a service that is killed: every row once, in order."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import anyio
import pytest

from tests.support.scripted_server import CUT, Exchange, Reply, problem, scripted_server
from tests.support.stack import Stack, wait_for
from trainkit_client import AsyncClient, Client, retries

JOB = "job_" + "0" * 26


class Reader(threading.Thread):
    """Collects rows in a thread, so that the test can do something meanwhile."""

    def __init__(self, rows: Any) -> None:
        super().__init__(daemon=True)
        self._source = rows
        self.rows: list[Any] = []
        self.error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            for row in self._source:
                self.rows.append(row)
        except BaseException as error:  # shown by the test
            self.error = error

    def finished(self) -> list[Any]:
        self.join(timeout=120)
        assert not self.is_alive()
        assert self.error is None, self.error
        return self.rows


def test_a_service_killed_three_times_yields_every_row_once(service: Stack, data: Path) -> None:
    with Client(service.url, service.key) as client:
        dataset = client.datasets.upload(data / "digits.zip").wait()
        job = client.jobs.create(
            dataset=dataset,
            model={"kind": "mlp", "hidden": [8]},
            train={"epochs": 100_000, "batch_size": 4},  # a hundred rows a second, and not a thousand
            early_stop=[],
        )
        metrics, logs, events = (Reader(rows(follow=True)) for rows in (job.metrics, job.logs, job.events))
        waiter = threading.Thread(target=job.wait, daemon=True)
        waiter.start()
        for _ in range(3):
            seen = len(metrics.rows)
            wait_for(lambda before=seen: len(metrics.rows) > before + 50, what="rows to come")
            service.kill("api")
            service.start_api()
        seen = len(metrics.rows)
        wait_for(lambda: len(metrics.rows) > seen + 50, what="rows after the last kill")
        client.jobs.get(job.id).stop(keep="last")

        followed = metrics.finished()
        assert [row.seq for row in followed] == list(range(1, len(followed) + 1))
        assert [row.to_dict() for row in followed] == job.metrics().to_dicts()
        assert [row.to_dict() for row in logs.finished()] == job.logs().to_dicts()
        assert [row.to_dict() for row in events.finished()] == job.events().to_dicts()
        waiter.join(timeout=60)
        assert job.state in ("stopped", "succeeded")


def row(seq: int) -> dict[str, Any]:
    return {"seq": seq, "name": "loss", "value": float(seq), "attempt": 1, "superseded": False}


def page(first: int, last: int, *, done: bool = False) -> Reply:
    return Reply(200, {"data": [row(seq) for seq in range(first, last + 1)], "next": last, "done": done})


@pytest.mark.parametrize("follow", [False, True])
def test_cuts_within_and_between_pages(monkeypatch: pytest.MonkeyPatch, follow: bool) -> None:
    monkeypatch.setattr(retries, "pause", lambda attempt, retry_after=None: 0.001)
    cut_within = Reply(200, page(4, 6).body, cut_after=40)
    replies = [page(1, 3), CUT, cut_within, problem(503), page(4, 6), problem(502), page(7, 7, done=True)]

    async def run(url: str) -> list[int]:
        async with AsyncClient(url, "tk_test") as client:
            job = (await client.jobs.list().all())[0]
            return [row.seq async for row in job.metrics(follow=follow)]

    listed = Reply(200, {"data": [{"id": JOB, "state": "running"}], "has_more": False, "next": None})
    with scripted_server(listed, *replies) as server:
        assert anyio.run(run, server.url) == [1, 2, 3, 4, 5, 6, 7]
    cursors = [exchange.path.partition("after=")[2].partition("&")[0] for exchange in server.exchanges[1:]]
    assert cursors == ["0", "3", "3", "3", "3", "6", "6"]


def test_a_follower_outlasts_more_cuts_than_a_request_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "pause", lambda attempt, retry_after=None: 0.001)
    job = Reply(200, {"id": JOB, "state": "running"})
    replies = [page(1, 1), *[CUT] * 20, page(2, 2, done=True)]
    with scripted_server(job, *replies) as server, Client(server.url, "tk_test", max_retries=1) as client:
        assert [row.seq for row in client.jobs.get(JOB).metrics(follow=True)] == [1, 2]


def test_superseded_rows_can_be_left_out() -> None:
    rows = [row(1), {**row(2), "superseded": True}, row(3)]
    answer = Reply(200, {"data": rows, "next": 3, "done": True})
    job = Reply(200, {"id": JOB, "state": "succeeded"})
    with scripted_server(job, answer) as server, Client(server.url, "tk_test") as client:
        assert [row.seq for row in client.jobs.get(JOB).metrics(superseded=False)] == [1, 3]


def test_values_that_are_not_finite_survive_in_frames() -> None:
    rows = [{**row(seq), "value": None, "nonfinite": word} for seq, word in enumerate(("nan", "inf", "-inf"), 1)]
    answers = [Reply(200, {"data": [*rows, row(4)], "next": 4, "done": True})] * 3
    job = Reply(200, {"id": JOB, "state": "failed"})
    with scripted_server(job, *answers) as server, Client(server.url, "tk_test") as client:
        metrics = client.jobs.get(JOB).metrics()
        columns = [metrics.to_pandas()["value"], metrics.to_polars()["value"], metrics.to_arrow()["value"].to_pylist()]
    for column in columns:
        assert str(list(column)) == "[nan, inf, -inf, 4.0]"


def test_tail_begins_with_the_last_lines_and_follows_from_there() -> None:
    lines = [{"seq": seq, "text": f"line {seq}"} for seq in range(1, 7)]
    job = Reply(200, {"id": JOB, "state": "running"})
    tail = Reply(200, {"data": lines[3:5], "next": 5, "done": False})

    def last(exchange: Exchange) -> Reply:
        assert "tail" not in exchange.path
        assert "after=5" in exchange.path
        return Reply(200, {"data": lines[5:], "next": 6, "done": True})

    with scripted_server(job, tail, last) as server, Client(server.url, "tk_test") as client:
        assert [line.seq for line in client.jobs.get(JOB).logs(tail=2, follow=True)] == [4, 5, 6]

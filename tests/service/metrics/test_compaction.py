"""Joining chunks changes how the log is stored, and nothing that anybody can read."""

from __future__ import annotations

import random
import threading
from typing import Any

import pytest
from sqlalchemy import delete, select, update

from service.jobs.tables import Job
from service.metrics import compaction
from service.metrics.tables import MetricChunk
from tests.support.api import Served, resume_elsewhere, row

pytestmark = pytest.mark.postgresql


def sizes(service: Served, job: str) -> list[tuple[int, int]]:
    """(rows, attempt) of each chunk."""
    with service.sessions() as session:
        found = select(MetricChunk).where(MetricChunk.job_id == job).order_by(MetricChunk.first_seq)
        return [(chunk.last_seq - chunk.first_seq + 1, chunk.fence) for chunk in session.scalars(found)]


def everything(service: Served, job: str) -> tuple[Any, str, Any]:
    whole = service.client.get(f"/v1/jobs/{job}/metrics?limit=5000")
    text = service.client.get(f"/v1/jobs/{job}/metrics.csv").text
    return whole.json(), text, service.client.get(f"/v1/jobs/{job}/metrics/series?max_points=20").json()


def test_a_log_of_many_attempts_reads_the_same_from_few_chunks(service: Served, monkeypatch: Any) -> None:
    monkeypatch.setattr(compaction, "ROWS_A_CHUNK", 100)
    numbers = random.Random(3)
    job = service.submit()
    claimed = service.claim()
    step = 0
    for attempt in range(4):
        for _ in range(40):
            count = numbers.randint(1, 9)
            names = [numbers.choice(["loss", "accuracy", "grad_norm"]) for _ in range(count)]
            service.append(claimed, *(row(name, numbers.random(), step := step + 1) for name in names))
        if attempt < 3:
            claimed = resume_elsewhere(service, claimed, numbers.randint(0, step // 2))
    before = everything(service, job)
    tag = service.client.get(f"/v1/jobs/{job}/metrics").headers["etag"]
    small = sizes(service, job)
    with service.sessions.begin() as session:
        service_compacted_seq = session.scalar(select(Job.compacted_seq).where(Job.id == job))
    assert service_compacted_seq == 0

    joined = compaction.compact_job(service.sessions, job)
    large = sizes(service, job)
    assert joined > 100
    assert len(large) < len(small) / 5
    assert [fence for _, fence in large] == sorted(fence for _, fence in large), "attempts stay apart"
    assert sum(rows for rows, _ in large) == step
    assert everything(service, job) == before
    assert service.client.get(f"/v1/jobs/{job}/metrics").headers["etag"] == tag
    # the open attempt's tail waits; with the end of the job it is joined too
    assert len([rows for rows, fence in large if fence == claimed.claim.fence]) > 2
    assert compaction.compact_job(service.sessions, job) == 0
    service.finish(claimed)
    compaction.compact(service.sessions)
    last = [rows for rows, fence in sizes(service, job) if fence == claimed.claim.fence]
    assert len(last) <= 3
    whole, _, series = everything(service, job)
    assert (whole["data"], series) == (before[0]["data"], before[2])
    assert compaction.compact(service.sessions) == 0, "what is done is not looked at again"


def test_whoever_reads_while_chunks_are_joined_sees_each_row_once(service: Served, monkeypatch: Any) -> None:
    monkeypatch.setattr(compaction, "ROWS_A_CHUNK", 64)
    job = service.submit()
    claimed = service.claim()
    for step in range(400):
        service.append(claimed, row("loss", step, step), row("accuracy", step, step))
    service.finish(claimed)
    stop = threading.Event()
    turns: list[int] = []

    def join() -> None:
        while not stop.is_set() and not (turns and turns[-1] == 0):
            turns.append(compaction.compact_job(service.sessions, job))

    joining = threading.Thread(target=join)
    joining.start()
    for _ in range(3):
        seen, after, done = [], 0, False
        while not done:
            page = service.client.get(f"/v1/jobs/{job}/metrics?after={after}&limit=7").json()
            seen += [r["seq"] for r in page["data"]]
            after, done = page["next"], page["done"]
        assert seen == list(range(1, 801))
    stop.set()
    joining.join()
    assert turns


def test_nothing_is_put_back_that_was_taken_away_meanwhile(service: Served) -> None:
    job = service.submit()
    claimed = service.claim()
    for step in range(10):
        service.append(claimed, row("loss", step, step))
    service.finish(claimed)
    with service.sessions.begin() as session:
        session.execute(delete(MetricChunk).where(MetricChunk.first_seq == 5))
        session.execute(update(Job).values(compacted_seq=0))
    assert not compaction._join(service.sessions, job, list(range(1, 11)))
    assert len(sizes(service, job)) == 9

"""Many who wait are one look; nobody misses anything, and nobody who is slow or gone holds up the others."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from service import job_watcher as hubs
from service.job_watcher import JobWatcher
from tests.support.api import Served, row


@pytest.fixture
def counted(service: Served, monkeypatch: pytest.MonkeyPatch) -> tuple[JobWatcher, list[int]]:
    """A hub, and how many jobs each of its looks asked for."""
    job_watcher, looks = JobWatcher(service.sessions), []
    real = JobWatcher._counters

    def count(self: JobWatcher, jobs: list[str]) -> Any:
        looks.append(len(jobs))
        return real(self, jobs)

    monkeypatch.setattr(JobWatcher, "_counters", count)
    monkeypatch.setattr(hubs, "LOOK_AGAIN", 0.02)
    return job_watcher, looks


def test_a_hundred_readers_are_woken_by_one_look(service: Served, counted: tuple[JobWatcher, list[int]]) -> None:
    job_watcher, looks = counted
    jobs = [service.submit() for _ in range(2)]
    claimed = service.claim()
    woken: list[str] = []

    async def wait(job: str) -> None:
        with job_watcher.watching(job) as watch:
            assert await watch.changed(None, 10)
            known = watch.counters
            if await watch.changed(known, 10 if job == claimed.job_id else 0.3):
                woken.append(job)

    async def run() -> None:
        waiting = [asyncio.create_task(wait(jobs[n % 2])) for n in range(100)]
        await asyncio.sleep(0.1)
        assert job_watcher.readers == 100
        await asyncio.to_thread(service.append, claimed, row("loss", 1.0))
        await asyncio.gather(*waiting)
        assert job_watcher.readers == 0
        rests = len(looks)
        await asyncio.sleep(0.1)
        assert len(looks) <= rests + 1, "nobody waits, nobody looks"

    asyncio.run(run())
    assert woken == [claimed.job_id] * 50
    assert set(looks) <= {1, 2}, "all jobs of all readers in one statement"


def test_one_question_is_asked_once_though_who_asked_first_goes_away(counted: tuple[JobWatcher, list[int]]) -> None:
    job_watcher, calls = counted[0], []

    def ask() -> int:
        calls.append(1)
        import time

        time.sleep(0.1)
        return 42

    async def run() -> None:
        first = asyncio.create_task(job_watcher.share("key", ask))
        rest = [asyncio.create_task(job_watcher.share("key", ask)) for _ in range(20)]
        await asyncio.sleep(0.02)
        first.cancel()
        assert await asyncio.gather(*rest) == [42] * 20
        assert await job_watcher.share("another", ask) == 42

    asyncio.run(run())
    assert len(calls) == 2


def test_a_failed_answer_is_not_kept_and_an_outage_only_delays(
    service: Served, counted: tuple[JobWatcher, list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    job_watcher, _ = counted
    job = service.submit()
    claimed = service.claim()
    away = True
    real = JobWatcher._counters

    def sometimes(self: JobWatcher, jobs: list[str]) -> Any:
        if away:
            raise OperationalError("SELECT 1", {}, Exception("the database is away"))
        return real(self, jobs)

    monkeypatch.setattr(JobWatcher, "_counters", sometimes)

    def fail() -> int:
        raise OSError("once")

    async def run() -> None:
        nonlocal away
        with pytest.raises(OSError, match="once"):
            await job_watcher.share("key", fail)
        assert await job_watcher.share("key", lambda: 7) == 7
        with job_watcher.watching(job) as watch:
            assert not await watch.changed(None, 0.1)
            await asyncio.to_thread(service.append, claimed, row("loss", 1.0))
            away = False
            assert await watch.changed(None, 10)
            assert watch.counters is not None
            assert watch.counters.metric == 2

    asyncio.run(run())

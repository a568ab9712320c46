"""A span of every attempt, sent by no thread, when it is over."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest

import trainkit.fit.loop.fit  # noqa: F401 - before the forks, as a worker does
from tests.support.otlp_collector import attributes, collector
from tests.support.worker_context import Place, copied_place
from tests.support.worker_runs import run_one
from worker import instrumentation


@pytest.fixture
def place(migrated_sqlite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    base = copied_place(migrated_sqlite, tmp_path)
    instrumentation._tracer.cache_clear()
    return replace(base, context=replace(base.context, settings=replace(base.context.settings, tracing=True)))


def test_an_attempt_that_ends_well_and_one_that_does_not(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    table = place.table()
    good = place.submit(table, train={"epochs": 1, "seed": 1})
    threads = set(threading.enumerate())
    with collector() as heard:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", heard.url)
        assert run_one(place)
        bad = place.submit(table, train={"epochs": 1, "seed": 1})
        monkeypatch.setattr("worker.exit_errors.memory_limit", lambda: 1 << 20)
        assert run_one(place)
        ours = {thread.name for thread in set(threading.enumerate()) - threads if "Otel" in thread.name}
    assert ours == set()
    assert [service for service, _ in heard.spans] == ["trainkit-worker"] * 2
    first, second = (span for _, span in heard.spans)
    tags = attributes(first)
    assert first.name == "attempt train"
    assert (tags["trainkit.job.id"], tags["trainkit.attempt"], tags["trainkit.outcome"]) == (good, 1, "succeeded")
    assert tags["trainkit.model.kind"] == "mlp"
    attempt = place.attempts(good)[0]
    assert attempt.finished_at is not None
    begun, ended = first.start_time_unix_nano / 1e9, first.end_time_unix_nano / 1e9
    # from the claim, about when the attempt began, until after its end was stored
    assert begun < attempt.finished_at.timestamp() <= ended + 0.01
    tags = attributes(second)
    assert (tags["trainkit.job.id"], tags["trainkit.outcome"]) == (bad, "failed")
    assert tags["error.type"] == "does_not_fit"
    assert second.status.code == second.status.STATUS_CODE_ERROR


def test_a_collector_that_is_away_hurts_nothing(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setattr(instrumentation, "SEND_SECONDS", 0.2)
    job = place.submit(place.table(), train={"epochs": 1, "seed": 1})
    assert run_one(place)
    assert place.job(job).state == "succeeded"

"""Rows of the database count as storage: each job's counters say what its rows hold, after whatever was done to them."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import func, select, update

from service import quota
from service.background.retention import apply_retention
from service.database import db_now, json_bytes
from service.jobs.tables import Decision, Job, JobEvent
from service.leases import Claim
from service.logs.tables import LogChunk
from service.metrics import compaction, repository
from service.metrics import service as metrics
from service.metrics.tables import MetricChunk
from tests.support.api import Served, resume_elsewhere, row

pytestmark = pytest.mark.postgresql


@pytest.fixture(autouse=True)
def counted_now() -> None:
    quota._counted.clear()


def check_counters(service: Served) -> None:
    """Compare the counters of all jobs with what their rows hold."""
    with service.sessions() as session:
        for job in session.scalars(select(Job)):
            bodies = [
                session.scalar(select(func.sum(func.length(table.body))).where(table.job_id == job.id)) or 0
                for table in (MetricChunk, LogChunk)
            ]
            decisions = session.scalars(select(Decision).where(Decision.job_id == job.id))
            events = session.scalars(select(JobEvent).where(JobEvent.job_id == job.id, JobEvent.kind != "retention"))
            records = json_bytes(job.spec, job.resolved, job.evaluation, *(event.data for event in events))
            records += sum(json_bytes(one.rule, one.inputs, one.reason) for one in decisions)
            assert (job.metric_bytes, job.log_bytes, job.record_bytes) == (*bodies, records), job.id


def shown(service: Served) -> dict[str, int]:
    quota._counted.clear()
    project = service.client.get("/v1/projects").json()["data"][0]["id"]
    storage = service.client.get(f"/v1/projects/{project}/usage").json()["storage_bytes"]
    by_kind: dict[str, int] = storage["by_kind"]
    assert storage["used"] == sum(by_kind.values())
    return by_kind


def decide(service: Served, claim: Claim) -> None:
    decision = {"step": 1, "epoch": 1, "rule": {"kind": "diverged"}, "inputs": {"loss": float("nan")}, "action": "go"}
    with service.sessions.begin() as session:
        metrics.append_decisions(session, claim, [decision, {**decision, "reason": "it diverged"}])


def test_counters_follow_every_change_of_a_job(service: Served, monkeypatch: Any) -> None:
    monkeypatch.setattr(compaction, "ROWS_A_CHUNK", 50)
    numbers = random.Random(7)
    job = service.submit()
    check_counters(service)
    claimed = service.claim()
    for step in range(60):
        service.append(claimed, *(row(name, numbers.random(), step) for name in ("loss", "accuracy")))
        service.say(claimed, f"step {step}", "a line " * step)
    decide(service, claimed.claim)
    check_counters(service)
    large = shown(service)
    assert min(large["metrics"], large["logs"], large["records"]) > 0
    claimed = resume_elsewhere(service, claimed, 30)
    service.append(claimed, row("loss", 0.1, 31))
    service.client.patch(f"/v1/jobs/{job}", json={"name": "renamed", "labels": {"a": "b"}, "notes": "n\u00fcr so"})
    service.finish(claimed)
    check_counters(service)
    assert compaction.compact(service.sessions) > 50
    check_counters(service)
    assert shown(service)["metrics"] < large["metrics"], "joined chunks are smaller"


def test_a_transaction_that_fails_counts_nothing(service: Served, monkeypatch: Any) -> None:
    monkeypatch.setattr(compaction, "ROWS_A_CHUNK", 50)
    service.submit()
    claimed = service.claim()
    for step in range(60):
        service.append(claimed, row("loss", step, step))
    before = shown(service)

    def killed(*arguments: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as at_once:
        at_once.setattr(metrics.outbox, "observe", killed)
        with pytest.raises(KeyboardInterrupt):
            service.append(claimed, row("loss", 61, 61))
    original = repository.replace_chunks

    def killed_behind(*arguments: Any, **more: Any) -> None:
        original(*arguments, **more)
        raise KeyboardInterrupt

    with monkeypatch.context() as at_once:
        at_once.setattr(repository, "replace_chunks", killed_behind)
        with pytest.raises(KeyboardInterrupt):
            compaction.compact_job(service.sessions, claimed.job_id)
    assert shown(service) == before
    check_counters(service)


def test_retention_and_deletion_give_the_bytes_back(service: Served) -> None:
    jobs = []
    for _ in range(2):
        jobs.append(service.submit())
        claimed = service.claim()
        service.append(claimed, row("loss", 1.0))
        service.say(claimed, "a line")
        decide(service, claimed.claim)
        service.finish(claimed)
    kept = shown(service)
    with service.sessions.begin() as session:
        session.execute(update(Job).values(finished_at=db_now(plus=-timedelta(days=3).total_seconds())))
    settings = replace(service.context.settings, logs_days=1, metrics_days=1)
    apply_retention(service.sessions, service.context.storage, settings)
    trimmed = shown(service)
    assert (trimmed["metrics"], trimmed["logs"], trimmed["records"]) == (0, 0, kept["records"])
    check_counters(service)
    for job in jobs:
        assert service.client.delete(f"/v1/jobs/{job}").status_code in (200, 204)
    assert {shown(service)[kind] for kind in ("metrics", "logs", "records")} == {0}


def test_a_log_counts_against_the_quota_of_its_project(service: Served) -> None:
    project = service.client.get("/v1/projects").json()["data"][0]["id"]
    service.submit()
    claimed = service.claim()
    service.say(claimed, *(f"{random.Random(line).random()}" for line in range(2000)))
    by_kind = shown(service)
    assert by_kind["logs"] > 10_000
    # all but the last log line fits
    limit = sum(by_kind.values()) - 1
    service.client.patch(f"/v1/projects/{project}", json={"limits": {"max_storage_bytes": limit}})
    dataset = service.job(claimed.job_id)["dataset"]["id"]
    refused = service.client.post("/v1/jobs", json={"dataset": dataset, "model": {"kind": "mlp"}})
    assert (refused.status_code, refused.json()["code"]) == (413, "quota_exceeded")
    assert f"{by_kind['logs']} by logs" in refused.json()["detail"]

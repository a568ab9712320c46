"""Claiming, renewing and losing a job: one winner, fair order, and a fence that stops everyone else."""

from __future__ import annotations

from collections.abc import Callable
from threading import Thread
from typing import Any

import pytest
from sqlalchemy import event, update
from sqlalchemy.orm import Session

from service.jobs import attempts, checkpoints, leases, repository
from service.jobs.tables import Job
from service.leases import StaleFence
from service.logs import service as logs
from service.logs.chunks import LogLine
from service.metrics import service as metrics
from tests.support.api import Served, row

pytestmark = pytest.mark.postgresql

ERROR = {"code": "x", "retryable": True}


def test_a_claim_takes_the_job_with_all_that_a_worker_needs(service: Served) -> None:
    job = service.submit(name="first")
    claimed = service.claim(start=False)
    assert (claimed.job_id, claimed.claim.fence, claimed.prepared_key, claimed.metric_seq) == (job, 1, "prepared/x", 0)
    assert claimed.spec["train"]["epochs"] == 20, "the resolved spec, with its defaults"
    assert service.job(job)["state"] == "starting"
    with service.sessions.begin() as session:
        assert leases.claim(session, "train", "w", 30) is None
        assert leases.claim(session, "another queue", "w", 30) is None


def test_only_one_of_many_claims_wins(service: Served) -> None:
    service.submit()
    won: list[int] = []

    def compete() -> None:
        with service.sessions.begin() as session:
            claimed = leases.claim(session, "train", "w", 30)
        if claimed:
            won.append(claimed.claim.fence)

    threads = [Thread(target=compete) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert won == [1]


def test_a_long_queue_is_read_once(service: Served) -> None:
    """Counting a project's running jobs anew for each queued job took 24 s, with the write lock, at 4,000 of them."""
    statements: list[tuple[str, Any]] = []

    def note(connection: Any, cursor: Any, statement: str, parameters: Any, *more: Any) -> None:
        statements.append((statement, parameters))

    service.submit()
    with service.sessions.begin() as session:
        event.listen(session.get_bind(), "before_cursor_execute", note)
        try:
            assert repository.claimable(session, "train", 0)
        finally:
            event.remove(session.get_bind(), "before_cursor_execute", note)
        statement, parameters = next(one for one in statements if "ORDER BY" in one[0])
        explain = "EXPLAIN QUERY PLAN " if session.get_bind().dialect.name == "sqlite" else "EXPLAIN "
        plan = "\n".join(map(str, session.connection().exec_driver_sql(explain + statement, parameters)))
    assert "jobs" in plan
    assert "CORRELATED" not in plan, plan
    assert "SubPlan" not in plan, plan


def test_priority_then_fairness_then_age(service: Served) -> None:
    other = service.client_for("other")
    jobs = [service.submit() for _ in range(3)]
    other_job = service.submit(other)
    with service.sessions.begin() as session:
        session.execute(update(Job).where(Job.id == jobs[2]).values(priority=5))
    # the urgent one; then the project without a running job, although its job is the youngest; then by age
    assert [service.claim().job_id for _ in range(4)] == [jobs[2], other_job, jobs[0], jobs[1]]


def test_renewing_keeps_the_job_and_tells_what_is_wanted(service: Served) -> None:
    job = service.submit()
    claimed = service.claim()
    with service.sessions.begin() as session:
        assert leases.renew(session, claimed.claim, 30) is None
    service.client.post(f"/v1/jobs/{job}/stop", json={"keep": "last"})
    with service.sessions.begin() as session:
        assert leases.renew(session, claimed.claim, 30) == {"action": "stop", "keep": "last"}
        assert leases.requested_action(session, claimed.claim) == {"action": "stop", "keep": "last"}


WRITES: dict[str, Callable[[Session, leases.Claim], Any]] = {
    "append": lambda s, claim: metrics.append(s, claim, [row("loss", 1.0)]),
    "append nothing": lambda s, claim: metrics.append(s, claim, []),
    "append_decisions": lambda s, claim: metrics.append_decisions(s, claim, []),
    "supersede_after": lambda s, claim: metrics.supersede_after(s, claim, 0),
    "renew": lambda s, claim: leases.renew(s, claim, 30),
    "requested_action": lambda s, claim: leases.requested_action(s, claim),
    "start": lambda s, claim: attempts.start(s, claim),
    "note": lambda s, claim: attempts.note(s, claim, phase="zombie"),
    "say": lambda s, claim: logs.append(s, claim, [LogLine(1.0, "info", "training", "zombie")]),
    "say nothing": lambda s, claim: logs.append(s, claim, []),
    "handback": lambda s, claim: attempts.hand_back(s, claim, "zombie"),
    "cancelled": lambda s, claim: attempts.cancelled(s, claim),
    "fail": lambda s, claim: attempts.fail(s, claim, ERROR),
    "save_artifact": lambda s, claim: attempts.save_artifact(
        s, claim, attempts.StoredFile("a", "artifacts/a", "text/plain", 1)
    ),
    "checkpoint": lambda s, claim: checkpoints.record(
        s, claim, step=1, epoch=1, storage_key="checkpoints/a", sha256="0", size=1
    ),
}


def test_a_stale_fence_writes_nothing(service: Served) -> None:
    job = service.submit()
    first = service.claim()
    with service.sessions.begin() as session:
        attempts.hand_back(session, first.claim, "worker shutdown")
    second = service.claim("worker-2")
    assert second.claim.fence == first.claim.fence + 1
    before = service.job(job)
    for write in WRITES.values():
        with pytest.raises(StaleFence), service.sessions.begin() as session:
            write(session, first.claim)
    with pytest.raises(StaleFence):
        service.finish(first)
    assert service.job(job) == before
    for path in ("metrics", "checkpoints", "artifacts", "decisions"):
        assert service.client.get(f"/v1/jobs/{job}/{path}").json()["data"] == []


@pytest.mark.parametrize("end", ["finish", "fail", "cancel"])
def test_after_the_end_even_the_owner_writes_nothing(service: Served, end: str) -> None:
    service.submit()
    claimed = service.claim()
    if end == "finish":
        service.finish(claimed)
    else:
        with service.sessions.begin() as session:
            if end == "fail":
                attempts.fail(session, claimed.claim, {"code": "x", "retryable": False})
            else:
                attempts.cancelled(session, claimed.claim)
    for write in WRITES.values():
        with pytest.raises(StaleFence), service.sessions.begin() as session:
            write(session, claimed.claim)


def test_a_session_that_saw_the_row_before_does_not_answer_from_memory(service: Served) -> None:
    service.submit()
    claimed = service.claim()
    with service.sessions.begin() as session:
        assert leases.lock_claimed(session, claimed.claim).next_seq == 1
        metrics.append(session, claimed.claim, [row("loss", 1.0)])
        assert leases.lock_claimed(session, claimed.claim).next_seq == 2

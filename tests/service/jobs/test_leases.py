"""Claiming, renewing and losing a job: one winner, fair order, and a fence that stops everyone else."""

from __future__ import annotations

import re
from collections.abc import Callable
from threading import Thread
from typing import Any

import pytest
from sqlalchemy import event, text, update
from sqlalchemy.orm import Session

from service.jobs import attempts, checkpoints, leases, repository
from service.jobs.tables import Job
from service.leases import StaleFence
from service.logs import service as logs
from service.logs.chunks import LogLine
from service.metrics import service as metrics
from tests.support.api import Served, error_of, row

pytestmark = pytest.mark.postgresql

ERROR = error_of("x", retryable=True)


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


def test_a_long_queue_is_not_read(service: Served) -> None:
    """Each project with queued jobs costs one look-up by index, however long its queue is."""
    statements: list[tuple[str, Any]] = []

    def note(connection: Any, cursor: Any, statement: str, parameters: Any, *more: Any) -> None:
        statements.append((statement, parameters))

    service.submit()
    with service.sessions.begin() as session:
        event.listen(session.get_bind(), "before_cursor_execute", note)
        try:
            (project,) = repository.projects_to_serve(session, "train", 0)
            assert repository.next_queued(session, "train", project)
        finally:
            event.remove(session.get_bind(), "before_cursor_execute", note)
        queries = [one for one in statements if "ORDER BY" in one[0]]
        assert len(queries) == 2
        if session.get_bind().dialect.name == "postgresql":
            session.execute(text("SET LOCAL enable_seqscan = off"))  # a table of one row is read whole otherwise
            session.execute(text("SET LOCAL enable_bitmapscan = off"))
        plans = [explained(session, *query) for query in queries]
    for plan in plans:
        assert "jobs_by_queue" in plan, plan
        assert not re.search(r"SCAN jobs(?! USING)|Seq Scan on jobs", plan), plan
    for plan in plans[1:]:
        assert not re.search(r"TEMP B-TREE|Sort", plan), f"the index has the order of a project's jobs: {plan}"


def explained(session: Session, statement: str, parameters: Any) -> str:
    """Return the query plan."""
    explain = "EXPLAIN QUERY PLAN " if session.get_bind().dialect.name == "sqlite" else "EXPLAIN "
    return "\n".join(map(str, session.connection().exec_driver_sql(explain + statement, parameters)))


ORDERS: dict[str, tuple[list[tuple[str, int]], list[tuple[str, int]]]] = {
    "age within a project": ([("a", 0), ("a", 0)], [("a", 0), ("a", 1)]),
    "priority within a project": ([("a", 0), ("a", 5), ("a", 1)], [("a", 1), ("a", 2), ("a", 0)]),
    "priority never across projects": (
        [("a", 100), ("a", 100), ("b", -100), ("b", 0)],
        [("a", 0), ("b", 1), ("a", 1), ("b", 0)],
    ),
    "a new project does not stand behind a long queue": (
        [*[("a", 0)] * 6, ("b", 0), ("c", 0)],
        [("a", 0), ("b", 0), ("c", 0), ("a", 1)],
    ),
}
"""(project, priority) of jobs in the order of their submission -> (project, its how-manieth) in that of the claims."""


@pytest.mark.parametrize("ends", [False, True], ids=["jobs run on", "one worker: each ends before the next claim"])
@pytest.mark.parametrize("case", ORDERS)
def test_projects_share_fairly_and_priority_orders_within_one(service: Served, case: str, ends: bool) -> None:
    submitted, expected = ORDERS[case]
    clients = {name: service.client_for(name) for name in dict(submitted)}
    datasets = {name: service.ready_dataset(client) for name, client in clients.items()}
    numbered: dict[str, tuple[str, int]] = {}
    for name, priority in submitted:
        spec = {"dataset": datasets[name], "model": {"kind": "mlp"}, "resources": {"priority": priority}}
        answer = clients[name].post("/v1/jobs", json=spec)
        assert answer.status_code == 201, answer.text
        numbered[answer.json()["id"]] = (name, sum(one == name for one, _ in numbered.values()))
    claimed = []
    for _ in expected:
        job = service.claim()
        claimed.append(numbered[job.job_id])
        if ends:
            service.finish(job)
    assert claimed == expected


def test_a_project_may_lower_the_service_s_limit_of_running_jobs_and_never_lift_it(service: Served) -> None:
    for number, (setting, limit, expected) in enumerate(
        [(None, 0, 3), (None, 2, 2), (1, 2, 1), (1, 0, 1), (3, 2, 2), (0, 2, 2)]
    ):
        client = service.client_for(f"p{number}", "admin")
        for _ in range(3):
            service.submit(client)
        (project,) = client.get("/v1/projects").json()["data"]
        if setting is not None:
            settings = {"max_running_jobs": setting or None}
            assert client.patch(f"/v1/projects/{project['id']}", json={"settings": settings}).status_code == 200
        claimed = []
        with service.sessions.begin() as session:
            while (job := leases.claim(session, "train", "w", 30, limit)) is not None:
                claimed.append(job)
        assert len(claimed) == expected, (setting, limit)
        with service.sessions.begin() as session:
            session.execute(update(Job).values(state="cancelled"))


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
    before, files = service.job(job), service.client.get(f"/v1/jobs/{job}/artifacts").json()["data"]
    for write in WRITES.values():
        with pytest.raises(StaleFence), service.sessions.begin() as session:
            write(session, first.claim)
    with pytest.raises(StaleFence):
        service.finish(first)
    assert service.job(job) == before
    for path in ("metrics", "checkpoints", "decisions"):
        assert service.client.get(f"/v1/jobs/{job}/{path}").json()["data"] == []
    assert [one["name"] for one in service.client.get(f"/v1/jobs/{job}/artifacts").json()["data"]] == ["spec.yaml"]
    assert [one["name"] for one in files] == ["spec.yaml"]


@pytest.mark.parametrize("end", ["finish", "fail", "cancel"])
def test_after_the_end_even_the_owner_writes_nothing(service: Served, end: str) -> None:
    service.submit()
    claimed = service.claim()
    if end == "finish":
        service.finish(claimed)
    else:
        with service.sessions.begin() as session:
            if end == "fail":
                attempts.fail(session, claimed.claim, error_of("x"))
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

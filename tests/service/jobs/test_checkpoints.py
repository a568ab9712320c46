"""The newest few checkpoints are kept, with their place in the log."""

from __future__ import annotations

from service.jobs import checkpoints, leases
from service.jobs import repository as jobs_repository
from tests.support.api import Served, row


def record(service: Served, claimed: leases.ClaimedJob, step: int) -> list[str]:
    with service.sessions.begin() as session:
        return checkpoints.record(
            session,
            claimed.claim,
            step=step,
            epoch=1,
            storage_key=f"checkpoints/{claimed.job_id}/{claimed.claim.fence}-{step}",
            sha256="0" * 64,
            size=10,
        )


def test_the_newest_come_first_and_older_ones_may_go(service: Served) -> None:
    job = service.submit()
    claimed = service.claim()
    assert record(service, claimed, 1) == []
    service.append(claimed, row("loss", 1.0), row("loss", 0.5, 2))
    assert record(service, claimed, 2) == []
    assert record(service, claimed, 3) == [f"checkpoints/{job}/1-1"]
    shown = service.client.get(f"/v1/jobs/{job}/checkpoints").json()["data"]
    assert [(c["step"], c["metric_seq"]) for c in shown] == [(3, 2), (2, 2)]
    with service.sessions() as session:
        assert [c.step for c in jobs_repository.checkpoints(session, job)] == [3, 2]

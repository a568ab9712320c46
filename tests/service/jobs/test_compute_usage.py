"""GPU-hours and CPU-hours of attempts, by calendar month, and the limit of GPU-hours."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import update

from service.jobs import attempts, compute_usage, leases, repository
from service.jobs.leases import ClaimedJob
from service.jobs.tables import Attempt
from service.projects import repository as projects
from tests.support.api import Served

pytestmark = pytest.mark.postgresql

CHOSEN: dict[str, Any] = {"precision": "float32", "versions": {}, "parameters": 1, "trainable": 1, "phases": []}
CHOSEN |= dict.fromkeys(("compile", "channels_last", "deterministic", "batched", "resume_exact"), False)
GPU: dict[str, Any] = {**CHOSEN, "device": "cuda:0", "threads": 4}
CPU: dict[str, Any] = {**CHOSEN, "device": "cpu", "threads": 3}
YEAR_END = datetime(2025, 12, 31, 23, 0, tzinfo=UTC)


def project_of(service: Served) -> str:
    return str(service.client.get("/v1/projects").json()["data"][0]["id"])


def begin(service: Served, runtime: dict[str, Any] | None, hours: float, **spec: Any) -> ClaimedJob:
    """Claim a new job, whose attempt began some hours ago."""
    service.submit(**spec)
    claimed = service.claim()
    with service.sessions.begin() as session:
        if runtime is not None:
            attempts.note(session, claimed.claim, runtime=runtime)
        begun = datetime.now(UTC) - timedelta(hours=hours)
        session.execute(update(Attempt).where(Attempt.job_id == claimed.job_id).values(started_at=begun))
    return claimed


def hours_of_all_months(service: Served, project: str) -> tuple[float, float]:
    """GPU-hours and CPU-hours of attempts that have ended, in this month and the one before."""
    now = datetime.now(UTC)
    months = {f"{moment:%Y-%m}" for moment in (now, now - timedelta(days=27), now.replace(day=1) - timedelta(days=1))}
    with service.sessions() as session:
        found = [repository.compute_seconds(session, project, month) for month in months]
    return sum(gpu for gpu, _ in found) / 3600, sum(cpu for _, cpu in found) / 3600


def test_attempts_count_however_they_end(service: Served) -> None:
    project = project_of(service)
    service.finish(begin(service, GPU, 2))
    service.finish(begin(service, CPU, 1))
    lost = begin(service, GPU, 0.5)
    with service.sessions.begin() as session:
        attempts.hand_back(session, lost.claim, "test")
    again = service.claim()
    with service.sessions.begin() as session:
        attempts.fail(session, again.claim, {"code": "x", "retryable": False})
    assert hours_of_all_months(service, project) == pytest.approx((2.5, 3.0), abs=0.02)
    service.finish(begin(service, None, 5))
    assert hours_of_all_months(service, project) == pytest.approx((2.5, 3.0), abs=0.02), "no device was taken"


def started_before(service: Served, claimed: ClaimedJob, hours: float) -> None:
    """The present attempt began so many hours ago."""
    begun = datetime.now(UTC) - timedelta(hours=hours)
    with service.sessions.begin() as session:
        of_attempt = Attempt.job_id == claimed.job_id, Attempt.fence == claimed.claim.fence
        session.execute(update(Attempt).where(*of_attempt).values(started_at=begun))


def test_a_pause_costs_nothing_and_a_retry_costs_again(service: Served) -> None:
    """By hand: 2 h, a pause of any length, 1 h more, which ends; then a retry of 0.5 h that still runs: 3.5 GPU-hours."""
    project, job = project_of(service), begin(service, GPU, 2)
    assert service.client.post(f"/v1/jobs/{job.job_id}/pause").json()["state"] == "pausing"
    with service.sessions.begin() as session:
        attempts.hand_back(session, job.claim, "the client asked to pause")
    assert hours_of_all_months(service, project) == pytest.approx((2, 0), abs=0.02)
    usage = service.client.get(f"/v1/projects/{project}/usage").json()
    assert usage["gpu_hours"]["used"] <= 2.02, "nothing runs while it is paused"
    assert service.client.post(f"/v1/jobs/{job.job_id}/resume").status_code == 200
    resumed = service.claim()
    assert resumed.job_id == job.job_id
    started_before(service, resumed, 1)
    service.finish(resumed)
    assert hours_of_all_months(service, project) == pytest.approx((3, 0), abs=0.02)
    assert service.client.post(f"/v1/jobs/{job.job_id}/retry").status_code == 201
    retried = service.claim()
    with service.sessions.begin() as session:
        attempts.note(session, retried.claim, runtime=GPU)
    started_before(service, retried, 0.5)
    assert hours_of_all_months(service, project) == pytest.approx((3, 0), abs=0.02)
    service.finish(retried)
    assert hours_of_all_months(service, project) == pytest.approx((3.5, 0), abs=0.02)


def test_deleting_a_job_gives_nothing_back(service: Served) -> None:
    project, claimed = project_of(service), begin(service, GPU, 2)
    service.finish(claimed)
    assert service.client.delete(f"/v1/jobs/{claimed.job_id}").status_code == 204
    assert hours_of_all_months(service, project)[0] == pytest.approx(2, abs=0.01)


def test_an_attempt_counts_in_the_months_that_it_lies_in(service: Served) -> None:
    project = project_of(service)
    with service.sessions.begin() as session:
        compute_usage.record(session, project, GPU, YEAR_END, YEAR_END + timedelta(days=32))
        compute_usage.record(session, project, CPU, YEAR_END, YEAR_END + timedelta(minutes=30))
    with service.sessions() as session:
        seconds = [repository.compute_seconds(session, project, month) for month in ("2025-12", "2026-01", "2026-02")]
    assert seconds == [(3600, 3 * 1800), (31 * 86400, 0), (23 * 3600, 0)]
    assert compute_usage.next_month(YEAR_END) == datetime(2026, 1, 1, tzinfo=UTC)


def test_running_attempts_count(service: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    project = project_of(service)
    # the first of the month would cut what began before it
    monkeypatch.setattr(compute_usage, "_first_of_month", lambda moment: moment - timedelta(days=27))
    begin(service, GPU, 2)
    begin(service, CPU, 1)
    begin(service, None, 4)
    with service.sessions() as session:
        used = compute_usage.used(session, project)
    assert (used.gpu_hours, used.cpu_hours) == pytest.approx((2, 3), abs=0.02)


def spend(service: Served, project: str, hours: float) -> None:
    with service.sessions.begin() as session:
        repository.add_compute_seconds(session, project, f"{datetime.now(UTC):%Y-%m}", hours * 3600, 0)


def test_used_up_gpu_hours_refuse_jobs_that_may_take_a_gpu(service: Served) -> None:
    project, dataset = project_of(service), service.ready_dataset()
    changed = service.client.patch(f"/v1/projects/{project}", json={"settings": {"max_gpu_hours": 2}})
    assert changed.status_code == 200
    spend(service, project, 1.9)
    spec = {"dataset": dataset, "model": {"kind": "mlp"}}
    assert service.client.post("/v1/jobs", json=spec).status_code == 201
    spend(service, project, 0.2)
    for device in ("auto", "cuda", "cuda:1"):
        refused = service.client.post("/v1/jobs", json={**spec, "resources": {"device": device}})
        document = refused.json()
        assert (refused.status_code, document["code"]) == (429, "gpu_hours_used_up")
        assert (document["quota"]["name"], document["quota"]["limit"], document["quota"]["used"]) == (
            "gpu_hours",
            2,
            2.1,
        )
        resets_at = datetime.fromisoformat(document["quota"]["resets_at"])
        assert (resets_at.day, resets_at.hour) == (1, 0)
        wait = (resets_at - datetime.now(UTC)).total_seconds()
        assert wait - 5 < int(refused.headers["retry-after"]) < wait + 60
        assert "resources.device" in document["detail"]
    assert service.client.post("/v1/jobs", json={**spec, "resources": {"device": "cpu"}}).status_code == 201
    assert service.submit(service.client_for("other")), "each project has its own"


def test_a_worker_with_a_gpu_passes_over_projects_without_gpu_hours(service: Served) -> None:
    project = project_of(service)
    waiting = service.submit()
    for_cpu = service.submit(resources={"device": "cpu", "priority": -5})
    other = service.submit(service.client_for("other"))
    service.client.patch(f"/v1/projects/{project}", json={"settings": {"max_gpu_hours": 1}})
    spend(service, project, 1)

    def claim(*, gpu: bool) -> str | None:
        def may_use_gpu(session: Any, project_id: str) -> bool:
            return not gpu or compute_usage.has_gpu_hours(session, service.context.settings, project_id)

        with service.sessions.begin() as session:
            claimed = leases.claim(session, "train", "w", 30, 0, may_use_gpu)
        return claimed.job_id if claimed else None

    assert {claim(gpu=True), claim(gpu=True)} == {for_cpu, other}
    assert claim(gpu=True) is None
    service.client.patch(f"/v1/projects/{project}", json={"settings": {"max_gpu_hours": 2}})
    with service.sessions() as session:
        assert projects.setting_overrides(session, project)[0] == {"max_gpu_hours": 2}
    assert claim(gpu=True) == waiting
    later = service.submit()
    service.client.patch(f"/v1/projects/{project}", json={"settings": {"max_gpu_hours": 1}})
    assert claim(gpu=True) is None
    assert claim(gpu=False) == later, "a worker without a GPU takes what may train on a CPU"

"""The budget of a key: jobs and compute seconds over its lifetime, whatever creates the jobs."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import update

from service.experiments import scheduler
from service.jobs import attempts
from service.jobs.leases import ClaimedJob
from service.jobs.tables import Attempt
from tests.support.api import Served, assert_problem, error_of

pytestmark = pytest.mark.postgresql


def client_with(service: Served, **budget: Any) -> TestClient:
    body = {"name": "agent", "role": "developer", "budget": budget}
    answer = service.client.post("/v1/keys", json=body)
    assert answer.status_code == 201, answer.text
    return TestClient(service.app, headers={"Authorization": f"Bearer {answer.json()['key']}"})


def budget_of(client: TestClient) -> dict[str, Any]:
    shown: dict[str, Any] = client.get("/v1/me").json()["key"]["budget"]
    return shown


def post(client: TestClient, dataset: str, **spec: Any) -> dict[str, Any]:
    answer = client.post("/v1/jobs", json={"dataset": dataset, "model": {"kind": "mlp"}, **spec})
    assert answer.status_code == 201, answer.text
    job: dict[str, Any] = answer.json()
    return job


def refused(client: TestClient, dataset: str, status: int, code: str) -> None:
    answer = client.post("/v1/jobs", json={"dataset": dataset, "model": {"kind": "mlp"}})
    assert_problem(answer, status, code)


def begun_before(service: Served, claimed: ClaimedJob, seconds: float) -> None:
    begun = datetime.now(UTC) - timedelta(seconds=seconds)
    of_attempt = Attempt.job_id == claimed.job_id, Attempt.fence == claimed.claim.fence
    with service.sessions.begin() as session:
        session.execute(update(Attempt).where(*of_attempt).values(started_at=begun))


def test_jobs_are_counted_however_they_are_created_and_deleting_gives_nothing_back(service: Served) -> None:
    dataset, client = service.ready_dataset(), client_with(service, max_jobs=3)
    first = post(client, dataset)["id"]
    assert client.post(f"/v1/jobs/{first}/cancel").status_code == 200
    again = client.post(f"/v1/jobs/{first}/retry")
    assert again.status_code == 201
    assert client.post(f"/v1/jobs/{again.json()['id']}/cancel").status_code == 200
    assert client.delete(f"/v1/jobs/{first}").status_code in (200, 202, 204)
    key = {"Idempotency-Key": "once"}
    bodies = [client.post("/v1/jobs", json={"dataset": dataset, "model": {"kind": "mlp"}}, headers=key) for _ in "ab"]
    assert bodies[0].json()["id"] == bodies[1].json()["id"], "a request that is sent again costs once"
    refused(client, dataset, 403, "budget_used_up")
    assert_problem(client.post(f"/v1/jobs/{again.json()['id']}/retry"), 403, "budget_used_up")
    shown = budget_of(client)
    assert (shown["max_jobs"], shown["used_jobs"], shown["max_compute_seconds"]) == (3, 3, None)
    me = client.get("/v1/me").json()["key"]["id"]
    assert service.client.get(f"/v1/keys/{me}").json()["budget"] == shown
    post(service.client, dataset)  # other keys have no budget


def test_time_limits_are_cut_to_what_is_left_and_time_is_charged_as_it_passed(service: Served) -> None:
    dataset, client = service.ready_dataset(), client_with(service, max_compute_seconds=1000)
    first = post(client, dataset, resources={"max_seconds": 600})
    assert first["spec"]["resources"]["max_seconds"] == 600
    second = post(client, dataset)
    assert second["spec"]["resources"]["max_seconds"] == pytest.approx(400)
    assert budget_of(client)["reserved_compute_seconds"] == pytest.approx(1000)
    answer = client.post("/v1/jobs", json={"dataset": dataset, "model": {"kind": "mlp"}})
    assert_problem(answer, 409, "budget_reserved")
    claimed = service.claim()
    assert claimed.job_id == first["id"]
    assert claimed.spec["resources"]["max_seconds"] == 600
    begun_before(service, claimed, 250)
    service.finish(claimed)
    shown = budget_of(client)
    assert shown["used_compute_seconds"] == pytest.approx(250, abs=30)
    assert shown["reserved_compute_seconds"] == pytest.approx(400)
    assert client.post(f"/v1/jobs/{second['id']}/cancel").status_code == 200
    assert budget_of(client)["reserved_compute_seconds"] == 0
    third = post(client, dataset, resources={"max_seconds": 9000})
    assert third["spec"]["resources"]["max_seconds"] == pytest.approx(750, abs=30)
    claimed = service.claim()
    begun_before(service, claimed, 900)
    service.finish(claimed)
    refused(client, dataset, 403, "budget_used_up")
    assert budget_of(client)["used_compute_seconds"] == pytest.approx(1150, abs=60)


def test_attempts_of_one_job_share_its_seconds(service: Served) -> None:
    dataset, client = service.ready_dataset(), client_with(service, max_compute_seconds=500)
    job = post(client, dataset)["id"]
    claimed = service.claim()
    begun_before(service, claimed, 300)
    with service.sessions.begin() as session:
        attempts.hand_back(session, claimed.claim, "test")
    shown = budget_of(client)
    assert shown["used_compute_seconds"] == pytest.approx(300, abs=30)
    assert shown["reserved_compute_seconds"] == pytest.approx(200, abs=30)
    claimed = service.claim()
    begun_before(service, claimed, 600)
    with service.sessions.begin() as session:
        attempts.fail(session, claimed.claim, error_of("out_of_memory", retryable=True))
    assert service.job(job)["state"] == "failed", "nothing is left for another attempt"
    assert budget_of(client)["reserved_compute_seconds"] == 0


def test_an_experiment_ends_with_the_budget_of_its_key(service: Served) -> None:
    dataset, client = service.ready_dataset(), client_with(service, max_jobs=3)
    plan = {"kind": "grid", "spec": {"dataset": dataset, "model": {"kind": "mlp"}}}
    body = {**plan, "space": {"/optimizer/lr": [0.1, 0.2, 0.3, 0.4, 0.5]}}
    answer = client.post("/v1/experiments", json=body)
    assert answer.status_code == 201, answer.text
    experiment = f"/v1/experiments/{answer.json()['id']}"
    assert client.get(experiment).json()["state"] == "stopping"
    assert budget_of(client)["used_jobs"] == 3
    for _ in range(3):
        service.finish(service.claim())
    scheduler.tick(service.context)
    shown = client.get(experiment).json()
    assert (shown["state"], len(client.get(f"{experiment}/results").json()["data"])) == ("stopped", 3)
    assert "budget" in shown["reason"]


def test_an_experiment_waits_while_its_jobs_hold_the_seconds(service: Served) -> None:
    dataset, client = service.ready_dataset(), client_with(service, max_compute_seconds=100)
    spec = {"dataset": dataset, "model": {"kind": "mlp"}, "resources": {"max_seconds": 60}}
    body = {"kind": "grid", "spec": spec, "space": {"/optimizer/lr": [0.1, 0.2, 0.3]}}
    experiment = f"/v1/experiments/{client.post('/v1/experiments', json=body).json()['id']}"
    assert len(client.get(f"{experiment}/results").json()["data"]) == 2
    for _ in range(3):
        service.finish(service.claim())
        scheduler.tick(service.context)
    scheduler.tick(service.context)
    assert client.get(experiment).json()["state"] == "succeeded"
    assert budget_of(client)["reserved_compute_seconds"] == 0


def test_jobs_of_others_are_not_resumed_and_the_budget_survives_a_rotation(service: Served) -> None:
    dataset, client = service.ready_dataset(), client_with(service, max_jobs=3, max_compute_seconds=100)
    foreign = post(service.client, dataset)["id"]
    assert client.post(f"/v1/jobs/{foreign}/pause").json()["state"] == "paused"
    assert_problem(client.post(f"/v1/jobs/{foreign}/resume"), 403, "forbidden")
    post(client, dataset, resources={"max_seconds": 30})
    key = client.get("/v1/me").json()["key"]["id"]
    rotated = service.client.post(f"/v1/keys/{key}:rotate").json()
    shown = rotated["budget"]
    assert (shown["max_jobs"], shown["used_jobs"], shown["max_compute_seconds"]) == (2, 0, 70)
    refused(client, dataset, 403, "budget_used_up")
    newer = TestClient(service.app, headers={"Authorization": f"Bearer {rotated['key']}"})
    assert post(newer, dataset)["spec"]["resources"]["max_seconds"] == 70


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"role": "admin", "budget": {"max_jobs": 1}}, "bad_budget"),
        ({"role": "developer", "budget": {}}, "invalid_value"),
        ({"role": "developer", "budget": {"max_jobs": -1}}, "greater_than_equal"),
    ],
)
def test_a_budget_that_bounds_nothing_is_refused(service: Served, body: dict[str, Any], code: str) -> None:
    answer = service.client.post("/v1/keys", json={"name": "agent", **body})
    assert answer.status_code == 422
    assert [error["code"] for error in answer.json()["errors"]] == [code]


def test_two_jobs_at_once_do_not_pass_the_budget_together(service: Served) -> None:
    dataset, client = service.ready_dataset(), client_with(service, max_jobs=4)

    def submit(number: int) -> int:
        spec = {"dataset": dataset, "model": {"kind": "mlp"}, "name": f"n{number}"}
        return client.post("/v1/jobs", json=spec).status_code

    with ThreadPoolExecutor(4) as pool:
        statuses = list(pool.map(submit, range(10)))
    assert sorted(statuses) == [201] * 4 + [403] * 6
    assert budget_of(client)["used_jobs"] == 4

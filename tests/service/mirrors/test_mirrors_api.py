"""Mirrors by HTTP: what is refused, what is shown, and which jobs are enqueued."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import select, update

from service.jobs.tables import Job
from service.mirrors.stored_tokens import token_of
from service.outbox.tables import Mirror
from service.secret_box import SecretBox
from service.stored_secrets import encrypt_all
from tests.support.api import Served, assert_problem
from tests.support.mirrors import create_mirror, mirrored

SERVER = "http://127.0.0.1:9"
pytestmark = pytest.mark.postgresql


@pytest.mark.parametrize(
    ("body", "pointer", "code"),
    [
        ({"kind": "mlflow"}, "/url", "url_needed"),
        ({"kind": "mlflow", "url": "https://10.0.0.1"}, "/url", "not_public"),
        ({"kind": "mlflow", "url": "http://169.254.169.254/"}, "/url", "not_public"),
        ({"kind": "mlflow", "url": "file:///etc/passwd"}, "/url", "bad_url"),
        ({"kind": "mlflow", "url": f"{SERVER}/?a=b"}, "/url", "bad_url"),
        ({"kind": "mlflow", "url": "http://ann:p@127.0.0.1:9"}, "/url", "credentials_in_url"),
        ({"kind": "mlflow", "url": SERVER, "username": "ann"}, "/token", "token_needed"),
        ({"kind": "tensorboard", "url": SERVER}, "/url", "not_allowed"),
        ({"kind": "tensorboard"}, "/kind", "no_folder"),
        ({"kind": "wandb", "token": "a-key"}, "/token", "not_allowed"),
        ({"kind": "wandb"}, "/kind", "no_folder"),
    ],
)
def test_what_cannot_be_copied_to_is_refused(service: Served, body: dict[str, Any], pointer: str, code: str) -> None:
    problem = assert_problem(service.client.post("/v1/mirrors", json=body), 422, "invalid_request")
    assert [(error["pointer"], error["code"]) for error in problem["errors"]] == [(pointer, code)]


def test_a_token_is_encrypted_and_never_shown(service: Served) -> None:
    mirror = create_mirror(service, url=SERVER, username="ann", token="p-of-ann")
    assert mirror["has_token"]
    for path in ("", f"/{mirror['id']}"):
        assert "p-of-ann" not in service.client.get(f"/v1/mirrors{path}").text
    box = SecretBox(service.context.settings)
    with service.sessions() as session:
        row = session.scalars(select(Mirror)).one()
        assert row.token is not None
        assert "p-of-ann" not in row.token
        assert token_of(box, row) == "p-of-ann"
    first = service.context.settings.secret_keys[0]
    newer = SecretBox(replace(service.context.settings, secret_keys=("A" * 43 + "=", first)))
    assert encrypt_all(service.sessions, newer).current + encrypt_all(service.sessions, newer).current >= 1
    with service.sessions() as session:
        assert token_of(newer, session.scalars(select(Mirror)).one()) == "p-of-ann"


def test_jobs_are_enqueued_when_they_start_and_earlier_ones_on_demand(service: Served) -> None:
    earlier = service.submit()
    service.finish(service.claim())
    mirror = create_mirror(service, url=SERVER)
    queued = service.submit()
    assert service.client.get(f"/v1/mirrors/{mirror['id']}/jobs").json()["data"] == []
    service.claim()
    (shown,) = service.client.get(f"/v1/mirrors/{mirror['id']}/jobs").json()["data"]
    assert (shown["job"], shown["state"], shown["metric_seq"]) == (queued, "pending", 0)
    answer = service.client.post(f"/v1/mirrors/{mirror['id']}/backfill")
    assert (answer.status_code, answer.json()) == (202, {"enqueued": 1, "has_more": False})
    assert mirrored(service, mirror, earlier)["state"] == "pending"
    assert service.client.post(f"/v1/mirrors/{mirror['id']}/backfill").json()["enqueued"] == 0
    answer = service.client.post(f"/v1/mirrors/{mirror['id']}/backfill", json={"jobs": [earlier, "job_x"]})
    assert assert_problem(answer, 422, "invalid_request")["errors"][0]["pointer"] == "/jobs/1"
    listed = service.client.get(f"/v1/mirrors/{mirror['id']}/jobs?state=pending&job={earlier}").json()["data"]
    assert [one["job"] for one in listed] == [earlier]
    assert service.client.get(f"/v1/mirrors/{mirror['id']}").json()["jobs"]["pending"] == 2


def test_a_job_without_its_metrics_is_not_copied_as_one_without_a_history(service: Served) -> None:
    jobs = []
    for _ in range(2):
        jobs.append(service.submit())
        service.finish(service.claim())
    mirror = create_mirror(service, url=SERVER)
    path = f"/v1/mirrors/{mirror['id']}"
    service.client.post(f"{path}/backfill", json={"jobs": jobs[:1]}).raise_for_status()
    with service.sessions.begin() as session:
        session.execute(
            update(Job).values(purged={"metrics": {"at": "2026-01-01T00:00:00Z", "reason": "older than 30 days"}})
        )
    assert service.client.post(f"{path}/backfill").json() == {"enqueued": 0, "has_more": False}
    answer = service.client.post(f"{path}/backfill", json={"jobs": jobs[1:]})
    (error,) = assert_problem(answer, 422, "invalid_request")["errors"]
    assert (error["pointer"], error["code"]) == ("/jobs/0", "removed")
    answer = service.client.post(f"{path}/jobs/{jobs[0]}/retry")
    assert assert_problem(answer, 410, "removed")["removed_at"] == "2026-01-01T00:00:00Z"
    with service.sessions.begin() as session:
        session.execute(update(Job).where(Job.id == jobs[1]).values(purged=None))
    assert service.client.post(f"{path}/backfill").json() == {"enqueued": 1, "has_more": False}


def test_an_inactive_mirror_takes_nothing(service: Served) -> None:
    mirror = create_mirror(service, url=SERVER)
    service.client.patch(f"/v1/mirrors/{mirror['id']}", json={"active": False}).raise_for_status()
    service.submit()
    service.claim()
    assert service.client.get(f"/v1/mirrors/{mirror['id']}/jobs").json()["data"] == []
    assert_problem(service.client.post(f"/v1/mirrors/{mirror['id']}/backfill"), 409, "mirror_inactive")


def test_a_project_has_ten_mirrors_and_a_deleted_one_leaves_nothing(service: Served) -> None:
    mirrors = [create_mirror(service, url=SERVER) for _ in range(10)]
    body = {"kind": "mlflow", "url": SERVER}
    assert_problem(service.client.post("/v1/mirrors", json=body), 409, "too_many_mirrors")
    job = service.submit()
    service.claim()
    assert service.client.delete(f"/v1/mirrors/{mirrors[0]['id']}").status_code == 204
    assert_problem(service.client.get(f"/v1/mirrors/{mirrors[0]['id']}/jobs/{job}"), 404, "not_found")
    create_mirror(service, url=SERVER)
    service.client.post(f"/v1/jobs/{job}/cancel").raise_for_status()


def test_a_mirror_is_its_projects(service: Served) -> None:
    mirror = create_mirror(service, url=SERVER)
    stranger = service.client_for("another")
    for method, path in (("GET", ""), ("PATCH", ""), ("DELETE", ""), ("POST", "/backfill"), ("GET", "/jobs")):
        body = {} if method == "PATCH" else None
        answer = stranger.request(method, f"/v1/mirrors/{mirror['id']}{path}", json=body)
        assert_problem(answer, 404, "not_found")


@pytest.mark.parametrize("text", ["null", "[]", '"x"', "3", "true"])
def test_a_body_that_is_no_object_is_refused(service: Served, text: str) -> None:
    answer = service.client.post("/v1/mirrors", content=text, headers={"Content-Type": "application/json"})
    assert "must be an object" in assert_problem(answer, 422, "invalid_request")["errors"][0]["message"]

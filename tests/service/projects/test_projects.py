"""What a project keeps and may use: the service's settings, and its own over them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from service.jobs import leases
from service.projects.service import rules_of
from service.settings import Settings
from tests.support.api import Served

SQLITE = pytest.mark.parametrize("migrated_url", ["sqlite"], indirect=True)
DEFAULTS = {
    "checkpoints_days": 30,
    "checkpoints_kept": 1,
    "logs_days": 90,
    "metrics_days": None,
    "jobs_days": None,
    "max_queued_jobs": 10_000,
    "max_running_jobs": None,
    "quota_bytes": None,
}


def project_of(service: Served) -> dict[str, Any]:
    (project,) = service.client.get("/v1/projects").json()["data"]
    return dict(project)


def change(service: Served, **settings: Any) -> Any:
    return service.client.patch(f"/v1/projects/{project_of(service)['id']}", json={"settings": settings})


def test_settings_are_the_service_s_until_they_are_set(service: Served) -> None:
    project = project_of(service)
    assert (project["name"], project["settings"], project["overrides"]) == ("default", DEFAULTS, [])
    answer = change(service, logs_days=7, checkpoints_kept=0, metrics_days=365, checkpoints_days=None)
    assert answer.status_code == 200, answer.text
    expected = {**DEFAULTS, "logs_days": 7, "checkpoints_kept": 0, "metrics_days": 365, "checkpoints_days": None}
    assert answer.json()["settings"] == expected
    assert answer.json()["overrides"] == ["checkpoints_days", "checkpoints_kept", "logs_days", "metrics_days"]
    back = {"logs_days": "default", "metrics_days": "default", "checkpoints_days": "default"}
    assert change(service, **back).json()["settings"] == {**DEFAULTS, "checkpoints_kept": 0}
    assert service.client.get(f"/v1/projects/{project['id']}").json() == project_of(service)
    assert change(service).json()["overrides"] == ["checkpoints_kept"]


@SQLITE
def test_another_s_project_is_not_there_and_only_admins_ask(service: Served) -> None:
    other = service.client_for("other")
    (project,) = other.get("/v1/projects").json()["data"]
    assert project["name"] == "other"
    for ask in (service.client.get, service.client.delete):
        assert ask(f"/v1/projects/{project['id']}").status_code in (404, 405)
    answer = service.client.patch(f"/v1/projects/{project['id']}", json={"settings": {"logs_days": 1}})
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    writer = service.client_for("default", "read", "write")
    assert writer.get("/v1/projects").status_code == 403
    assert writer.patch(f"/v1/projects/{project_of(service)['id']}", json={"settings": {}}).status_code == 403


@SQLITE
@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"settings": {"logs_day": 3}}, "/settings/logs_day"),
        ({"settings": {"logs_days": 0}}, "/settings/logs_days"),
        ({"settings": {"logs_days": "3"}}, "/settings/logs_days"),
        ({"settings": {"logs_days": True}}, "/settings/logs_days"),
        ({"settings": {"logs_days": 1.5}}, "/settings/logs_days"),
        ({"settings": {"checkpoints_kept": None}}, "/settings/checkpoints_kept"),
        ({"settings": {"checkpoints_kept": -1}}, "/settings/checkpoints_kept"),
        ({"settings": {"max_running_jobs": 0}}, "/settings/max_running_jobs"),
        ({"settings": {"quota_bytes": 2**63}}, "/settings/quota_bytes"),
        ({"settings": {}, "name": "x"}, "/name"),
        ({}, "/settings"),
    ],
)
def test_wrong_values_are_pointed_at(service: Served, body: Any, pointer: str) -> None:
    answer = service.client.patch(f"/v1/projects/{project_of(service)['id']}", json=body)
    assert answer.status_code == 422
    assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]
    assert project_of(service)["overrides"] == []


def test_the_claim_honours_the_project_s_own_limit(service: Served) -> None:
    def claim(most: int = 0) -> str | None:
        with service.sessions.begin() as session:
            claimed = leases.claim(session, "train", "w", 30, most)
        return claimed.job_id if claimed else None

    jobs = [service.submit() for _ in range(3)]
    other_job = service.submit(service.client_for("other"))
    assert change(service, max_running_jobs=1).status_code == 200
    assert claim() == jobs[0]
    assert claim() == other_job
    assert claim() is None
    assert change(service, max_running_jobs=None).status_code == 200
    assert claim(most=1) is None, "no limit of its own does not lift the service's"
    assert claim() == jobs[1]
    assert change(service, max_running_jobs="default").status_code == 200
    assert claim(most=1) is None
    assert claim() == jobs[2]


def test_queue_and_quota_have_a_limit_of_the_project_s_own(service: Served) -> None:
    service.submit()
    change(service, max_queued_jobs=1, quota_bytes=40)
    spec = {"dataset": service.ready_dataset(), "model": {"kind": "mlp"}}
    answer = service.client.post("/v1/jobs", json=spec)
    assert (answer.status_code, answer.json()["code"]) == (429, "too_many_queued")
    over = service.client.put("/v1/datasets?name=big", content=b"x" * 41)
    assert (over.status_code, over.json()["limit_bytes"]) == (413, 40)
    assert service.client_for("other").put("/v1/datasets?name=big", content=b"x" * 41).status_code == 201
    change(service, max_queued_jobs="default", quota_bytes=None)
    assert service.client.post("/v1/jobs", json=spec).status_code == 201
    assert service.client.put("/v1/datasets?name=big", content=b"x" * 41).status_code == 201


def test_the_environment_has_the_defaults() -> None:
    settings = Settings.from_env({"TRAINKIT_LOGS_DAYS": "0", "TRAINKIT_METRICS_DAYS": "5", "TRAINKIT_JOBS_DAYS": "9"})
    assert (settings.logs_days, settings.metrics_days, settings.jobs_days) == (None, 5, 9)
    assert (settings.checkpoints_days, settings.checkpoints_kept) == (30, 1)
    assert replace(settings, logs_days=3).logs_days == 3


def test_who_runs_the_service_has_the_last_word_on_limits() -> None:
    settings = replace(Settings.from_env({}), max_running_jobs=4, max_queued_jobs=0, project_quota_bytes=100)
    for override, holds in ((2, (2, 2, 2)), (9, (4, 9, 9)), (0, (4, None, 100)), (500, (4, 500, 100))):
        limits = {"max_running_jobs": override, "max_queued_jobs": override, "quota_bytes": override}
        rules = rules_of(settings, limits)
        assert (rules.max_running_jobs, rules.max_queued_jobs, rules.quota_bytes) == holds

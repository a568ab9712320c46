"""What a project keeps and may use: the service's settings, and its own over them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import update

from service.background.archived_projects import stop_archived_work
from service.database import db_now
from service.jobs import leases
from service.jobs import repository as jobs_repository
from service.jobs.tables import Job
from service.projects.service import LIMITS as LIMIT_NAMES
from service.projects.service import rules_of
from service.projects.tables import Project
from service.settings import Settings
from tests.support.api import Served, assert_problem

SQLITE = pytest.mark.parametrize("migrated_url", ["sqlite"], indirect=True)
DEFAULTS = {
    "checkpoints_days": 30,
    "checkpoints_kept": 1,
    "logs_days": 90,
    "metrics_days": None,
    "jobs_days": None,
    "max_queued_jobs": 10_000,
    "max_running_jobs": None,
    "max_storage_bytes": None,
    "max_gpu_hours": None,
    "max_requests_per_minute": 6000,
    "max_streams": 1024,
}
LIMITS = {name: value for name, value in DEFAULTS.items() if name in LIMIT_NAMES}


def project_of(service: Served) -> dict[str, Any]:
    projects = service.client.get("/v1/projects").json()["data"]
    return dict(next(project for project in projects if project["name"] == "default"))


def change(service: Served, **settings: Any) -> Any:
    return service.client.patch(f"/v1/projects/{project_of(service)['id']}", json={"settings": settings})


def test_settings_are_the_service_s_until_they_are_set(service: Served) -> None:
    project = project_of(service)
    assert (project["name"], project["settings"], project["overrides"]) == ("default", DEFAULTS, [])
    assert project["limits"] == LIMITS
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
def test_another_s_project_is_not_there_and_only_admins_change_one(service: Served) -> None:
    admin, other = service.client_for("default", "admin"), service.client_for("other", "admin")
    (project,) = other.get("/v1/projects").json()["data"]
    assert project["name"] == "other"
    path, body = f"/v1/projects/{project['id']}", {"settings": {"logs_days": 1}}
    assert admin.get(path).status_code == 404
    assert_problem(admin.patch(path, json=body), 404, "not_found")
    developer = service.client_for("other", "developer")
    assert developer.get(path).json() == project
    assert_problem(developer.patch(path, json=body), 403, "forbidden")
    for change in ({"name": "mine"}, {"archived": True}):
        assert_problem(other.patch(path, json=change), 403, "forbidden")
    assert other.patch(path, json=body).json()["settings"]["logs_days"] == 1


@SQLITE
def test_the_operator_creates_renames_and_lists_projects(service: Served) -> None:
    operator = service.client_for("default", "operator")
    answer = operator.post("/v1/projects", json={"name": "vision", "settings": {"logs_days": 5}})
    assert answer.status_code == 201, answer.text
    vision = answer.json()
    assert (vision["name"], vision["settings"]["logs_days"], vision["archived_at"]) == ("vision", 5, None)
    assert operator.get(answer.headers["location"]).json() == vision
    assert_problem(operator.post("/v1/projects", json={"name": "vision"}), 409, "name_taken")
    speech = operator.post("/v1/projects", json={"name": "speech"}).json()
    assert_problem(operator.patch(f"/v1/projects/{speech['id']}", json={"name": "vision"}), 409, "name_taken")
    renamed = operator.patch(f"/v1/projects/{speech['id']}", json={"name": "audio"}).json()
    assert (renamed["id"], renamed["name"]) == (speech["id"], "audio")
    first = operator.get("/v1/projects?limit=1").json()
    assert ([one["name"] for one in first["data"]], first["has_more"]) == (["audio"], True)
    second = operator.get(f"/v1/projects?limit=2&after={first['next']}").json()
    assert [one["name"] for one in second["data"]] == ["vision", "default"]
    for role in ("viewer", "developer", "admin"):
        assert_problem(service.client_for("vision", role).post("/v1/projects", json={"name": "x"}), 403, "forbidden")


def test_what_is_under_way_in_an_archived_project_ends_gracefully(service: Served) -> None:
    admin, elsewhere = service.client_for("old", "admin"), service.submit()
    running, queued = service.submit(admin), service.submit(admin)
    plan = {"kind": "kfold", "folds": 3, "spec": {"dataset": service.ready_dataset(admin), "model": "mlp"}}
    experiment = admin.post("/v1/experiments", json=plan).json()["id"]
    with service.sessions.begin() as session:
        assert leases.claim(session, "train", "w", 30) is not None  # of the project with the fewest: either one
        session.execute(update(Job).where(Job.id == running).values(state="running", started_at=db_now()))
    (project,) = admin.get("/v1/projects").json()["data"]
    path = f"/v1/projects/{project['id']}"
    assert service.client.patch(path, json={"archived": True}).json()["archived_at"] is not None
    spec = {"dataset": service.ready_dataset(), "model": "mlp"}
    assert_problem(service.client_for("old", "admin").post("/v1/jobs", json=spec), 409, "project_archived")
    assert stop_archived_work(service.context) >= 3
    assert stop_archived_work(service.context) == 0, "nothing is asked twice"
    states = {one: admin.get(f"/v1/jobs/{one}").json()["state"] for one in (running, queued)}
    assert states == {running: "stopping", queued: "cancelled"}
    assert admin.get(f"/v1/experiments/{experiment}").json()["state"] in ("stopping", "stopped")
    assert service.job(elsewhere)["state"] in ("queued", "starting")
    assert [one["id"] for one in service.client.get("/v1/projects?archived=true").json()["data"]] == [project["id"]]
    assert service.client.patch(path, json={"archived": False}).json()["archived_at"] is None
    spec = {"dataset": service.ready_dataset(service.client_for("old", "developer")), "model": "mlp"}
    assert service.client_for("old", "developer").post("/v1/jobs", json=spec).status_code == 201


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
        ({"settings": {"max_storage_bytes": 2**63}}, "/settings/max_storage_bytes"),
        ({"name": "a b"}, "/name"),
        ({"name": ""}, "/name"),
        ({"archived": "yes"}, "/archived"),
        ({"title": "x"}, "/title"),
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
    spec = {"dataset": service.ready_dataset(), "model": {"kind": "mlp"}}
    used = service.client.get(f"/v1/projects/{project_of(service)['id']}/usage").json()["storage_bytes"]["used"]
    change(service, max_queued_jobs=1, max_storage_bytes=used + 40)
    answer = service.client.post("/v1/jobs", json=spec)
    assert (answer.status_code, answer.json()["code"]) == (429, "too_many_queued")
    over = service.client.put("/v1/datasets?name=big", content=b"x" * 41)
    assert (over.status_code, over.json()["limit_bytes"]) == (413, used + 40)
    assert service.client_for("other").put("/v1/datasets?name=big", content=b"x" * 41).status_code == 201
    change(service, max_queued_jobs="default", max_storage_bytes=None)
    assert service.client.post("/v1/jobs", json=spec).status_code == 201
    assert service.client.put("/v1/datasets?name=big", content=b"x" * 41).status_code == 201


def test_the_environment_has_the_defaults() -> None:
    settings = Settings.from_env({"TRAINKIT_LOGS_DAYS": "0", "TRAINKIT_METRICS_DAYS": "5", "TRAINKIT_JOBS_DAYS": "9"})
    assert (settings.logs_days, settings.metrics_days, settings.jobs_days) == (None, 5, 9)
    assert (settings.checkpoints_days, settings.checkpoints_kept) == (30, 1)
    assert replace(settings, logs_days=3).logs_days == 3


CASES = [
    (None, None, 2),
    (None, 1, 1),
    (None, 3, 2),
    (None, 0, 2),
    (3, None, 3),
    (3, 2, 2),
    (3, 4, 3),
    (3, 0, 3),
    (1, 3, 1),
    (0, None, None),
    (0, 3, 3),
    (0, 0, None),
]


@pytest.mark.postgresql
def test_the_lower_one_of_the_operator_s_limit_and_the_project_s_own_holds(service: Served) -> None:
    """The service's setting is 2, and 0 is stored for no limit. The claim's SQL says the same as `rules_of`."""
    settings = replace(Settings.from_env({}), max_running_jobs=2)
    busy = [service.submit() for _ in range(3)][:2]
    for operator, admin, holds in CASES:
        limits, overrides = ({"max_running_jobs": one} if one is not None else None for one in (operator, admin))
        assert rules_of(settings, overrides, limits).max_running_jobs == holds, (operator, admin)
        with service.sessions.begin() as session:
            project = session.get_one(Project, session.get_one(Job, busy[0]).project_id)
            project.limits, project.settings = limits, overrides
            session.execute(update(Job).where(Job.id.in_(busy)).values(state="running"))
        with service.sessions.begin() as session:
            served = jobs_repository.projects_to_serve(session, "train", settings.max_running_jobs)
        assert bool(served) == (holds is None or holds > len(busy)), (operator, admin)


@SQLITE
@pytest.mark.parametrize("name", LIMITS)
def test_an_admin_cannot_set_a_limit_above_the_operator_s(service: Served, name: str) -> None:
    operator, project = service.client_for("default", "operator"), project_of(service)["id"]

    def limit(value: Any) -> Any:
        return operator.patch(f"/v1/projects/{project}", json={"limits": {name: value}})

    assert limit(7000).json()["limits"][name] == 7000
    for value in (7001, 1_000_000, None):
        refused = change(service, **{name: value})
        assert (refused.status_code, refused.json()["code"]) == (422, "above_ceiling"), value
        (error,) = refused.json()["errors"]
        assert error["pointer"] == f"/settings/{name}"
        assert "at most 7000" in error["message"]
    for value in (0, -1, "7", True, "no limit", 7.5):
        assert change(service, **{name: value}).status_code == 422, value
    assert project_of(service)["settings"][name] == 7000
    assert change(service, **{name: 7000}).json()["settings"][name] == 7000
    assert change(service, **{name: 3000}).json()["settings"][name] == 3000
    # the lower one holds, whichever is lowered last
    assert limit(2000).json()["settings"][name] == 2000
    assert limit(None).json()["settings"][name] == 3000
    assert change(service, **{name: None}).json()["settings"][name] is None
    assert limit("default").json()["limits"] == LIMITS
    assert project_of(service)["settings"][name] == DEFAULTS[name]


@SQLITE
def test_only_the_operator_sets_the_limits_of_a_project(service: Served) -> None:
    operator, path = service.client_for("default", "operator"), f"/v1/projects/{project_of(service)['id']}"
    for role in ("admin", "developer", "viewer"):
        answer = service.client_for("default", role).patch(path, json={"limits": {"max_streams": 9999}})
        assert_problem(answer, 403, "forbidden")
    for limits, pointer in (({"jobs_days": 1}, "/limits/jobs_days"), ({"max_streams": 0}, "/limits/max_streams")):
        answer = operator.patch(path, json={"limits": limits})
        assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]
    both = {"limits": {"max_queued_jobs": None}, "settings": {"max_queued_jobs": 20_000}}
    assert operator.patch(path, json=both).json()["settings"]["max_queued_jobs"] == 20_000
    created = operator.post("/v1/projects", json={"name": "small", "limits": {"max_running_jobs": 1}})
    assert created.json()["settings"]["max_running_jobs"] == 1
    refused = {"name": "x", "limits": {"max_running_jobs": 1}, "settings": {"max_running_jobs": 2}}
    assert_problem(operator.post("/v1/projects", json=refused), 422, "above_ceiling")

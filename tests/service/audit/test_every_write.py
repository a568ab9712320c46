"""Every write operation of the OpenAPI document leaves an entry. A new route is driven by itself, or fails here."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from service.audit import repository
from service.audit import service as audit
from service.audit.service import exported
from service.audit.trail import acting, command
from service.database import Base, reading
from service.datasets import intake
from service.keys.service import create_key
from service.openapi import operations
from service.users.service import Claims, GroupRoles, record
from tests.support.api import FACTS, Served, record_checkpoint
from tests.support.openapi_document import openapi_document
from tests.support.tus_requests import VERSION, begun

READING = {"get", "head", "options"}
OPERATIONS = {
    operation["operationId"]: (path, method, operation) for path, method, operation in operations(openapi_document())
}
WRITES = sorted(
    name
    for name, (_, method, operation) in OPERATIONS.items()
    if method not in READING and "viewer" not in operation.get("x-required-roles", ())
)
CHUNK = {**VERSION, "Content-Type": "application/offset+octet-stream", "Upload-Offset": "0"}


def log_of(service: Served) -> list[dict[str, Any]]:
    """All entries, sealed, oldest first."""
    service.app.state.refusals.write(service.sessions)
    audit.seal(service.sessions)
    with reading(service.sessions) as session:
        return [exported(row) for row in repository.walk(session, 0)]


class Driver:
    """Sends one valid request for each write operation, on things of its own; returns the response."""

    def __init__(self, service: Served) -> None:
        self.service, self.client = service, service.client

    def webhook(self) -> str:
        return str(self.client.post("/v1/webhooks", json={"url": "http://127.0.0.1:9/"}).json()["id"])

    def ended_job(self) -> str:
        job = self.service.submit()
        self.finish(job)
        return job

    def finish(self, job: str) -> str:
        """A worker ends the jobs that are queued, up to this one; returns its model."""
        while True:
            claimed = self.service.claim()
            record_checkpoint(self.service, claimed)
            model = self.service.finish(claimed)
            assert model is not None
            if claimed.job_id == job:
                return model

    def experiment(self) -> str:
        spec = {"dataset": self.service.ready_dataset(), "model": "mlp"}
        return str(self.client.post("/v1/experiments", json={"kind": "kfold", "folds": 2, "spec": spec}).json()["id"])

    def send(self, name: str) -> Any:
        prepare = getattr(self, name, None)
        assert prepare is not None, f"{name} is a new write operation: say here how it is called"
        answer = prepare()
        self.check_datasets()
        return answer

    def check_datasets(self) -> None:
        """A data worker checks the datasets that an operation has left: the next one's own must be the next."""
        while True:
            with self.service.sessions.begin() as session:
                claimed = intake.claim(session, "tests", 30)
                if claimed is None:
                    return
                intake.ready(session, claimed.claim, FACTS, {"notes": []}, "prepared/x")

    def createJob(self) -> Any:  # noqa: N802 - operationIds
        return self.client.post("/v1/jobs", json={"dataset": self.service.ready_dataset(), "model": "mlp"})

    def stopJob(self) -> Any:  # noqa: N802
        return self.client.post(f"/v1/jobs/{self.service.submit()}/stop")

    def cancelJob(self) -> Any:  # noqa: N802
        return self.client.post(f"/v1/jobs/{self.service.submit()}/cancel")

    def pauseJob(self) -> Any:  # noqa: N802
        return self.client.post(f"/v1/jobs/{self.service.submit()}/pause")

    def resumeJob(self) -> Any:  # noqa: N802
        job = self.service.submit()
        self.client.post(f"/v1/jobs/{job}/pause")
        return self.client.post(f"/v1/jobs/{job}/resume")

    def forkJob(self) -> Any:  # noqa: N802
        return self.client.post(f"/v1/jobs/{self.ended_job()}/fork", json={"patch": {"train": {"epochs": 9}}})

    def investigateJob(self) -> Any:  # noqa: N802
        return self.client.post(f"/v1/jobs/{self.ended_job()}/diagnosis:investigate", json={"jobs": 2})

    def retryJob(self) -> Any:  # noqa: N802
        return self.client.post(f"/v1/jobs/{self.ended_job()}/retry")

    def deleteJob(self) -> Any:  # noqa: N802
        return self.client.delete(f"/v1/jobs/{self.ended_job()}")

    def deleteDataset(self) -> Any:  # noqa: N802
        return self.client.delete(f"/v1/datasets/{self.service.ready_dataset()}")

    def uploadDataset(self) -> Any:  # noqa: N802
        return self.client.put("/v1/datasets?name=put", content=b"some bytes")

    def createDataset(self) -> Any:  # noqa: N802
        return self.client.post("/v1/datasets", data={"name": "form"}, files={"file": ("a.csv", b"a,b\n1,2\n")})

    def rereadDataset(self) -> Any:  # noqa: N802
        return self.client.post(f"/v1/datasets/{self.service.ready_dataset()}:reread", json={"target": "b"})

    def createUpload(self) -> Any:  # noqa: N802
        return self.client.post("/v1/uploads", headers={**VERSION, "Upload-Length": "10"})

    def patchUpload(self) -> Any:  # noqa: N802
        return self.client.patch(begun(self.client, 10), headers=CHUNK, content=b"abc")

    def postUpload(self) -> Any:  # noqa: N802
        headers = {**CHUNK, "X-HTTP-Method-Override": "PATCH"}
        return self.client.post(begun(self.client, 10), headers=headers, content=b"abc")

    def deleteUpload(self) -> Any:  # noqa: N802
        return self.client.delete(begun(self.client, 10), headers=VERSION)

    def createExperiment(self) -> Any:  # noqa: N802
        spec = {"dataset": self.service.ready_dataset(), "model": "mlp"}
        return self.client.post("/v1/experiments", json={"kind": "kfold", "folds": 2, "spec": spec})

    def stopExperiment(self) -> Any:  # noqa: N802
        return self.client.post(f"/v1/experiments/{self.experiment()}/stop")

    def deleteExperiment(self) -> Any:  # noqa: N802
        experiment = self.experiment()
        self.client.post(f"/v1/experiments/{experiment}/stop", json={"running": "cancel"})
        return self.client.delete(f"/v1/experiments/{experiment}")

    def deleteModel(self) -> Any:  # noqa: N802
        return self.client.delete(f"/v1/models/{self.finish(self.service.submit())}")

    def updateModel(self) -> Any:  # noqa: N802
        return self.client.patch(f"/v1/models/{self.finish(self.service.submit())}", json={"notes": "good"})

    def setModelAlias(self) -> Any:  # noqa: N802
        return self.client.put(f"/v1/models/{self.finish(self.service.submit(name='named'))}/aliases/production")

    def removeModelAlias(self) -> Any:  # noqa: N802
        return self.client.delete(str(self.setModelAlias().request.url.path))

    def setDatasetAlias(self) -> Any:  # noqa: N802
        return self.client.put(f"/v1/datasets/{self.service.ready_dataset()}/aliases/golden")

    def removeDatasetAlias(self) -> Any:  # noqa: N802
        return self.client.delete(str(self.setDatasetAlias().request.url.path))

    def updateJob(self) -> Any:  # noqa: N802
        return self.client.patch(f"/v1/jobs/{self.service.submit()}", json={"notes": "look at this"})

    def stopJobs(self) -> Any:  # noqa: N802
        return self.client.post("/v1/jobs:stop", json={"ids": [self.service.submit()]})

    def createExperimentNote(self) -> Any:  # noqa: N802
        experiment = self.createExperiment().json()["id"]
        return self.client.post(f"/v1/experiments/{experiment}/notes", json={"text": "a thought"})

    def createGroupNote(self) -> Any:  # noqa: N802
        self.service.submit(group="sweep")
        return self.client.post("/v1/groups/sweep/notes", json={"text": "a thought"})

    def cancelJobs(self) -> Any:  # noqa: N802
        return self.client.post("/v1/jobs:cancel", json={"ids": [self.service.submit()]})

    def deleteJobs(self) -> Any:  # noqa: N802
        return self.client.post("/v1/jobs:delete", json={"ids": [self.ended_job()]})

    def labelJobs(self) -> Any:  # noqa: N802
        return self.client.post("/v1/jobs:label", json={"ids": [self.service.submit()], "labels": {"seen": "1"}})

    def person(self) -> str:
        """Somebody who has signed in once."""
        number = next(self.service.numbers)
        claims = Claims("https://login", f"p{number}", "Ada", f"p{number}@example.org", frozenset(), datetime.now(UTC))
        return record(self.service.sessions, claims, GroupRoles()).id

    def member(self) -> str:
        user = self.person()
        assert self.client.post("/v1/members", json={"user": user, "role": "viewer"}).status_code == 201
        return user

    def addMember(self) -> Any:  # noqa: N802
        return self.client.post("/v1/members", json={"user": self.person(), "role": "viewer"})

    def updateMember(self) -> Any:  # noqa: N802
        return self.client.patch(f"/v1/members/{self.member()}", json={"role": "developer"})

    def removeMember(self) -> Any:  # noqa: N802
        return self.client.delete(f"/v1/members/{self.member()}")

    def createServiceAccount(self) -> Any:  # noqa: N802
        return self.client.post("/v1/service-accounts", json={"name": "ci", "role": "developer"})

    def updateUser(self) -> Any:  # noqa: N802
        return self.client.patch(f"/v1/users/{self.person()}", json={"disabled": True})

    def signOut(self) -> Any:  # noqa: N802
        return self.client.post("/v1/auth/logout")

    def createWebhook(self) -> Any:  # noqa: N802
        return self.client.post("/v1/webhooks", json={"url": "http://127.0.0.1:9/"})

    def updateWebhook(self) -> Any:  # noqa: N802
        return self.client.patch(f"/v1/webhooks/{self.webhook()}", json={"active": False})

    def deleteWebhook(self) -> Any:  # noqa: N802
        return self.client.delete(f"/v1/webhooks/{self.webhook()}")

    def rotateWebhookSecret(self) -> Any:  # noqa: N802
        return self.client.post(f"/v1/webhooks/{self.webhook()}/rotate")

    def testWebhook(self) -> Any:  # noqa: N802
        return self.client.post(f"/v1/webhooks/{self.webhook()}/test")

    def redeliverWebhook(self) -> Any:  # noqa: N802
        webhook = self.webhook()
        delivery = self.client.post(f"/v1/webhooks/{webhook}/test").json()["id"]
        return self.client.post(f"/v1/webhooks/{webhook}/deliveries/{delivery}/redeliver")

    def mirror(self) -> str:
        body = {"kind": "mlflow", "url": "http://127.0.0.1:9", "token": "t" * 40}
        return str(self.client.post("/v1/mirrors", json=body).json()["id"])

    def createMirror(self) -> Any:  # noqa: N802
        return self.client.post("/v1/mirrors", json={"kind": "mlflow", "url": "http://127.0.0.1:9"})

    def updateMirror(self) -> Any:  # noqa: N802
        return self.client.patch(f"/v1/mirrors/{self.mirror()}", json={"active": False})

    def deleteMirror(self) -> Any:  # noqa: N802
        return self.client.delete(f"/v1/mirrors/{self.mirror()}")

    def backfillMirror(self) -> Any:  # noqa: N802
        self.ended_job()
        return self.client.post(f"/v1/mirrors/{self.mirror()}/backfill")

    def retryMirroredJob(self) -> Any:  # noqa: N802
        job, mirror = self.ended_job(), self.mirror()
        self.client.post(f"/v1/mirrors/{mirror}/backfill").raise_for_status()
        return self.client.post(f"/v1/mirrors/{mirror}/jobs/{job}/retry")

    def rotateKey(self) -> Any:  # noqa: N802
        return self.client.post(f"/v1/keys/{self.createKey().json()['id']}:rotate")

    def createProject(self) -> Any:  # noqa: N802
        return self.client.post("/v1/projects", json={"name": "another"})

    def createKey(self) -> Any:  # noqa: N802
        return self.client.post("/v1/keys", json={"name": "robot", "role": "viewer"})

    def revokeKey(self) -> Any:  # noqa: N802
        self.service.key("default", "viewer")
        return self.client.delete(f"/v1/keys/{self.client.get('/v1/keys').json()['data'][-1]['id']}")

    def updateProject(self) -> Any:  # noqa: N802
        project = self.client.get("/v1/projects").json()["data"][-1]["id"]
        return self.client.patch(f"/v1/projects/{project}", json={"settings": {"logs_days": 3}})


@pytest.mark.postgresql
def test_every_write_operation_leaves_an_entry(service: Served) -> None:
    driver, key = Driver(service), service.client.headers["Authorization"].split("_")[1]
    for name in WRITES:
        answer = driver.send(name)
        assert answer.status_code < 300, f"{name}: {answer.text}"
        found = [one for one in log_of(service) if one["request_id"] == answer.headers["x-request-id"]]
        assert found, name
        for one in found:
            assert (one["operation"], one["outcome"], one["code"]) == (name, "succeeded", None)
            assert (one["actor"]["kind"], one["actor"]["id"]) == ("key", key)
            assert one["status"] == answer.status_code, name
            assert one["project"] == (one["resource"]["id"] if name.endswith("Project") else one["actor"]["project"])
    assert len(WRITES) >= 30


def test_reading_leaves_no_entry(service: Served) -> None:
    job, before = service.submit(), len(log_of(service))
    for path in (f"/v1/jobs/{job}", "/v1/jobs", "/v1/datasets", "/v1/audit", "/v1/keys", "/healthz"):
        assert service.client.get(path).status_code == 200
    dataset = service.job(job)["dataset"]["id"]
    checked = service.client.post("/v1/specs:validate", json={"dataset": dataset, "model": "mlp"})
    assert checked.status_code == 200
    assert service.client.options("/v1/jobs").status_code == 204
    assert len(log_of(service)) == before


def test_before_and_after_are_the_changed_fields(service: Served) -> None:
    client = service.client
    cases: list[tuple[str, Callable[[], Any], Any, Any]] = []
    driver = Driver(service)
    job = service.submit(name="mine", labels={"team": "a"})
    cases.append(
        ("cancelJob", lambda: client.post(f"/v1/jobs/{job}/cancel"), {"state": "queued"}, {"state": "cancelled"})
    )
    webhook = driver.webhook()
    change = {"description": "new", "events": ["job.failed"]}
    before, after = {"description": "", "events": ["job.*"]}, change
    cases.append(("updateWebhook", lambda: client.patch(f"/v1/webhooks/{webhook}", json=change), before, after))
    project = client.get("/v1/projects").json()["data"][0]["id"]
    cases.append(
        (
            "updateProject",
            lambda: client.patch(f"/v1/projects/{project}", json={"settings": {"logs_days": 3}}),
            {"settings": None},
            {"settings": {"logs_days": 3}},
        )
    )
    for name, send, before, after in cases:
        answer = send()
        assert answer.status_code == 200, answer.text
        (one,) = [one for one in log_of(service) if one["request_id"] == answer.headers["x-request-id"]]
        assert (one["operation"], one["before"], one["after"]) == (name, before, after)
    created = next(one for one in log_of(service) if one["operation"] == "createJob" and one["resource"]["id"] == job)
    assert created["before"] is None
    assert created["after"]["name"] == "mine"
    assert created["after"]["labels"] == {"team": "a"}
    assert created["after"]["state"] == "queued"
    assert "spec" in created["after"]


def test_a_write_that_is_rolled_back_leaves_no_entry(service: Served) -> None:
    before = len(log_of(service))
    assert service.client.post("/v1/jobs/job_x/stop").status_code == 404
    assert service.client.post("/v1/webhooks", json={"url": "http://127.0.0.1:9/", "events": []}).status_code == 422
    job = service.submit()
    service.claim()
    submitted = len(log_of(service))
    assert service.client.delete(f"/v1/jobs/{job}").status_code == 409
    assert len(log_of(service)) == submitted
    assert submitted > before


def test_secrets_are_never_shown(service: Served) -> None:
    driver = Driver(service)
    secrets = [
        driver.createWebhook().json()["secret"],
        driver.rotateWebhookSecret().json()["secret"],
        driver.createKey().json()["key"].rpartition("_")[2],
        service.client.headers["Authorization"].rpartition("_")[2],
    ]
    entries = log_of(service)
    text = json.dumps(entries)
    assert not [one for one in secrets if one in text]
    (rotated,) = [one for one in entries if one["operation"] == "rotateWebhookSecret"]
    assert rotated["after"]["secret"] == "(secret)"


def test_columns_that_sound_like_secrets_are_declared_as_such() -> None:
    for mapper in Base.registry.mappers:
        audited = mapper.class_.audited
        if audited is not None:
            names = {column.name for column in mapper.columns}
            suspicious = {
                name for name in names if any(word in name for word in ("secret", "password", "token", "hash"))
            }
            assert suspicious <= audited.secret | audited.omitted, mapper.class_.__name__
            assert audited.secret | audited.omitted <= names, f"{mapper.class_.__name__}: a column that is not there"


def test_long_values_are_shown_by_their_digest(service: Served) -> None:
    labels = {f"label{number}": "x" * 40 for number in range(30)}
    answer = service.client.post(
        "/v1/jobs", json={"dataset": service.ready_dataset(), "model": "mlp", "labels": labels}
    )
    assert answer.status_code == 201, answer.text
    created = next(one for one in log_of(service) if one["operation"] == "createJob")
    assert set(created["after"]["labels"]) == {"sha256", "bytes"}


def test_what_a_command_creates_is_an_entry_of_the_command_line(service: Served) -> None:
    with acting(command("createKey")), service.sessions.begin() as session:
        create_key(session, "fresh", "robot", "viewer")
    created = [one for one in log_of(service) if one["operation"] == "createKey"]
    assert [one["resource"]["kind"] for one in created] == ["project", "key"]
    assert {one["actor"]["kind"] for one in created} == {"cli"}
    assert created[1]["after"] == {"name": "robot", "role": "viewer", "operator": False}
    assert created[0]["project"] == created[0]["resource"]["id"] == created[1]["project"]


def test_facts_are_not_audited(service: Served) -> None:
    """What workers write on their own is told by events."""
    before = len(log_of(service))
    service.ready_dataset()
    names = [one["operation"] for one in log_of(service)[before:]]
    assert names == ["uploadDataset"]

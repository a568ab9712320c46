"""Who sees what of the audit log, and what is recorded of those who were refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from service.audit import repository
from service.audit import service as audit
from service.audit.documents import hash_of_exported
from service.audit.refusals import MAX_COUNTED, Refusals
from service.audit.service import exported
from service.audit.trail import ANONYMOUS
from service.database import reading
from tests.support.api import Served

pytestmark = pytest.mark.postgresql


def keep(service: Served) -> None:
    """What the API does every second."""
    service.app.state.refusals.write(service.sessions)
    audit.seal(service.sessions)


def denied(service: Served) -> list[dict[str, Any]]:
    keep(service)
    with reading(service.sessions) as session:
        return [one for row in repository.walk(session, 0) if (one := exported(row))["outcome"] == "denied"]


def test_a_project_sees_its_own_entries_and_an_operator_all(service: Served) -> None:
    admin, other = service.client_for("default", "admin"), service.client_for("other", "admin")
    admin.post("/v1/keys", json={"name": "one", "role": "viewer"})
    other.post("/v1/keys", json={"name": "two", "role": "viewer"})
    keep(service)
    for client, name in ((admin, "one"), (other, "two")):
        entries = client.get("/v1/audit").json()["data"]
        assert [one["after"]["name"] for one in entries] == [name]
    everything = service.client_for("default", "admin", "operator").get("/v1/audit").json()["data"]
    assert [one["after"]["name"] for one in everything] == ["two", "one"]
    (project,) = {one["project"] for one in other.get("/v1/audit").json()["data"]}
    assert admin.get(f"/v1/audit?project={project}").json()["data"] == []
    assert admin.get(f"/v1/audit/export?project={project}").status_code == 403
    narrowed = service.client_for("x", "admin", "operator").get(f"/v1/audit?project={project}").json()["data"]
    assert [one["after"]["name"] for one in narrowed] == ["two"]
    assert service.client_for("default", "developer").get("/v1/audit").status_code == 403


def test_filters_and_pages(service: Served) -> None:
    client = service.client
    job = service.submit()
    client.post(f"/v1/jobs/{job}/cancel")
    for number in range(3):
        client.post("/v1/keys", json={"name": f"key {number}", "role": "viewer"})
    keep(service)

    def names(query: str) -> list[str]:
        answer = client.get(f"/v1/audit?{query}")
        assert answer.status_code == 200, answer.text
        return [one["operation"] for one in answer.json()["data"]]

    key = client.headers["Authorization"].split("_")[1]
    assert names(f"resource={job}") == ["cancelJob", "createJob"]
    assert names("operation=createKey") == ["createKey"] * 3
    assert len(names(f"actor=key:{key}")) == 6
    assert names("actor=key:nobody") == names("outcome=denied") == names("created_before=2020-01-01T00:00:00Z") == []
    assert len(names("outcome=succeeded&created_after=2020-01-01T00:00:00Z")) == 6
    seen: list[int] = []
    page: dict[str, Any] = {"next": None}
    while True:
        page = client.get("/v1/audit", params={"limit": 4, **({"after": page["next"]} if page["next"] else {})}).json()
        seen += [one["seq"] for one in page["data"]]
        if not page["has_more"]:
            break
    assert seen == sorted(seen, reverse=True)
    assert len(seen) == 6
    assert client.get("/v1/audit?actr=x").status_code == 422


def test_an_export_has_every_entry_once_and_can_be_verified(service: Served) -> None:
    for number in range(5):
        service.client.post("/v1/keys", json={"name": f"key {number}", "role": "viewer"})
    keep(service)
    answer = service.client.get("/v1/audit/export")
    assert answer.headers["content-type"].startswith("application/x-ndjson")
    lines = answer.text.splitlines()
    assert audit.verify_export(lines).entries == 5
    rest = service.client.get("/v1/audit/export?after=3").text.splitlines()
    assert rest == lines[3:]
    newest = service.client.get("/v1/audit?limit=1").json()["data"][0]
    assert newest["hash"] == json.loads(lines[-1])["hash"]


def test_refused_access_is_recorded(service: Served) -> None:
    job = service.submit()
    headers = {"User-Agent": "curl/8", "X-Request-Id": "abc"}
    assert service.client.get("/v1/jobs", headers={**headers, "Authorization": "Bearer tk_x"}).status_code == 401
    reader = service.client_for("default", "viewer")
    assert reader.post(f"/v1/jobs/{job}/stop").status_code == 403
    stranger = service.client_for("another")
    assert stranger.get(f"/v1/jobs/{job}").status_code == 404
    assert stranger.get("/v1/jobs/job_nowhere").status_code == 404
    anonymous, forbidden, foreign = denied(service)
    assert (anonymous["actor"]["kind"], anonymous["project"], anonymous["status"]) == ("anonymous", None, 401)
    assert anonymous["client"] == {"address": "testclient", "user_agent": "curl/8"}
    assert anonymous["request_id"] == "abc"
    assert (forbidden["operation"], forbidden["status"], forbidden["code"]) == ("stopJob", 403, "forbidden")
    assert forbidden["resource"] == {"kind": "job", "id": job}
    assert forbidden["project"] == forbidden["actor"]["project"]
    assert (foreign["operation"], foreign["code"], foreign["resource"]["id"]) == ("getJob", "other_project", job)
    # neither project learns of it: not whose the job is, nor that it exists
    assert foreign["project"] is None
    shown = stranger.get("/v1/audit?outcome=denied&project=" + str(foreign["actor"]["project"])).json()["data"]
    assert shown == []


def test_many_refusals_are_few_entries(service: Served) -> None:
    """An attacker without a key must not fill the disk."""
    for _ in range(40):
        assert service.client.get("/v1/jobs", headers={"Authorization": "Bearer tk_x"}).status_code == 401
    assert [one["count"] for one in denied(service)] == [40]
    for _ in range(20):
        service.client.get("/v1/keys", headers={"Authorization": "Bearer tk_y"})
    assert [one["count"] for one in denied(service)] == [40]
    service.app.state.refusals.write(service.sessions, all_of_it=True)
    assert [one["count"] for one in denied(service)] == [40, 20]


def test_refusals_from_everywhere_are_counted_together(service: Served) -> None:
    now = 0.0
    refusals = Refusals(clock=lambda: now)
    for minute in range(3):
        for number in range(10_000):
            client = {"address": f"10.0.{number // 256}.{number % 256}", "user_agent": None}
            actor = ANONYMOUS
            facts = {"actor": actor, "operation": None, "client": client, "request_id": None, "project": None}
            refusals.count(facts, 401, "unauthorized", None)
        assert refusals.write(service.sessions) == MAX_COUNTED + 1, minute
        now += 61
        assert refusals.write(service.sessions) == 0
    counts = [one["count"] for one in denied(service)]
    assert len(counts) == 3 * (MAX_COUNTED + 1)
    assert sum(counts) == 30_000


def test_entries_outlive_what_they_tell_of(service: Served) -> None:
    job = service.submit()
    service.finish(service.claim())
    assert service.client.delete(f"/v1/jobs/{job}").status_code == 204
    keep(service)
    entries = service.client.get(f"/v1/audit?resource={job}").json()["data"]
    assert [one["operation"] for one in entries] == ["deleteJob", "createJob"]
    assert entries[0]["after"] is None
    assert entries[0]["before"]["state"] == "succeeded"


def test_an_entry_of_a_list_is_the_one_that_is_exported(service: Served) -> None:
    """So its hash can be checked as well."""
    service.client.post("/v1/keys", json={"name": "one", "role": "viewer"})
    keep(service)
    (listed,) = service.client.get("/v1/audit?operation=createKey").json()["data"]
    assert listed == json.loads(service.client.get("/v1/audit/export").text.splitlines()[-1])
    assert hash_of_exported(listed) == listed["hash"]

"""Submitting, looking, stopping: the HTTP contract, on both databases."""

from __future__ import annotations

from service.jobs import leases
from service.metrics import service as metrics
from tests.support.api import Served, row


def test_a_job_is_a_row_with_an_event(service: Served) -> None:
    job = service.submit(name="first", labels={"team": "vision"})
    shown = service.client.get(f"/v1/jobs/{job}").json()
    assert (shown["state"], shown["name"], shown["labels"]) == ("queued", "first", {"team": "vision"})
    assert shown["resolved"]["task"] == "classification"
    assert shown["dataset"]["sha256"]
    events = service.client.get(f"/v1/jobs/{job}/events").json()["data"]
    assert [(event["seq"], event["from"], event["to"]) for event in events] == [(1, None, "queued")]
    assert events[0]["actor"].startswith("key:")


def test_yaml_and_json_say_the_same(service: Served) -> None:
    dataset = service.ready_dataset()
    text = f"dataset: {dataset}\nmodel: {{kind: mlp, hidden: [3]}}\n"
    answer = service.client.post("/v1/jobs", content=text, headers={"Content-Type": "application/yaml"})
    assert answer.status_code == 201
    assert answer.json()["spec"] == {"dataset": dataset, "model": {"kind": "mlp", "hidden": [3]}}


def test_idempotency_key_makes_one_job(service: Served) -> None:
    spec = {"dataset": service.ready_dataset(), "model": {"kind": "mlp"}}
    headers = {"Idempotency-Key": "abc"}
    first = service.client.post("/v1/jobs", json=spec, headers=headers)
    again = service.client.post("/v1/jobs", json=spec, headers=headers)
    assert first.json()["id"] == again.json()["id"]
    assert again.headers["Idempotency-Replayed"] == "true"
    other = service.client.post("/v1/jobs", json={**spec, "name": "other"}, headers=headers)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_mismatch")
    assert len(service.client.get("/v1/jobs").json()["data"]) == 1


def test_list_filters_and_pages(service: Served) -> None:
    dataset = service.ready_dataset()
    for number in range(5):
        spec = {"dataset": dataset, "model": {"kind": "mlp"}, "labels": {"parity": str(number % 2)}}
        assert service.client.post("/v1/jobs", json=spec).status_code == 201
    first = service.client.get("/v1/jobs?limit=2").json()
    rest = service.client.get(f"/v1/jobs?limit=200&after={first['next']}").json()
    assert (len(first["data"]), first["has_more"], len(rest["data"]), rest["has_more"]) == (2, True, 3, False)
    ids = [job["id"] for job in first["data"] + rest["data"]]
    assert ids == sorted(ids, reverse=True)
    assert len(service.client.get("/v1/jobs?label.parity=1").json()["data"]) == 2
    assert len(service.client.get("/v1/jobs?state=queued&state=running").json()["data"]) == 5
    assert service.client.get("/v1/jobs?state=nonsense").status_code == 422


def test_etag_saves_the_body(service: Served) -> None:
    job = service.submit()
    tag = service.client.get(f"/v1/jobs/{job}").headers["ETag"]
    assert service.client.get(f"/v1/jobs/{job}", headers={"If-None-Match": tag}).status_code == 304
    service.client.post(f"/v1/jobs/{job}/cancel")
    assert service.client.get(f"/v1/jobs/{job}", headers={"If-None-Match": tag}).status_code == 200


def test_stop_and_cancel_are_idempotent(service: Served) -> None:
    never_ran = service.submit()
    for _ in range(2):
        stopped = service.client.post(f"/v1/jobs/{never_ran}/stop").json()
        assert (stopped["state"], stopped["stop_reason"]) == ("cancelled", "client_stop")
    running = service.submit(name="running")
    claimed = service.claim()
    assert claimed.job_id == running
    for _ in range(2):
        assert service.client.post(f"/v1/jobs/{running}/stop", json={"keep": "last"}).json()["state"] == "stopping"
    with service.sessions.begin() as session:
        wish = leases.renew(session, claimed.claim, 30)
    assert wish == {"action": "stop", "keep": "last"}
    assert service.client.post(f"/v1/jobs/{running}/stop", json={"keep": "nothing"}).status_code == 422


def test_stop_only_if_nothing_newer_was_seen(service: Served) -> None:
    job = service.submit()
    claimed = service.claim()
    with service.sessions.begin() as session:
        metrics.append(session, claimed.claim, [row("loss", 0.5), row("loss", 0.4, 2)])
    stale = service.client.post(f"/v1/jobs/{job}/stop", json={"if_seq": 1})
    assert (stale.status_code, stale.json()["code"]) == (409, "newer_metrics")
    assert service.client.post(f"/v1/jobs/{job}/stop", json={"if_seq": 2}).json()["state"] == "stopping"


def test_delete_needs_an_ended_job(service: Served) -> None:
    job = service.submit()
    assert service.client.delete(f"/v1/jobs/{job}").status_code == 409
    service.client.post(f"/v1/jobs/{job}/cancel")
    assert service.client.delete(f"/v1/jobs/{job}").status_code == 204
    assert service.client.get(f"/v1/jobs/{job}").status_code == 404


def test_validate_creates_nothing_and_estimates(service: Served) -> None:
    spec = {"dataset": service.ready_dataset(), "model": {"kind": "mlp", "hidden": [10]}}
    answer = service.client.post("/v1/specs:validate", json=spec).json()
    assert answer["valid"] is True
    assert answer["estimate"]["parameters"] == 64 * 10 + 10 + 10 * 2 + 2
    assert service.client.get("/v1/jobs").json()["data"] == []


def test_jobs_are_listed_by_group(service: Served) -> None:
    grouped = [service.submit(group="rates & more") for _ in range(2)]
    other, none = service.submit(group="depths"), service.submit()
    assert [service.job(job)["group"] for job in (*grouped, other, none)] == ["rates & more"] * 2 + ["depths", None]
    found = service.client.get("/v1/jobs", params={"group": "rates & more"}).json()["data"]
    assert [job["id"] for job in found] == grouped[::-1]
    assert service.client.get("/v1/jobs?group=rates").json()["data"] == []
    stranger = service.client_for("other")
    assert stranger.get("/v1/jobs", params={"group": "rates & more"}).json()["data"] == []
    retried = service.client.post(f"/v1/jobs/{grouped[0]}/cancel").json()["id"]
    again = service.client.post(f"/v1/jobs/{retried}/retry").json()
    assert again["group"] == "rates & more"
    for wrong in ("", "x" * 201, 3, ["a"]):
        spec = {"dataset": service.ready_dataset(), "model": {"kind": "mlp"}, "group": wrong}
        answer = service.client.post("/v1/jobs", json=spec)
        assert answer.status_code == 422
        assert [error["pointer"] for error in answer.json()["errors"]] == ["/group"]
    assert service.client.get("/v1/jobs", params={"group": "x" * 201}).status_code == 422


def test_peer_rule_without_group_gives_a_warning(service: Served) -> None:
    spec = {"dataset": service.ready_dataset(), "model": {"kind": "mlp"}}
    rules = [{"kind": "diverged"}, {"kind": "median"}]
    answer = service.client.post("/v1/specs:validate", json={**spec, "early_stop": rules}).json()
    assert [(one["pointer"], one["code"]) for one in answer["warnings"]] == [("/early_stop/1", "no_group")]
    assert answer["spec"]["early_stop"][1]["mode"] == "min"
    answer = service.client.post("/v1/specs:validate", json={**spec, "early_stop": rules, "group": "e"}).json()
    assert answer["warnings"] == []
    wrong = {"kind": "percentile", "monitor": "val_r2", "percentile": 101}
    answer = service.client.post("/v1/specs:validate", json={**spec, "early_stop": [wrong]})
    assert [error["pointer"] for error in answer.json()["errors"]] == ["/early_stop/0/percentile"]

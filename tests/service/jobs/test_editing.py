"""A job's name, labels and notes: changed in any state, with a record, and nothing else of it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.api import Served, assert_problem, record_checkpoint


def edited(service: Served, job: str, **patch: Any) -> dict[str, Any]:
    answer = service.client.patch(f"/v1/jobs/{job}", json=patch)
    assert answer.status_code == 200, answer.text
    document: dict[str, Any] = answer.json()
    return document


def events(service: Served, job: str) -> list[dict[str, Any]]:
    data: list[dict[str, Any]] = service.client.get(f"/v1/jobs/{job}/events").json()["data"]
    return data


def found_by(service: Served, **labels: str) -> list[str]:
    query = {f"label.{key}": value for key, value in labels.items()}
    return [one["id"] for one in service.client.get("/v1/jobs", params=query).json()["data"]]


@pytest.mark.postgresql
def test_name_labels_and_notes_are_merged_and_recorded(service: Served) -> None:
    job = service.submit(name="first", labels={"team": "vision", "stage": "draft"})
    before = service.job(job)
    after = edited(service, job, name="better", labels={"stage": None, "owner": "ada"}, notes="lr was too high")
    assert (after["name"], after["notes"]) == ("better", "lr was too high")
    assert after["labels"] == {"team": "vision", "owner": "ada"}
    assert after["updated_at"] > before["updated_at"]
    assert after["spec"] == before["spec"], "as it was submitted"
    assert {name for name in after if after[name] != before[name]} == {"name", "notes", "labels", "updated_at"}
    *_, event = events(service, job)
    assert (event["kind"], event["from"], event["to"], event["actor"][:4]) == ("edited", None, None, "key:")
    assert event["data"] == {
        "before": {"name": "first", "labels": {"team": "vision", "stage": "draft"}, "notes": None},
        "after": {"name": "better", "labels": {"team": "vision", "owner": "ada"}, "notes": "lr was too high"},
    }
    assert [one["seq"] for one in events(service, job)] == [1, 2]
    assert (found_by(service, owner="ada"), found_by(service, stage="draft")) == ([job], [])
    assert edited(service, job, name="better", labels={"owner": "ada", "none": None}) == after
    assert len(events(service, job)) == 2, "what changes nothing leaves no event"
    assert edited(service, job, labels=None, notes=None, name=None)["labels"] == {}
    assert (service.job(job)["name"], found_by(service, owner="ada")) == ("", [])


def test_a_job_is_edited_in_any_state(service: Served) -> None:
    job = service.submit(name="n")
    assert edited(service, job, notes="queued")["state"] == "queued"
    claimed = service.claim()
    assert edited(service, job, name="digits", labels={"a": "b"})["state"] == "running"
    model = service.finish(claimed)
    assert service.client.get("/v1/models/digits:1").json()["id"] == model, "called as its job is called at its end"
    assert service.client.get(f"/v1/models/{model}").json()["labels"] == {"a": "b"}
    assert edited(service, job, name="later")["state"] == "succeeded"
    assert service.client.get(f"/v1/models/{model}").json()["name"] == "digits"


def test_jobs_made_of_an_edited_one_are_called_like_it(service: Served) -> None:
    job = service.submit(name="old", labels={"x": "1"})
    claimed = service.claim()
    record_checkpoint(service, claimed)
    edited(service, job, name="new", labels={"x": None, "y": "2"})
    service.finish(claimed, "client_stop")
    for action, body in (("retry", None), ("fork", {}), ("resume", {"extra_epochs": 1})):
        answer = service.client.post(f"/v1/jobs/{job}/{action}", json=body)
        assert answer.status_code == 201, answer.text
        copied = answer.json()
        assert (copied["name"], copied["labels"]) == ("new", {"y": "2"})


def test_an_edit_may_depend_on_what_was_seen(service: Served) -> None:
    job = service.submit(name="n")
    path = f"/v1/jobs/{job}"
    seen = service.client.get(path).headers["etag"]
    first = service.client.patch(path, json={"notes": "a"}, headers={"If-Match": seen})
    assert (first.status_code, first.json()["notes"]) == (200, "a")
    late = service.client.patch(path, json={"notes": "b"}, headers={"If-Match": seen})
    assert_problem(late, 412, "changed_meanwhile")
    assert service.job(job)["notes"] == "a"
    assert service.client.patch(path, json={"notes": "b"}, headers={"If-Match": "*"}).status_code == 200
    now = service.client.get(path).headers["etag"]
    assert late.headers["etag"] != now
    assert service.client.patch(path, json={"notes": "c"}, headers={"If-Match": f'"x", {now}'}).json()["notes"] == "c"


def test_what_cannot_be_edited_is_refused(service: Served) -> None:
    job = service.submit()
    for patch in ({"group": "g"}, {"state": "queued"}, {"nmae": "x"}, {"name": 3}, {"name": "x" * 201}, []):
        assert_problem(service.client.patch(f"/v1/jobs/{job}", json=patch), 422, "invalid_request")
    assert_problem(service.client.patch(f"/v1/jobs/{job}", json={"labels": {"a": 1}}), 422, "invalid_request")
    many = {f"k{number}": "v" for number in range(33)}
    problem = assert_problem(service.client.patch(f"/v1/jobs/{job}", json={"labels": many}), 422, "too_many_labels")
    assert problem["errors"][0]["pointer"] == "/labels"
    stranger = service.client_for("another")
    assert_problem(stranger.patch(f"/v1/jobs/{job}", json={"name": "x"}), 404, "not_found")
    assert len(events(service, job)) == 1

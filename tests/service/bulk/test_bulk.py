"""One action on many jobs: a result for each, the same as its own route gives, and none of it twice."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from service.bulk import service as bulk
from service.bulk.schemas import BulkIn
from service.jobs.states import ENDED
from service.jobs.tables import Job
from service.principal import Principal
from tests.support.api import Served, assert_problem

ACTIONS = ("stop", "cancel", "delete", "label")


def ask(service: Served, action: str, **body: Any) -> dict[str, Any]:
    extra = {"labels": {"seen": "1"}} if action == "label" else {}
    answer = service.client.post(f"/v1/jobs:{action}", json={**extra, **body})
    assert answer.status_code == 200, answer.text
    document: dict[str, Any] = answer.json()
    return document


def outcomes(document: dict[str, Any]) -> list[tuple[str, str | None]]:
    return [(one["outcome"], one["code"]) for one in document["data"]]


@pytest.fixture
def jobs(service: Served) -> dict[str, str]:
    """A job in each of some states, and one of another project."""
    dataset = service.ready_dataset()
    found = {"ended": service.submit(dataset=dataset)}
    service.finish(service.claim())
    found["running"] = service.submit(dataset=dataset)
    service.claim()
    found["queued"] = service.submit(dataset=dataset)
    found["foreign"] = service.submit(service.client_for("another"))
    return found


@pytest.mark.postgresql
@pytest.mark.parametrize(
    ("action", "expected"),
    [
        ("stop", [("unchanged", None), ("changed", None), ("changed", None), ("not_found", "not_found")]),
        ("cancel", [("unchanged", None), ("changed", None), ("changed", None), ("not_found", "not_found")]),
        (
            "delete",
            [("changed", None), ("refused", "still_active"), ("refused", "still_active"), ("not_found", "not_found")],
        ),
        ("label", [("changed", None), ("changed", None), ("changed", None), ("not_found", "not_found")]),
    ],
)
def test_each_job_has_its_own_result(
    service: Served, jobs: dict[str, str], action: str, expected: list[tuple[str, str | None]]
) -> None:
    ids = [*jobs.values(), jobs["queued"], jobs["ended"]]
    project_jobs = [job for name, job in jobs.items() if name != "foreign"]
    shown = {job: service.client.get(f"/v1/jobs/{job}").text for job in project_jobs}
    dry = ask(service, action, ids=ids, dry_run=True)
    assert (outcomes(dry)[:4], dry["dry_run"], dry["has_more"]) == (expected, True, False)
    assert [one["id"] for one in dry["data"]] == ids[:-2], "each once, in the order of the request"
    assert {job: service.client.get(f"/v1/jobs/{job}").text for job in project_jobs} == shown, "nothing was changed"
    answer = ask(service, action, ids=ids)
    assert answer["data"] == dry["data"], "a dry run tells what comes"
    assert answer["counts"] == {name: [one for one, _ in outcomes(answer)].count(name) for name, _ in outcomes(answer)}
    again = outcomes(ask(service, action, ids=ids))
    assert "changed" not in [outcome for outcome, _ in again]
    if action == "delete":
        assert again[0] == ("not_found", "not_found")
        assert "Cancel it first" in answer["data"][1]["detail"]
    if action == "label":
        assert service.job(jobs["queued"])["labels"] == {"seen": "1"}
    if action == "stop":
        states = [service.job(jobs[name])["state"] for name in ("ended", "running", "queued")]
        assert states == ["succeeded", "stopping", "cancelled"]


def test_what_is_asked_of_many_jobs_must_be_said_right(service: Served) -> None:
    for body in (
        {},
        {"filter": {}},
        {"filter": {"state": None}},
        {"ids": ["x"], "filter": {"state": "queued"}},
        {"ids": ["x"], "after": "x"},
        {"ids": []},
        {"ids": ["job_1"], "ids_": []},
        {"ids": ["x"] * 1001},
        {"ids": [1]},
        {"ids": ["x" * 65]},
    ):
        for action in ACTIONS:
            extra = {"labels": {}} if action == "label" else {}
            assert_problem(service.client.post(f"/v1/jobs:{action}", json={**extra, **body}), 422, "invalid_request")
    assert_problem(service.client.post("/v1/jobs:label", json={"ids": ["x"]}), 422, "invalid_request")


@pytest.mark.postgresql
def test_a_filter_finds_what_the_list_finds(
    service: Served, jobs: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        service.submit(name=f"sweep-{number}", labels={"team": "vision"}, dataset="d0")
    swept = [one["id"] for one in service.client.get("/v1/jobs?label.team=vision").json()["data"]]
    selection = {"label.team": "vision", "state": ["queued", "running"], "dataset": "d0"}
    dry = ask(service, "cancel", filter=selection, dry_run=True)
    assert [one["id"] for one in dry["data"]] == swept
    assert (dry["counts"], dry["has_more"], dry["next"]) == ({"changed": 3}, False, None)
    monkeypatch.setattr(bulk, "MOST_JOBS", 2)
    first = ask(service, "label", filter={"label.team": "vision"})
    assert ([one["id"] for one in first["data"]], first["has_more"]) == (swept[:2], True)
    rest = ask(service, "label", filter={"label.team": "vision"}, after=first["next"])
    assert ([one["id"] for one in rest["data"]], rest["has_more"]) == (swept[2:], False)
    assert ask(service, "cancel", filter=selection)["counts"] == {"changed": 2}
    assert service.job(jobs["queued"])["state"] == "queued"
    assert ask(service, "cancel", filter={"state": "paused"})["data"] == []
    stranger = service.client_for("another").post("/v1/jobs:cancel", json={"filter": {"label.team": "vision"}})
    assert stranger.json()["data"] == []


def test_a_filter_goes_on_where_the_time_was_over(service: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = service.ready_dataset()
    ids = [service.submit(dataset=dataset) for _ in range(2)]
    monkeypatch.setattr(bulk, "SECONDS", -1.0)
    answer = ask(service, "cancel", filter={"state": "queued"})
    assert (answer["data"], answer["has_more"], answer["next"]) == ([], True, None), "from the beginning"
    monkeypatch.undo()
    assert ask(service, "cancel", filter={"state": "queued"})["counts"] == {"changed": 2}
    assert {service.job(job)["state"] for job in ids} == {"cancelled"}


@pytest.mark.parametrize(
    ("selection", "place", "hint"),
    [
        ({"stat": "queued"}, "/filter/stat", 'Did you mean "state"?'),
        ({"limit": 3}, "/filter/limit", "Use the filters of GET /v1/jobs."),
        ({"state": "quued"}, "/filter/state", 'Did you mean "queued"?'),
        ({"dataset": "nix"}, "/filter/dataset", "GET /v1/datasets"),
    ],
)
def test_a_filter_that_is_none_acts_on_nothing(
    service: Served, selection: dict[str, Any], place: str, hint: str
) -> None:
    job = service.submit()
    answer = service.client.post("/v1/jobs:cancel", json={"filter": selection})
    (error,) = assert_problem(answer, 422, "invalid_request")["errors"]
    assert hint in error["hint"]
    assert error["pointer"] == place
    assert service.job(job)["state"] == "queued"


def test_a_job_with_too_many_labels_is_refused_and_the_others_are_labelled(service: Served) -> None:
    full = service.submit(labels={f"k{number}": "v" for number in range(32)})
    free = service.submit()
    answer = ask(service, "label", ids=[full, free])
    assert outcomes(answer) == [("refused", "too_many_labels"), ("changed", None)]
    assert (len(service.job(full)["labels"]), service.job(free)["labels"]) == (32, {"seen": "1"})


def test_a_request_works_for_a_bounded_time_and_tells_what_is_left(
    service: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = service.ready_dataset()
    ids = [service.submit(dataset=dataset) for _ in range(3)]
    monkeypatch.setattr(bulk, "SECONDS", -1.0)
    answer = ask(service, "cancel", ids=ids)
    assert (answer["data"], answer["has_more"]) == ([], True)
    assert {service.job(job)["state"] for job in ids} == {"queued"}


@pytest.mark.postgresql
def test_the_same_jobs_cancelled_twice_at_once_are_cancelled_once(service: Served) -> None:
    dataset = service.ready_dataset()
    ids = [service.submit(dataset=dataset) for _ in range(8)]
    with service.sessions() as session:
        who = Principal("key:tests", session.get_one(Job, ids[0]).project_id, "developer")
    found: list[str] = []

    def cancel() -> None:
        answer = bulk.cancel(service.context, who, BulkIn(ids=ids))
        found.extend(one.outcome for one in answer.data)

    threads = [threading.Thread(target=cancel) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (found.count("changed"), found.count("unchanged")) == (8, 8)
    for job in ids:
        states = [one["to"] for one in service.client.get(f"/v1/jobs/{job}/events").json()["data"]]
        assert states == ["queued", "cancelled"]
        assert service.job(job)["state"] in ENDED

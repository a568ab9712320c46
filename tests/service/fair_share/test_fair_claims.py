"""Checks, predictions and all else that the data worker does: no project's work makes another's wait for all of it."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import update

from service.database import db_now
from service.datasets import intake
from service.fair_share.admission import Admission, WorkClass, admit_all
from service.inference_requests import repository
from service.inference_requests.repository import Kind
from service.inference_requests.tables import InferenceRequest
from service.keys.service import authenticate
from service.projects import repository as projects
from tests.support.api import Served, assert_problem

pytestmark = pytest.mark.postgresql

Waiting = list[tuple[str, Kind]]
ORDERS: dict[str, tuple[Waiting, Waiting]] = {
    "24 reports of one project delay another's prediction by none": (
        [*[("a", "init_report")] * 24, ("b", "predict")],  # type: ignore[list-item]
        [("a", "init_report"), ("b", "predict"), ("a", "init_report")],
    ),
    "predictions come first within a project": (
        [("a", "init_report"), ("a", "evaluate"), ("a", "predict")],
        [("a", "predict"), ("a", "init_report"), ("a", "evaluate")],
    ),
    "projects alternate, whatever the kind": (
        [("a", "onnx"), ("a", "evaluate"), ("a", "dataset_preview"), ("b", "augmentation_preview"), ("c", "onnx")],
        [("a", "onnx"), ("b", "augmentation_preview"), ("c", "onnx"), ("a", "evaluate")],
    ),
}
"""(project, kind) as they come -> as they are claimed."""


def project_of(service: Served, name: str) -> str:
    key = service.key(name)
    with service.sessions.begin() as session:
        identity = authenticate(session, key)
    assert identity is not None
    who = identity.alone()
    return who.project_id


def claim(service: Served, admits: Admission = admit_all, seconds: float = 60) -> Any:
    with service.sessions.begin() as session:
        return repository.claim(session, "worker", seconds, admits)


@pytest.mark.parametrize("ends", [False, True], ids=["many slots", "one slot"])
@pytest.mark.parametrize("case", ORDERS)
def test_inference_requests_are_claimed_fairly(service: Served, case: str, ends: bool) -> None:
    waiting, expected = ORDERS[case]
    projects = {name: project_of(service, name) for name, _ in waiting}
    names = {}
    with service.sessions.begin() as session:
        for name, kind in waiting:
            request = repository.add(session, projects[name], kind, "prepared/x", b"{}", "application/json")
            names[request] = name
    claimed = []
    for _ in expected:
        one = claim(service)
        claimed.append((names[one.claim.id], one.kind))
        if ends:
            with service.sessions.begin() as session:
                repository.answer(session, one.claim, b"", "text/plain")
    assert claimed == expected


def test_uploads_are_checked_and_fetched_in_turn(service: Served) -> None:
    clients = {name: service.client_for(name) for name in "ab"}
    names = {}
    for name, count in (("a", 5), ("b", 1)):
        for number in range(count):
            answer = clients[name].put(f"/v1/datasets?name=d{number}", content=f"{name}{number}".encode())
            names[answer.json()["id"]] = name
    claimed = []
    for _ in range(3):
        with service.sessions.begin() as session:
            one = intake.claim_next(session, "worker", 30, admit_all)
        assert one is not None
        claimed.append(names[one.dataset_id])
    assert claimed == ["a", "b", "a"]


def test_uploads_in_progress_count_against_the_other_work_of_their_project(service: Served) -> None:
    busy, other = project_of(service, "a"), project_of(service, "b")
    service.client_for("a").put("/v1/datasets?name=d", content=b"bytes")
    with service.sessions.begin() as session:
        assert intake.claim(session, "worker", 30) is not None
        repository.add(session, busy, "predict", "m", b"", "text/plain")
        later = repository.add(session, other, "predict", "m", b"", "text/plain")
    assert claim(service).claim.id == later


def test_what_a_worker_does_not_admit_is_passed_over(service: Served) -> None:
    """The reserved slot takes predictions only; a project at its limit does not hold the others up."""
    a, b = project_of(service, "a"), project_of(service, "b")
    with service.sessions.begin() as session:
        for kind in ("init_report", "predict"):
            repository.add(session, a, kind, "m", b"", "text/plain")  # type: ignore[arg-type]
        other_request = repository.add(session, b, "evaluate", "m", b"", "text/plain")

    def only_predictions(_project: str, work_class: WorkClass) -> bool:
        return work_class == "light"

    assert claim(service, only_predictions).kind == "predict"
    assert claim(service, only_predictions) is None
    assert claim(service, lambda project, _: project == b).claim.id == other_request


def test_a_request_that_nobody_waits_for_is_not_begun(service: Served) -> None:
    project = project_of(service, "a")
    with service.sessions.begin() as session:
        repository.add(session, project, "predict", "m", b"", "text/plain")
        session.execute(update(InferenceRequest).values(created_at=db_now(plus=-61)))
    assert claim(service) is None


def test_a_client_that_was_answered_leaves_no_request_and_too_many_are_429(service: Served) -> None:
    spec = {"dataset": service.ready_dataset(), "model": {"kind": "mlp"}}
    assert_problem(service.client.post("/v1/specs:init-report", json=spec), 503, "no_prediction_worker")
    with service.sessions.begin() as session:
        assert session.query(InferenceRequest).count() == 0, "no worker shall begin what nobody waits for"
    project = project_of(service, "default")
    with service.sessions.begin() as session:
        for _ in range(service.context.settings.max_inference_requests):
            repository.add(session, project, "init_report", "m", b"", "text/plain")
    refused = service.client.post("/v1/specs:init-report", json=spec)
    assert_problem(refused, 429, "too_many_requests")
    assert int(refused.headers["Retry-After"]) > 0
    other = service.client_for("other")
    body = {"dataset": service.ready_dataset(other), "model": {"kind": "mlp"}}
    assert other.post("/v1/specs:init-report", json=body).status_code == 503, "another project's limit is its own"


def test_of_two_requests_at_once_only_one_takes_the_last_place(service: Served) -> None:
    spec = {"dataset": service.ready_dataset(), "model": {"kind": "mlp"}}
    project, most = project_of(service, "default"), service.context.settings.max_inference_requests
    with service.sessions.begin() as session:
        for _ in range(most - 1):
            repository.add(session, project, "init_report", "m", b"", "text/plain")
    with ThreadPoolExecutor(1) as threads:
        with service.sessions.begin() as session:
            projects.locked(session, project)
            repository.add(session, project, "init_report", "m", b"", "text/plain")
            other = threads.submit(service.client.post, "/v1/specs:init-report", json=spec)
            time.sleep(0.3)  # it would have counted by now
        assert_problem(other.result(), 429, "too_many_requests")

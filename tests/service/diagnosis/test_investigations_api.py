"""Investigations over HTTP: who may begin one, of which jobs, and how the diagnosis shows what was found."""

from __future__ import annotations

from typing import Any

import pytest

from service.diagnosis.investigation import begin_automatic, plan_automatic
from service.jobs import attempts
from service.jobs.attempts import StoredFile
from service.jobs.tables import Job
from service.metrics.chunks import MetricRow
from tests.support.api import Served, assert_problem, error_of
from tests.support.findings import findings_of

VAL = [0.5, 0.4, 0.3, 0.25, 0.35, 0.5, 0.7, 0.9]


def ended_run(service: Served, **spec: Any) -> str:
    """A run that over-fits, by its record."""
    job = service.submit(**{"train": {"epochs": 8}, **spec})
    claimed = service.claim()
    for epoch, loss in enumerate(VAL, start=1):
        rows = (("train", "loss", 0.9 * 0.8**epoch), ("val", "loss", loss), ("val", "loss_se", 0.01))
        service.append(claimed, *(MetricRow(split, name, 10 * epoch, epoch, v, 0.0) for split, name, v in rows))
    service.finish(claimed)
    return job


def investigate(service: Served, job: str, body: Any = None, client: Any = None, **headers: str) -> Any:
    path = f"/v1/jobs/{job}/diagnosis:investigate"
    return (client or service.client).post(path, json=body, headers=headers)


def end_investigation(service: Served, stop_reason: str = "completed", files: tuple[StoredFile, ...] = ()) -> str:
    """A worker takes the next job, an investigation, and finds something. Returns the job's id."""
    claimed = service.claim()
    document = {name: value for name, value in claimed.spec.items() if name not in ("investigation", "resources")}
    for step, (base, variant) in enumerate(((0.9, 0.8), (0.9, 0.5)), start=1):
        values = {"base.val_loss": base, "standardised.val_loss": variant}
        service.append(claimed, *(MetricRow("variant", name, step, step, v, 0.0) for name, v in values.items()))
    with service.sessions.begin() as session:
        for position, state in enumerate(("running", "succeeded"), start=1):
            variant = {"number": 1, "position": position, "name": "standardised", "state": state, "patch": {}}
            attempts.note_variant(session, claimed.claim, variant)
            attempts.note_variant(session, claimed.claim, variant)  # a commit whose answer was lost
    result = {"best_epoch": None, "stopped_epoch": 0, "test": {}, "verdict": "unscaled_inputs"}
    findings = {"findings": findings_of(document)}
    service.finish(claimed, stop_reason, result=result, evaluation=findings, model_key=None, files=list(files))
    return claimed.job_id


def diagnosis(service: Served, job: str, **headers: str) -> Any:
    answer = service.client.get(f"/v1/jobs/{job}/diagnosis", headers=headers)
    assert answer.status_code in (200, 304), answer.text
    return answer


@pytest.mark.postgresql
def test_what_was_measured_stands_in_front_of_what_the_record_shows(service: Served) -> None:
    job = ended_run(service, labels={"team": "vision"})
    before = diagnosis(service, job)
    shown = before.json()
    assert (shown["verdicts"][0]["code"], shown["verdicts"][0]["source"]) == ("overfitting", "record")
    assert (shown["investigation"], shown["active_investigation"], shown["harmful"]) == (None, None, [])
    assert {one["measured"] for one in shown["recommendations"]} == {None}

    begun = investigate(service, job, {"seconds": 30})
    assert begun.status_code == 201, begun.text
    investigation = begun.json()
    identifier = investigation["id"]
    assert begun.headers["Location"] == f"/v1/jobs/{identifier}"
    assert investigation["parent"] == {"job": job, "relation": "investigation", "step": None}
    assert (investigation["investigation_of"], investigation["state"]) == (job, "queued")
    assert investigation["spec"]["investigation"] == {"job": job, "seconds": 30, "jobs": None}
    assert investigation["labels"] == {"team": "vision"}
    active = diagnosis(service, job, **{"If-None-Match": before.headers["ETag"]})
    assert (active.status_code, active.json()["active_investigation"]) == (200, identifier)

    stored = StoredFile("variant-standardised.safetensors", "artifacts/x", "application/vnd.safetensors", 10)
    assert end_investigation(service, files=(stored,)) == identifier
    found = diagnosis(service, job, **{"If-None-Match": active.headers["ETag"]})
    assert found.status_code == 200
    assert diagnosis(service, job, **{"If-None-Match": found.headers["ETag"]}).status_code == 304
    shown = found.json()
    codes = [(one["code"], one["source"]) for one in shown["verdicts"]]
    assert codes[0] == ("unscaled_inputs", "investigation")
    assert "overfitting" not in [code for code, _ in codes]  # the runs contradict it
    assert {source for _, source in codes[1:]} <= {"record"}
    first = shown["recommendations"][0]
    assert (first["measured"]["gain"], first["measured"]["low"], first["measured"]["high"]) == (0.4, 0.3, 0.5)
    assert first["measured"]["artifact"] == f"/v1/jobs/{identifier}/artifacts/variant-standardised.safetensors"
    assert first["measured"]["start_from"] == {"job": identifier, "variant": "standardised", "head": "keep"}
    assert first["expected"]["direction"] == "down"
    assert "/somewhere" not in found.text
    assert [one["measured"]["variant"] for one in shown["harmful"]] == ["rate_tenfold"]
    assert shown["investigation"]["job"] == identifier
    assert shown["investigation"]["tried"][0]["outcome"] == "repaired"
    assert [one["code"] for one in shown["suspects"]] == ["label_noise"]
    assert shown["active_investigation"] is None

    # the investigation itself shows its own findings, and no evaluation of a model
    of_itself = diagnosis(service, identifier).json()
    assert [one["code"] for one in of_itself["verdicts"]] == ["unscaled_inputs"]
    assert of_itself["final"]
    row = service.job(identifier)
    assert row["result"] == {
        "model": None,
        "best_epoch": None,
        "stopped_epoch": 0,
        "test": {},
        "verdict": "unscaled_inputs",
    }
    assert row["metrics"] == {"last": {}, "best": {}}  # those of variants are not the job's
    events = service.client.get(f"/v1/jobs/{identifier}/events").json()["data"]
    assert [(one["kind"], one["data"]["state"]) for one in events if one["kind"] == "variant"] == [
        ("variant", "running"),
        ("variant", "succeeded"),
    ]
    assert [one["seq"] for one in events] == list(range(1, len(events) + 1))
    assert_problem(service.client.get(f"/v1/jobs/{identifier}/evaluation"), 404, "no_evaluation")
    names = {one["name"] for one in service.client.get(f"/v1/jobs/{identifier}/artifacts").json()["data"]}
    assert "findings.json" in names
    assert "evaluation.json" not in names


def test_a_measured_recommendation_is_submitted_from_the_diagnosis(service: Served) -> None:
    job = ended_run(service)
    assert investigate(service, job).status_code == 201
    end_investigation(service)
    sent = service.client.post("/v1/jobs", json={"from_diagnosis": {"job": job, "index": 0}})
    assert sent.status_code == 201, sent.text
    new = sent.json()
    assert new["parent"]["relation"] == "diagnosis"
    assert new["spec"]["preprocess"] == [{"kind": "z_score"}]
    assert "investigation" not in new["spec"]
    recommendation = service.client.get(f"/v1/jobs/{new['id']}/recommendation").json()
    assert (recommendation["code"], recommendation["expected"]["metric"]) == ("unscaled_inputs", "val_loss")


def test_both_curves_are_drawn(service: Served) -> None:
    job = ended_run(service)
    investigate(service, job)
    investigation = end_investigation(service)
    for place in (job, investigation):
        verdicts = diagnosis(service, place).json()["verdicts"]
        picture = service.client.get(verdicts[0]["plot"])
        assert (picture.status_code, picture.headers["Content-Type"]) == (200, "image/png"), picture.text
        assert picture.content.startswith(b"\x89PNG")
    curves = service.client.get(f"/v1/jobs/{investigation}/plots/curves.svg")
    assert curves.status_code == 200, curves.text
    assert service.client.get(f"/v1/jobs/{investigation}/plots/curves.png").content.startswith(b"\x89PNG")
    assert_problem(service.client.get(f"/v1/jobs/{investigation}/plots/confusion.png"), 404, "no_plot")
    last = service.client.get(diagnosis(service, job).json()["verdicts"][-1]["plot"])
    assert last.status_code == 200


@pytest.mark.postgresql
def test_the_same_request_makes_one_job_until_it_has_ended(service: Served) -> None:
    job = ended_run(service)
    first = investigate(service, job, {"jobs": 4})
    again = investigate(service, job, {"jobs": 4})
    assert (again.status_code, again.json()["id"]) == (201, first.json()["id"])
    assert again.headers["Idempotency-Replayed"] == "true"
    end_investigation(service)
    third = investigate(service, job, {"jobs": 4})
    assert third.json()["id"] != first.json()["id"]
    keyed = investigate(service, job, {"jobs": 2}, **{"Idempotency-Key": "k"})
    assert investigate(service, job, {"jobs": 2}, **{"Idempotency-Key": "k"}).json()["id"] == keyed.json()["id"]
    other = investigate(service, job, {"jobs": 3}, **{"Idempotency-Key": "k"})
    assert_problem(other, 422, "idempotency_mismatch")


def test_the_budget_and_its_bounds(service: Served) -> None:
    job = ended_run(service)
    spec = investigate(service, job).json()["spec"]
    # a run of a moment: the least budget
    assert (spec["investigation"]["seconds"], spec["resources"]["max_seconds"]) == (10, 10)
    spec = investigate(service, job, {"jobs": 5}).json()["spec"]
    assert spec["investigation"] == {"job": job, "seconds": None, "jobs": 5}
    for body in ({"seconds": 0}, {"seconds": -1}, {"seconds": 1e9}, {"jobs": 0}, {"jobs": 10_000}, {"second": 5}):
        refused = assert_problem(investigate(service, job, body), 422, "invalid_request")
        assert refused["errors"][0]["pointer"] == f"/{next(iter(body))}"


def test_what_cannot_be_investigated_is_refused(service: Served) -> None:
    running = service.submit()
    assert "stop it" in assert_problem(investigate(service, running), 409, "wrong_state")["detail"]
    service.client.post(f"/v1/jobs/{running}/cancel")
    assert "never began" in assert_problem(investigate(service, running), 409, "not_investigable")["detail"]

    forest = service.submit(model={"kind": "gradient_boosting"})
    service.finish(service.claim(), model_key=None)
    assert "gradient_boosting" in assert_problem(investigate(service, forest), 409, "not_investigable")["detail"]

    job = ended_run(service)
    investigation = investigate(service, job).json()["id"]
    end_investigation(service)
    assert job in assert_problem(investigate(service, investigation), 409, "not_investigable")["detail"]

    broken = service.submit()
    claimed = service.claim()
    with service.sessions.begin() as session:
        attempts.fail(session, claimed.claim, error_of("invalid_data", "the data is empty"))
    assert "the data is empty" in assert_problem(investigate(service, broken), 409, "not_investigable")["detail"]

    with service.sessions.begin() as session:
        session.get_one(Job, job).purged = {"metrics": {"at": "2026-01-01T00:00:00Z", "reason": "older than 30 days"}}
    assert_problem(investigate(service, job), 410, "removed")
    assert_problem(investigate(service, "job_none"), 404, "not_found")


def test_roles_and_other_projects(service: Served) -> None:
    job = ended_run(service)
    assert_problem(investigate(service, job, client=service.client_for("default", "viewer")), 403, "forbidden")
    assert_problem(investigate(service, job, client=service.client_for("other")), 404, "not_found")
    assert investigate(service, job, client=service.client_for("default", "developer")).status_code == 201


def test_limits_of_the_project_hold(service: Served) -> None:
    job = ended_run(service)
    project = service.client.get("/v1/projects").json()["data"][0]["id"]
    limit = service.client.patch(f"/v1/projects/{project}", json={"settings": {"max_queued_jobs": 1}})
    assert limit.status_code == 200, limit.text
    service.submit()
    assert_problem(investigate(service, job), 429, "too_many_queued")


def test_clients_cannot_write_the_section_themselves(service: Served) -> None:
    job = ended_run(service)
    dataset = service.ready_dataset()
    section = {"job": job, "seconds": 5}
    spec = {"dataset": dataset, "model": {"kind": "mlp"}, "investigation": section}
    refused = assert_problem(service.client.post("/v1/jobs", json=spec), 422, "invalid_spec")
    assert [(e["pointer"], e["code"]) for e in refused["errors"]] == [("/investigation", "not_for_clients")]
    assert f"{job}/diagnosis:investigate" in refused["errors"][0]["hint"]
    forked = service.client.post(f"/v1/jobs/{job}/retry")
    assert forked.status_code == 201
    auto = {"dataset": dataset, "model": {"kind": "gradient_boosting"}, "diagnose": {"investigate": "auto"}}
    refused = assert_problem(service.client.post("/v1/jobs", json=auto), 422, "invalid_spec")
    assert refused["errors"][0]["pointer"] == "/diagnose/investigate"


@pytest.mark.postgresql
def test_an_investigation_is_listed_retried_and_deleted_as_a_job(service: Served) -> None:
    job, other = ended_run(service), ended_run(service)
    first = investigate(service, job).json()["id"]
    end_investigation(service)
    ids = [one["id"] for one in service.client.get(f"/v1/jobs?investigation_of={job}").json()["data"]]
    assert ids == [first]
    assert service.client.get(f"/v1/jobs?investigation_of={other}").json()["data"] == []
    again = service.client.post(f"/v1/jobs/{first}/retry")
    assert again.status_code == 201, again.text
    assert (again.json()["investigation_of"], again.json()["parent"]["relation"]) == (job, "retry")
    refused = assert_problem(service.client.post(f"/v1/jobs/{first}/fork", json={}), 409, "no_checkpoint")
    assert "start_from" in refused["detail"]
    longer = service.client.post(f"/v1/jobs/{first}/resume", json={"extra_epochs": 3})
    assert assert_problem(longer, 422, "invalid_spec")["errors"][0]["pointer"] == "/extra_epochs"
    # as a fork does, an investigation outlives the job that it is of, and what it found stays to be read
    assert service.client.delete(f"/v1/jobs/{job}").status_code == 204
    assert [one["code"] for one in diagnosis(service, first).json()["verdicts"]] == ["unscaled_inputs"]
    assert service.client.delete(f"/v1/jobs/{first}").status_code == 204
    waiting = service.client.get(f"/v1/jobs/{again.json()['id']}/diagnosis")
    assert_problem(waiting, 409, "not_ready")


def test_weights_of_a_variant_to_start_from(service: Served) -> None:
    job = ended_run(service)
    investigate(service, job)
    stored = StoredFile("variant-standardised.safetensors", "artifacts/x", "application/vnd.safetensors", 10)
    investigation = end_investigation(service, files=(stored,))
    dataset = service.job(job)["dataset"]["id"]
    spec: dict[str, Any] = {"dataset": dataset, "model": {"kind": "mlp"}}
    start = {"job": investigation, "variant": "standardised", "head": "keep"}
    sent = service.client.post("/v1/jobs", json={**spec, "start_from": start})
    assert sent.status_code == 201, sent.text
    for wrong, pointer, code in (
        ({"job": investigation, "variant": "other"}, "/start_from/variant", "unknown_variant"),
        ({"job": job, "variant": "standardised"}, "/start_from/job", "unknown_job"),
        ({"model": "m", "variant": "standardised"}, "/start_from", "invalid"),
    ):
        refused = assert_problem(
            service.client.post("/v1/jobs", json={**spec, "start_from": wrong}), 422, "invalid_spec"
        )
        assert pointer in [one["pointer"] for one in refused["errors"]], (code, refused)


def run_about_to_end(service: Served) -> Any:
    """The claim of a run that over-fits by its record, and asks for an investigation."""
    service.submit(train={"epochs": 8}, diagnose={"investigate": "auto"})
    claimed = service.claim()
    for epoch, loss in enumerate(VAL, start=1):
        rows = (("train", "loss", 0.9 * 0.8**epoch), ("val", "loss", loss), ("val", "loss_se", 0.01))
        service.append(claimed, *(MetricRow(split, name, 10 * epoch, epoch, v, 0.0) for split, name, v in rows))
    return claimed


def end_with_diagnosis(service: Served, claimed: Any) -> dict[str, Any]:
    """End a run as a worker does, and return its event of kind `diagnosis`."""
    planned = plan_automatic(service.context, claimed.project_id, claimed.job_id, "succeeded", "completed", None)
    assert planned is not None
    service.finish(claimed)
    with service.sessions.begin() as session:
        begin_automatic(session, service.context, claimed.job_id, planned)
    events = service.client.get(f"/v1/jobs/{claimed.job_id}/events").json()["data"]
    found = [event for event in events if event["kind"] == "diagnosis"]
    assert len(found) == 1
    return dict(found[0])


@pytest.mark.postgresql
def test_a_run_that_ends_with_a_fault_is_investigated_by_the_service(service: Served) -> None:
    claimed = run_about_to_end(service)
    event = end_with_diagnosis(service, claimed)
    begun = service.job(event["data"]["investigation"])
    assert (begun["investigation_of"], begun["state"]) == (claimed.job_id, "queued")
    assert event["reason"] == "investigation of overfitting"
    assert diagnosis(service, claimed.job_id).json()["active_investigation"] == begun["id"]
    # it asks for none itself
    investigating = service.claim()
    assert plan_automatic(service.context, investigating.project_id, begun["id"], "succeeded", None, None) is None


def test_the_event_says_which_limit_forbids_an_investigation(service: Served) -> None:
    claimed = run_about_to_end(service)
    project = service.client.get("/v1/projects").json()["data"][0]["id"]
    service.client.patch(f"/v1/projects/{project}", json={"settings": {"max_queued_jobs": 1}})
    service.submit()
    event = end_with_diagnosis(service, claimed)
    assert event["data"] is None
    assert "waiting already" in event["reason"]
    assert service.client.get(f"/v1/jobs?investigation_of={claimed.job_id}").json()["data"] == []


def test_a_run_that_does_not_ask_is_not_investigated(service: Served) -> None:
    service.submit()
    claimed = service.claim()
    assert plan_automatic(service.context, claimed.project_id, claimed.job_id, "succeeded", None, None) is None

"""A job from a diagnosis, its effect and the scorecard, over HTTP on both databases."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import update

from service.background.retention import apply_retention
from service.database import db_now
from service.jobs import attempts
from service.jobs.tables import Job
from service.metrics.chunks import MetricRow
from service.recommendations import submit
from service.recommendations.tables import Recommendation
from tests.support.api import Served
from trainkit.diagnose.diagnosis import RULESET_VERSION
from trainkit.spec.failures import failure

SQLITE = pytest.mark.parametrize("migrated_url", ["sqlite"], indirect=True)
OVERFITTED = [0.5, 0.4, 0.3, 0.25, 0.35, 0.5, 0.7, 0.9]


def log(service: Served, claimed: Any, losses: list[float], se: float, **more: float) -> None:
    for epoch, loss in enumerate(losses, start=1):
        values = {("train", "loss"): 0.9 * 0.8**epoch, ("val", "loss"): loss, ("val", "loss_se"): se}
        values |= {("val", name): value for name, value in more.items()}
        service.append(
            claimed, *(MetricRow(split, name, 10 * epoch, epoch, v, 0.0) for (split, name), v in values.items())
        )


def diagnosed(service: Served, **changes: Any) -> str:
    """An over-fitted job that has ended: best validation loss 0.25 +- 0.03 of epoch 4."""
    job = service.submit(train={"epochs": 8}, **changes)
    claimed = service.claim()
    log(service, claimed, OVERFITTED, 0.03)
    service.finish(claimed)
    return job


def post(service: Served, body: Any, **headers: str) -> Any:
    return service.client.post("/v1/jobs", json=body, headers=headers)


def prescribe(service: Served, source: str, index: int = 0, **more: Any) -> str:
    answer = post(service, {"from_diagnosis": {"job": source, "index": index}, **more})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def run(service: Served, loss: float, se: float = 0.04) -> None:
    """The waiting job trains to that validation loss."""
    claimed = service.claim()
    log(service, claimed, [0.6, loss, 0.7], se)
    service.finish(claimed)


def get(service: Served, path: str, **headers: str) -> Any:
    answer = service.client.get(f"/v1/{path}", headers=headers)
    assert answer.status_code in (200, 304), answer.text
    return answer


def scorecard(service: Served) -> dict[str, Any]:
    found: dict[str, Any] = get(service, "diagnosis/scorecard").json()
    return found


def test_submitted_measured_and_counted(service: Served) -> None:
    source = diagnosed(service, name="first", labels={"a": "b"})
    offered = get(service, f"jobs/{source}/diagnosis").json()["recommendations"]
    job = prescribe(service, source, 1, name="second")
    submitted = service.job(job)
    assert submitted["parent"] == {"job": source, "relation": "diagnosis", "step": None}
    assert submitted["spec"] == {**offered[1]["spec"], "name": "second"}
    assert (submitted["name"], submitted["labels"], submitted["state"]) == ("second", {"a": "b"}, "queued")
    assert get(service, f"jobs/{job}/events").json()["data"][0]["reason"] == f"diagnosis of {source}"
    waiting = get(service, f"jobs/{job}/recommendation")
    assert waiting.json() == {
        "job": job,
        "source": source,
        "code": "overfitting",
        "ruleset_version": RULESET_VERSION,
        "patch": offered[1]["patch"],
        "expected": offered[1]["expected"],
        "compared": {
            "metric": "val_loss",
            "direction": "down",
            "reason": None,
            "before": {"value": 0.25, "se": 0.03, "epoch": 4},
            "expected_before": 0.25,
        },
        "measured": None,
    }
    empty = get(service, "diagnosis/scorecard")
    assert empty.json()["all"] | {"recommendations": 1, "ended": 0, "hit_rate": None} == empty.json()["all"]
    assert get(service, "diagnosis/scorecard", **{"If-None-Match": empty.headers["ETag"]}).status_code == 304
    run(service, 0.19)  # better by 0.06, noise sqrt(0.03^2 + 0.04^2) = 0.05
    response = get(service, f"jobs/{job}/recommendation", **{"If-None-Match": waiting.headers["ETag"]})
    measured = response.json()["measured"]
    assert (measured["outcome"], measured["improved"], measured["reason"]) == ("improved", True, None)
    assert (measured["gain"], measured["noise"]) == (pytest.approx(0.06), pytest.approx(0.05))
    assert measured["after"] == {"value": 0.19, "se": 0.04, "epoch": 2}
    assert measured["expected_after"] == 0.19
    again = get(service, f"jobs/{job}/recommendation", **{"If-None-Match": response.headers["ETag"]})
    assert again.status_code == 304
    counted = get(service, "diagnosis/scorecard", **{"If-None-Match": empty.headers["ETag"]}).json()
    ruleset = counted["rulesets"][0]
    assert (ruleset["ruleset_version"], set(ruleset["codes"])) == (RULESET_VERSION, {"overfitting"})
    assert counted["all"] == ruleset["all"] == ruleset["codes"]["overfitting"]
    assert (counted["all"]["improved"], counted["all"]["hit_rate"]) == (1, 1.0)
    # 1 of 1: 1 / (1 + 1.96^2) to 1
    assert counted["all"]["hit_rate_interval"] == pytest.approx([1 / 4.8416, 1.0])


def test_every_end_is_counted_and_outlives_its_jobs(service: Served) -> None:
    source = diagnosed(service)
    jobs = [prescribe(service, source, index % 3) for index in range(5)]
    for loss in (0.15, 0.22, 0.35):  # gains 0.1, 0.03, -0.1; noise 0.05
        run(service, loss)
    claimed = service.claim()
    log(service, claimed, [0.01], 0.01)
    with service.sessions.begin() as session:
        error = failure("loss_not_finite", "the loss is not finite", {})
        attempts.fail(session, claimed.claim, error)
    assert service.client.post(f"/v1/jobs/{jobs[4]}/cancel").status_code == 200
    outcomes = []
    for job in jobs[:4]:  # measured as they are deleted, for nobody has asked before
        assert service.client.delete(f"/v1/jobs/{job}").status_code == 204
    with service.sessions() as session:
        outcomes = [session.get_one(Recommendation, job).outcome for job in jobs]
    assert outcomes == ["improved", "within_noise", "worse", "no_result", None]
    assert service.client.delete(f"/v1/jobs/{source}").status_code == 204
    counted = scorecard(service)["all"]
    assert counted | {"recommendations": 5, "ended": 5, "improved": 1, "within_noise": 1, "worse": 1} == counted
    assert (counted["no_result"], counted["hit_rate"]) == (2, pytest.approx(1 / 3))
    # the source is gone, and the row tells its value still
    left = get(service, f"jobs/{jobs[4]}/recommendation").json()
    assert (left["source"], left["compared"]["before"]["value"]) == (source, 0.25)
    assert (left["measured"]["outcome"], left["measured"]["improved"]) == ("no_result", None)
    assert "cancelled" in left["measured"]["reason"]
    assert service.client.get(f"/v1/jobs/{jobs[0]}/recommendation").status_code == 404


def test_what_retention_takes_was_measured_before(service: Served) -> None:
    job = prescribe(service, diagnosed(service))
    run(service, 0.15)
    with service.sessions.begin() as session:
        session.execute(update(Job).values(finished_at=db_now(plus=-3 * 86400)))
    apply_retention(service.sessions, service.context.storage, replace(service.context.settings, metrics_days=1))
    assert service.client.get(f"/v1/jobs/{job}/metrics").status_code == 410
    assert get(service, f"jobs/{job}/recommendation").json()["measured"]["outcome"] == "improved"
    assert scorecard(service)["all"]["improved"] == 1
    source = get(service, f"jobs/{job}/recommendation").json()["source"]
    refused = post(service, {"from_diagnosis": {"job": source, "index": 0}})
    assert (refused.status_code, refused.json()["code"]) == (410, "removed")


@SQLITE
def test_another_split_is_not_comparable(service: Served) -> None:
    small = service.ready_dataset(samples=200, classes={"a": 100, "b": 100})
    source = service.submit(dataset=small, train={"epochs": 8})
    claimed = service.claim()
    # 20 validation samples: 0.6 +- 0.2
    log(service, claimed, [0.6, 0.5, 0.45], 0.1, accuracy=0.6, accuracy_se=0.11)
    service.finish(claimed)
    offered = get(service, f"jobs/{source}/diagnosis").json()["recommendations"]
    index = next(place for place, one in enumerate(offered) if one["code"] == "validation_too_small")
    job = prescribe(service, source, index)
    run(service, 0.1)
    found = get(service, f"jobs/{job}/recommendation").json()
    assert (found["measured"]["outcome"], found["compared"]["before"]) == ("not_comparable", None)
    assert "split" in found["measured"]["reason"]
    assert scorecard(service)["rulesets"][0]["codes"]["validation_too_small"]["hit_rate"] is None


def test_the_same_key_makes_one_job_and_one_row(service: Served) -> None:
    source = diagnosed(service)
    body = {"from_diagnosis": {"job": source, "index": 0}}
    first = post(service, body, **{"Idempotency-Key": "k"})
    again = post(service, body, **{"Idempotency-Key": "k"})
    assert (again.json()["id"], again.headers["Idempotency-Replayed"]) == (first.json()["id"], "true")
    other = post(service, {"from_diagnosis": {"job": source, "index": 1}}, **{"Idempotency-Key": "k"})
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_mismatch")
    assert scorecard(service)["all"]["recommendations"] == 1


@SQLITE
def test_what_is_refused(service: Served) -> None:
    source = diagnosed(service)

    def problem(body: Any) -> tuple[int, str, list[str]]:
        answer = post(service, body)
        found = answer.json()
        return answer.status_code, found["code"], [error["pointer"] for error in found.get("errors", [])]

    which = {"job": source, "index": 0}
    for index, pointer in ((99, "index"), (-1, "index"), (True, "index"), ("0", "index"), (0.5, "index")):
        wrong = {"from_diagnosis": {"job": source, "index": index}}
        assert problem(wrong) == (422, "invalid_spec", [f"/from_diagnosis/{pointer}"])
    both = {"from_diagnosis": which, "model": {"kind": "mlp"}, "epochs": 3}
    assert problem(both) == (422, "invalid_spec", ["/model", "/epochs"])
    assert problem({"from_diagnosis": None})[2] == ["/from_diagnosis"]
    assert problem({"from_diagnosis": {}})[2] == ["/from_diagnosis/job"]
    assert problem({"from_diagnosis": {**which, "code": "overfitting"}})[2] == ["/from_diagnosis/code"]
    assert problem({"from_diagnosis": which, "labels": {"a": 1}})[2] == ["/labels/a"]
    assert problem({"from_diagnosis": {"job": "job_none", "index": 0}})[:2] == (404, "not_found")
    stranger = service.client_for("other")
    assert stranger.post("/v1/jobs", json={"from_diagnosis": which}).status_code == 404
    reader = service.client_for("default", "viewer")
    assert reader.post("/v1/jobs", json={"from_diagnosis": which}).status_code == 403
    running = service.submit()
    assert problem({"from_diagnosis": {"job": running, "index": 0}})[:2] == (409, "wrong_state")
    assert scorecard(service) == {"all": scorecard(service)["all"], "rulesets": []}
    assert service.client.get(f"/v1/jobs/{source}/recommendation").status_code == 404


@SQLITE
def test_each_project_sees_its_own_scorecard(service: Served) -> None:
    job = prescribe(service, diagnosed(service))
    run(service, 0.15)
    stranger = service.client_for("other", "viewer")
    assert stranger.get(f"/v1/jobs/{job}/recommendation").status_code == 404
    assert stranger.get("/v1/diagnosis/scorecard").json()["all"]["recommendations"] == 0
    reader = service.client_for("default", "viewer")
    assert reader.get("/v1/diagnosis/scorecard").json()["all"]["improved"] == 1


@SQLITE
def test_yaml_as_for_every_job(service: Served) -> None:
    source = diagnosed(service)
    body = f"from_diagnosis: {{job: {source}}}\nlabels: {{by: diagnosis}}\n"
    answer = service.client.post("/v1/jobs", content=body, headers={"Content-Type": "application/yaml"})
    assert (answer.status_code, answer.json()["labels"]) == (201, {"by": "diagnosis"})


def test_nobody_waits_while_a_job_is_diagnosed_and_checked(service: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading the source's metrics and diagnosing them took place in the transaction that all writers wait for."""
    source = diagnosed(service)
    sessions: list[bool] = []

    def is_read_only(session: Any) -> bool:
        return bool(session.connection().get_execution_options().get("read_only", False))

    for module, name in ((submit, "read_source"), (submit, "best_of"), (submit.jobs, "check")):
        function = getattr(module, name)

        def noted(session: Any, *arguments: Any, function: Any = function, **options: Any) -> Any:
            sessions.append(is_read_only(session))
            return function(session, *arguments, **options)

        monkeypatch.setattr(module, name, noted)
    body = {"from_diagnosis": {"job": source}}
    first = post(service, body, **{"Idempotency-Key": "k"})
    assert sessions == [True, True, True]
    again = post(service, body, **{"Idempotency-Key": "k"})
    assert (again.json()["id"], again.headers["Idempotency-Replayed"]) == (first.json()["id"], "true")
    assert len(sessions) == 3, "what was answered before is not read again"
    assert post(service, service.job(first.json()["id"])["spec"]).status_code == 201
    assert sessions == [True] * 4

"""A job that scikit-learn fits leaves an evaluation and no model: what touches models says so in words."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.api import Served, row

VECTORS: dict[str, Any] = {"kind": "arrays", "input_shape": [6], "input_dtype": "float32"}
MODEL = {"kind": "gradient_boosting"}


@pytest.fixture
def ended(service: Served) -> str:
    """A baseline's job that has succeeded; returns its id."""
    job = service.submit(dataset=service.ready_dataset(**VECTORS), model=MODEL)
    claimed = service.claim()
    service.append(claimed, row("loss", 0.2), row("accuracy", 0.9), row("loss", 0.1, split="train"))
    evaluation = {
        "split": "test",
        "samples": 4,
        "metrics": {"accuracy": 0.75},
        "per_class": [],
        "classes": ["a", "b"],
        "confusion_matrix": [[2, 1], [0, 1]],
        "parts": {},
    }
    result = {"best_epoch": 1, "stopped_epoch": 1, "test": {"accuracy": 0.75}}
    nothing = {"model_kind": "gradient_boosting", "model_key": None, "model_manifest": {}, "model_bytes": 0}
    assert service.finish(claimed, evaluation=evaluation, result=result, **nothing) is None
    return job


def test_it_succeeds_without_a_model(service: Served, ended: str) -> None:
    shown = service.job(ended)
    assert (shown["state"], shown["stop_reason"]) == ("succeeded", "completed")
    result = {"best_epoch": 1, "stopped_epoch": 1, "test": {"accuracy": 0.75}, "model": None, "verdict": None}
    assert shown["result"] == result
    assert service.client.get("/v1/models").json()["data"] == []
    assert service.client.get(f"/v1/jobs/{ended}/evaluation").json()["metrics"] == {"accuracy": 0.75}
    for plot in ("curves", "confusion"):
        answer = service.client.get(f"/v1/jobs/{ended}/plots/{plot}.png")
        assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")
    assert service.client.get(f"/v1/jobs/{ended}/metrics.csv").status_code == 200
    assert service.client.delete(f"/v1/jobs/{ended}").status_code == 204


def test_nothing_can_go_on_from_it(service: Served, ended: str) -> None:
    for wish, body in (("fork", {"patch": {}}), ("resume", {"extra_epochs": 3})):
        answer = service.client.post(f"/v1/jobs/{ended}/{wish}", json=body)
        assert (answer.status_code, answer.json()["code"]) == (409, "no_checkpoint"), wish
        assert "only its evaluation is kept" in answer.json()["detail"]
    assert service.client.post(f"/v1/jobs/{ended}/resume", json={}).json()["code"] == "nothing_left"
    again = service.client.post(f"/v1/jobs/{ended}/retry")
    assert (again.status_code, again.json()["parent"]["relation"]) == (201, "retry")


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"start_from": {"job": "JOB"}}, "/start_from/job"),
        ({"model": {"kind": "mlp", "init": {"kind": "pretrained", "job": "JOB"}}}, "/model/init/job"),
        ({"model": {"kind": "ensemble", "members": ["JOB", "mdl_x"]}}, "/model/members/0"),
    ],
)
def test_it_cannot_be_started_from_nor_be_a_member(
    service: Served, ended: str, fields: dict[str, Any], pointer: str
) -> None:
    spec = {"dataset": service.ready_dataset(**VECTORS), "model": {"kind": "mlp"}, **_naming(fields, ended)}
    answer = service.client.post("/v1/jobs", json=spec)
    assert answer.status_code == 422
    problem = answer.json()["errors"][0]
    assert (problem["pointer"], problem["code"]) == (pointer, "no_model")
    assert "gradient_boosting is fitted by scikit-learn" in problem["message"]


def test_its_diagnosis_speaks_of_the_data_alone(service: Served, ended: str) -> None:
    diagnosis = service.client.get(f"/v1/jobs/{ended}/diagnosis").json()
    assert diagnosis["final"]
    codes = {verdict["code"] for verdict in diagnosis["verdicts"]}
    assert codes <= {
        "healthy",
        "inconclusive",
        "class_imbalance",
        "leakage",
        "distribution_mismatch",
        "validation_too_small",
    }
    for offer in diagnosis["recommendations"]:
        assert service.client.post("/v1/specs:validate", json=offer["spec"]).status_code == 200


def test_a_spec_is_checked_with_warnings_and_an_estimate(service: Served) -> None:
    spec = {"dataset": service.ready_dataset(**VECTORS), "model": MODEL, "optimizer": {"kind": "sgd", "lr": 0.1}}
    validation = service.client.post("/v1/specs:validate", json=spec).json()
    assert [(w["pointer"], w["code"]) for w in validation["warnings"]] == [("/optimizer", "not_used")]
    assert (validation["estimate"]["parameters"], validation["estimate"]["steps_per_epoch"]) == (0, 1)
    kinds = {entry["kind"] for entry in service.client.get("/v1/catalog").json()["model"]}
    assert {"gradient_boosting", "rbf_svm"} <= kinds


def _naming(value: Any, job: str) -> Any:
    if isinstance(value, dict):
        return {key: _naming(one, job) for key, one in value.items()}
    if isinstance(value, list):
        return [_naming(one, job) for one in value]
    return job if value == "JOB" else value

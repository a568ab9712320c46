"""A diagnosis over HTTP: live, final, cached by its tag, on both databases."""

from __future__ import annotations

from typing import Any

import pytest

from service.metrics.chunks import MetricRow
from tests.support.api import Served

SQLITE = pytest.mark.parametrize("migrated_url", ["sqlite"], indirect=True)
VAL = [0.5, 0.4, 0.3, 0.25, 0.35, 0.5, 0.7, 0.9]


def log(service: Served, claimed: Any, losses: list[float], first: int = 1) -> None:
    for epoch, loss in enumerate(losses, start=first):
        values = {("train", "loss"): 0.9 * 0.8**epoch, ("val", "loss"): loss, ("val", "loss_se"): 0.01}
        service.append(
            claimed, *(MetricRow(split, name, 10 * epoch, epoch, v, 0.0) for (split, name), v in values.items())
        )


def ask(service: Served, job: str, **headers: str) -> Any:
    answer = service.client.get(f"/v1/jobs/{job}/diagnosis", headers=headers)
    assert answer.status_code in (200, 304), answer.text
    return answer


def test_live_and_final(service: Served) -> None:
    job = service.submit(train={"epochs": 8})
    assert ask(service, job).json()["verdicts"][0]["confidence"] == 0.0
    claimed = service.claim()
    log(service, claimed, VAL[:4])
    early = ask(service, job)
    assert (early.json()["final"], early.json()["verdicts"][0]["code"]) == (False, "inconclusive")
    assert set(early.json()["suspects"][0]) == {"code", "suspicion", "why", "settled_by"}
    assert ask(service, job, **{"If-None-Match": early.headers["ETag"]}).status_code == 304
    log(service, claimed, VAL[4:], 5)
    live = ask(service, job, **{"If-None-Match": early.headers["ETag"]})
    assert live.status_code == 200
    main = live.json()["verdicts"][0]
    assert (main["code"], main["since_epoch"], main["evidence"]["best_epoch"]) == ("overfitting", 5, 4)
    assert "val_loss" in main["evidence"]["series"]
    service.finish(claimed)
    final = ask(service, job, **{"If-None-Match": live.headers["ETag"]}).json()
    assert (final["final"], final["verdicts"][0]["code"]) == (True, "overfitting")
    following = final["recommendations"][0]
    assert set(following) == {"patch", "spec", "why", "expected", "code", "measured"}
    # the whole spec is one that can be sent as it is
    submitted = service.client.post("/v1/jobs", json=following["spec"])
    assert submitted.status_code == 201, submitted.text


def test_values_that_json_cannot_hold(service: Served) -> None:
    job = service.submit(optimizer={"kind": "sgd", "lr": 100.0})
    claimed = service.claim()
    rows = [
        MetricRow("train", name, 10, 1, value, 0.0) for name, value in (("batch_loss", float("inf")), ("lr", 100.0))
    ]
    service.append(claimed, *rows, MetricRow("train", "loss", 10, 1, float("nan"), 0.0))
    main = ask(service, job).json()["verdicts"][0]
    assert (main["code"], main["evidence"]["not_finite_since_step"]) == ("learning_rate_too_high", 10)


@SQLITE
def test_each_verdict_s_evidence_is_drawn(service: Served) -> None:
    job = service.submit(train={"epochs": 8})
    claimed = service.claim()
    log(service, claimed, VAL)
    verdicts = ask(service, job).json()["verdicts"]
    assert [verdict["plot"] for verdict in verdicts] == [
        f"/v1/jobs/{job}/diagnosis/{place}.png" for place in range(len(verdicts))
    ]
    picture = service.client.get(verdicts[0]["plot"])
    assert (picture.status_code, picture.headers["Content-Type"]) == (200, "image/png")
    assert picture.content.startswith(b"\x89PNG")
    tag = {"If-None-Match": picture.headers["ETag"]}
    same = service.client.get(verdicts[0]["plot"], headers=tag)
    assert (same.status_code, same.content, same.headers["ETag"]) == (304, b"", picture.headers["ETag"])
    log(service, claimed, [1.1], 9)
    assert service.client.get(verdicts[0]["plot"], headers=tag).status_code == 200
    for wrong, status in ((len(verdicts), 404), (-1, 404), ("first", 422)):
        answer = service.client.get(f"/v1/jobs/{job}/diagnosis/{wrong}.png")
        assert (answer.status_code, answer.headers["Content-Type"]) == (status, "application/problem+json")
    assert "counted from 0" in service.client.get(f"/v1/jobs/{job}/diagnosis/99.png").json()["detail"]
    assert service.client_for("other").get(verdicts[0]["plot"]).status_code == 404


@SQLITE
def test_what_the_dataset_s_report_says_counts(service: Served) -> None:
    from service.datasets.tables import DatasetVersion

    dataset = service.ready_dataset(splits={"train": 800, "validation": 100, "test": 100})
    message = "50 samples are in both train and test: the figures of the held-out part will be too good"
    with service.sessions.begin() as session:
        finding = {"severity": "warning", "code": "leakage", "message": message, "where": "a"}
        session.get_one(DatasetVersion, dataset).report = {"findings": [finding]}
    answer = service.client.post("/v1/jobs", json={"dataset": dataset, "model": {"kind": "mlp"}})
    verdicts = ask(service, answer.json()["id"]).json()["verdicts"]
    assert [(v["code"], v["since_epoch"]) for v in verdicts] == [("leakage", None)]


@SQLITE
def test_strangers_readers_and_jobs_that_wait_for_their_dataset(service: Served) -> None:
    job = service.submit()
    path = f"/v1/jobs/{job}/diagnosis"
    assert service.client_for("other").get(path).status_code == 404
    assert service.client_for("default", "viewer").get(path).status_code == 200
    assert service.client.get("/v1/jobs/job_none/diagnosis").status_code == 404
    waiting = service.client.put("/v1/datasets?name=w", content=b"new bytes").json()["id"]
    validating = service.client.post("/v1/jobs", json={"dataset": waiting, "model": {"kind": "mlp"}}).json()
    assert validating["state"] == "validating"
    answer = service.client.get(f"/v1/jobs/{validating['id']}/diagnosis")
    assert (answer.status_code, answer.json()["code"]) == (409, "not_ready")

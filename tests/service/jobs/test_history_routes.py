"""What a job leaves behind, over HTTP: plots drawn or stored, logs, evaluation."""

from __future__ import annotations

import pytest

from service.jobs import attempts
from service.metrics import service as metrics
from tests.support.api import Served, row

PNG = b"\x89PNG\r\n\x1a\n"
SQLITE = pytest.mark.parametrize("migrated_url", ["sqlite"], indirect=True)


@SQLITE
def test_curves_are_drawn_from_the_log_while_the_job_runs(service: Served) -> None:
    job = service.submit()
    claimed = service.claim()
    answer = service.client.get(f"/v1/jobs/{job}/plots/curves.png")
    assert (answer.status_code, answer.json()["code"]) == (404, "no_plot")
    for step in range(1, 4):
        service.append(
            claimed, row("loss", 1 / step, step, "train"), row("loss", 1 / step, step), row("accuracy", 0.5, step)
        )
    answer = service.client.get(f"/v1/jobs/{job}/plots/curves.png")
    assert answer.headers["content-type"] == "image/png"
    assert answer.content.startswith(PNG)


@SQLITE
def test_the_confusion_matrix_is_drawn_from_the_evaluation(service: Served) -> None:
    job = service.submit()
    claimed = service.claim()
    assert service.client.get(f"/v1/jobs/{job}/plots/confusion.png").status_code == 404
    evaluation = {
        "split": "test",
        "samples": 4,
        "metrics": {"accuracy": 0.75},
        "confusion_matrix": [[2, 0], [1, 1]],
        "classes": ["a", "b"],
    }
    service.finish(claimed, evaluation=evaluation)
    assert service.client.get(f"/v1/jobs/{job}/plots/confusion.png").content.startswith(PNG)
    unmeasured = {"ablation": None, "attainable": None, "calibration": None}
    unmeasured |= {"misclassified": [], "parts": {}, "per_class": []}
    assert service.client.get(f"/v1/jobs/{job}/evaluation").json() == {**evaluation, **unmeasured}
    assert service.client.get(f"/v1/jobs/{job}/plots/other.png").status_code == 422


@SQLITE
def test_a_stored_plot_is_served_as_it_is(service: Served) -> None:
    job = service.submit()
    claimed = service.claim()
    part = service.context.storage.new_part()
    part.write_bytes(PNG + b"stored")
    key = f"artifacts/{job}/1-curves.png"
    service.context.storage.put_file(key, part)
    service.finish(claimed, files=[attempts.StoredFile("curves.png", key, "image/png", 14)])
    assert service.client.get(f"/v1/jobs/{job}/plots/curves.png").content == PNG + b"stored"


@SQLITE
def test_no_evaluation_yet(service: Served) -> None:
    job = service.submit()
    answer = service.client.get(f"/v1/jobs/{job}/evaluation")
    assert (answer.status_code, answer.json()["code"]) == (404, "no_evaluation")


def test_events_are_read_by_cursor(service: Served) -> None:
    job = service.submit()
    service.claim()
    first = service.client.get(f"/v1/jobs/{job}/events?limit=2").json()
    rest = service.client.get(f"/v1/jobs/{job}/events?after={first['next']}").json()
    assert [(e["seq"], e["from"], e["to"]) for e in first["data"]] == [(1, None, "queued"), (2, "queued", "starting")]
    assert [(e["seq"], e["from"], e["to"], e["actor"]) for e in rest["data"]] == [
        (3, "starting", "running", "worker-1")
    ]
    assert rest["next"] == 3


def test_deleting_a_job_removes_its_rows_and_files(service: Served) -> None:
    job = service.submit()
    claimed = service.claim()
    service.append(claimed, row("loss", 1.0))
    part = service.context.storage.new_part()
    part.write_bytes(b"log")
    key = f"artifacts/{job}/1-log.txt"
    service.context.storage.put_file(key, part)
    with service.sessions.begin() as session:
        attempts.save_artifact(session, claimed.claim, attempts.StoredFile("log.txt", key, "text/plain", 3))
    assert service.client.get(f"/v1/jobs/{job}/logs").text == "log"
    service.finish(claimed)
    assert service.client.delete(f"/v1/jobs/{job}").status_code == 204
    assert not service.context.storage.exists(key)
    for path in ("", "/metrics", "/events", "/logs", "/stream"):
        assert service.client.get(f"/v1/jobs/{job}{path}").status_code == 404


@SQLITE
def test_what_ended_a_job_is_found_among_many_decisions(service: Served) -> None:
    job = service.submit()
    claimed = service.claim()
    rule = {"kind": "patience", "monitor": "val_loss"}
    decisions = [
        {"at": 0.0, "step": step, "epoch": step, "rule": rule, "inputs": {}, "action": action, "reason": None}
        for step, action in enumerate(["continue"] * 3 + ["stop"], 1)
    ]
    with service.sessions.begin() as session:
        metrics.append_decisions(session, claimed.claim, decisions)
    path = f"/v1/jobs/{job}/decisions"
    assert [row["step"] for row in service.client.get(path).json()["data"]] == [1, 2, 3, 4]
    found = service.client.get(path, params={"action": "stop"}).json()
    assert ([row["step"] for row in found["data"]], found["has_more"]) == ([4], False)
    assert service.client.get(path, params={"action": "pause"}).status_code == 422

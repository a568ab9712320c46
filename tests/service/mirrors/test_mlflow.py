"""A job in a real MLflow server, read back with MLflow's own client."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import httpx
import pytest

from service.jobs import attempts
from service.metrics.chunks import MetricRow
from service.settings import Settings
from tests.support.api import Served, error_of, resume_elsewhere
from tests.support.mirrors import copy_due, create_mirror, let_retry, mirrored
from tests.support.mlflow_server import MlflowServer

pytestmark = [pytest.mark.timeout(900), pytest.mark.xdist_group("mlflow")]
ROOT = Path(__file__).parents[3]
SQLITE = pytest.mark.parametrize("migrated_url", ["sqlite"], indirect=True)


def rows(first: int, last: int, name: str = "loss", at: float = 1_800_000_000.0) -> list[MetricRow]:
    """A point of each step, a second apart."""
    return [MetricRow("train", name, step, step // 10, 1 / step, at + step) for step in range(first, last + 1)]


def expected(points: list[MetricRow]) -> list[list[float]]:
    return [[row.step, row.value, round(row.at * 1000)] for row in points]


@pytest.fixture
def experiment() -> str:
    return f"digits {uuid.uuid4().hex}"


def test_a_job_is_a_run_with_all_that_it_has(service: Served, mlflow: MlflowServer, experiment: str) -> None:
    mirror = create_mirror(service, url=mlflow.url, experiment=experiment)
    labels = {"team": "vision", "mlflow.user": "no"}
    job = service.submit(name="Zahlen π", labels=labels, optimizer={"kind": "sgd", "lr": 0.5})
    claimed = service.claim()
    log = [*rows(1, 2500), MetricRow("val", "accuracy", 2500, 250, math.nan, 1_800_009_999.0)]
    service.append(claimed, *log)
    assert copy_due(service) == 1
    (run,) = mlflow.read(experiment)
    assert (run["name"], run["status"], run["end_time"]) == ("Zahlen π", "RUNNING", None)
    assert run["metrics"]["train_loss"] == expected(log[:-1]), "live, before the end"
    assert run["metrics"]["val_accuracy"] == [[2500, "nan", 1_800_009_999_000]]
    assert copy_due(service) == 0, "nothing is new"
    service.append(claimed, *rows(2501, 2600))
    service.finish(claimed)
    assert copy_due(service) == 1
    shown = mirrored(service, mirror, job)
    assert (shown["state"], shown["metric_seq"], shown["error"], shown["note"]) == ("complete", 2601, None, None)
    (run,) = mlflow.read(experiment)
    assert (run["run_id"], run["status"]) == (shown["external_id"], "FINISHED")
    assert run["end_time"] > run["start_time"]
    assert run["metrics"]["train_loss"] == expected(rows(1, 2600))
    assert (run["params"]["optimizer.kind"], run["params"]["optimizer.lr"]) == ("sgd", "0.5")
    dataset = service.job(job)["dataset"]
    tags = run["tags"]
    assert (tags["trainkit.job_id"], tags["trainkit.dataset"], tags["team"]) == (job, dataset["id"], "vision")
    assert (tags["trainkit.state"], tags["trainkit.stop_reason"]) == ("succeeded", "completed")
    assert tags.get("mlflow.user") != "no"
    assert (run["datasets"][0]["name"], json.loads(run["datasets"][0]["source"])["id"]) == (
        dataset["name"],
        dataset["id"],
    )
    assert sorted(run["files"]) == ["evaluation.json", "spec.yaml"]
    spec = service.client.get(f"/v1/jobs/{job}/artifacts/spec.yaml").content
    assert bytes.fromhex(run["files"]["spec.yaml"]) == spec
    assert service.client.get(f"/v1/mirrors/{mirror['id']}").json()["jobs"] == {
        "pending": 0,
        "complete": 1,
        "failed": 0,
    }


@SQLITE
def test_a_step_that_is_run_again_is_there_once(service: Served, mlflow: MlflowServer, experiment: str) -> None:
    create_mirror(service, url=mlflow.url, experiment=experiment, artifacts=False)
    service.submit()
    claimed = service.claim()
    service.append(claimed, *rows(1, 30))
    copy_due(service)
    claimed = resume_elsewhere(service, claimed, 20)
    again = rows(21, 30, at=1_800_100_000.0)
    again[3] = again[3]._replace(value=7.0)  # a GPU that is not deterministic
    service.append(claimed, *again, *rows(31, 40, at=1_800_100_000.0))
    service.finish(claimed)
    copy_due(service)
    (run,) = mlflow.read(experiment)
    points = sorted(run["metrics"]["train_loss"])
    assert [point[0] for point in points] == sorted([*range(1, 41), 24])
    assert [24, 7.0, round(again[3].at * 1000)] in points


@SQLITE
@pytest.mark.parametrize(("end", "status"), [("fail", "FAILED"), ("cancel", "KILLED")])
def test_the_status_is_that_of_the_job(
    service: Served, mlflow: MlflowServer, experiment: str, end: str, status: str
) -> None:
    create_mirror(service, url=mlflow.url, experiment=experiment)
    job = service.submit()
    claimed = service.claim()
    copy_due(service)
    if end == "cancel":
        service.client.post(f"/v1/jobs/{job}/cancel").raise_for_status()
    with service.sessions.begin() as session:
        if end == "fail":
            attempts.fail(session, claimed.claim, error_of("bad_data", "row 7 is empty"))
        else:
            attempts.cancelled(session, claimed.claim)
    copy_due(service)
    (run,) = mlflow.read(experiment)
    assert run["status"] == status
    assert run["tags"].get("trainkit.error") == ("bad_data: row 7 is empty" if end == "fail" else None)


def housekeeping(settings: Settings, **more: str) -> subprocess.Popen[bytes]:
    """A worker's housekeeping process on that database."""
    environment = {
        **os.environ,
        "TRAINKIT_HOME": str(settings.home),
        "TRAINKIT_DATABASE_URL": settings.database_url,
        "TRAINKIT_STORAGE_URL": settings.storage_url,
        "TRAINKIT_BROKER_URL": settings.broker_url,
        "TRAINKIT_SECRET_KEY": ",".join(settings.secret_keys),
        "TRAINKIT_WEBHOOK_ALLOW": "127.0.0.0/8",
        **more,
    }
    return subprocess.Popen([sys.executable, "-m", "worker.housekeeping"], env=environment, cwd=ROOT)


@pytest.mark.parametrize("migrated_url", ["postgresql"], indirect=True)
def test_a_sender_that_is_killed_loses_nothing_and_doubles_nothing(
    service: Served, settings: Settings, mlflow: MlflowServer, experiment: str, tmp_path: Path
) -> None:
    """Killed when the run was created and nobody had noted it, after a request that nobody had noted, and at the end."""
    mirror = create_mirror(service, url=mlflow.url, experiment=experiment)
    job = service.submit()
    claimed = service.claim()
    log = rows(1, 3500)
    service.append(claimed, *log)
    service.finish(claimed)
    for point in ("after_mirror_begin", "after_mirror_write", "after_mirror_file", "after_mirror_state"):
        killed = housekeeping(settings, TRAINKIT_FAILPOINTS=f"{point}=kill")
        try:
            assert killed.wait(120) == -signal.SIGKILL, point
        finally:
            killed.kill()
        assert mirrored(service, mirror, job)["state"] == "pending", point
        let_retry(service)
    last = housekeeping(settings)
    try:
        end = time.monotonic() + 120
        while mirrored(service, mirror, job)["state"] != "complete":
            assert time.monotonic() < end, mirrored(service, mirror, job)
            time.sleep(0.2)
    finally:
        last.terminate()
    assert last.wait(60) == 0
    (run,) = mlflow.read(experiment)
    assert run["metrics"]["train_loss"] == expected(log)
    assert (run["status"], sorted(run["files"])) == ("FINISHED", ["evaluation.json", "spec.yaml"])


@SQLITE
def test_a_run_that_was_deleted_stays_deleted_until_a_client_asks(
    service: Served, mlflow: MlflowServer, experiment: str
) -> None:
    mirror = create_mirror(service, url=mlflow.url, experiment=experiment)
    job = service.submit()
    claimed = service.claim()
    service.append(claimed, *rows(1, 10))
    copy_due(service)
    first = mirrored(service, mirror, job)["external_id"]
    httpx.post(f"{mlflow.url}/api/2.0/mlflow/runs/delete", json={"run_id": first}, timeout=60).raise_for_status()
    service.append(claimed, *rows(11, 20))
    service.finish(claimed)
    copy_due(service)
    shown = mirrored(service, mirror, job)
    assert (shown["state"], shown["next_attempt_at"]) == ("failed", None)
    assert "400 INVALID_PARAMETER_VALUE" in shown["error"]
    assert copy_due(service) == 0
    answer = service.client.post(f"/v1/mirrors/{mirror['id']}/jobs/{job}/retry")
    assert (answer.status_code, answer.json()["state"], answer.json()["metric_seq"]) == (202, "pending", 0)
    copy_due(service)
    shown = mirrored(service, mirror, job)
    assert (shown["state"], shown["external_id"] != first) == ("complete", True)
    (run,) = mlflow.read(experiment)
    assert run["metrics"]["train_loss"] == expected(rows(1, 20))

"""What a worker tells Prometheus: right for a real job, and whole though its supervisors are killed."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.error
import urllib.request
from dataclasses import replace
from pathlib import Path

import pytest

import trainkit.fit.loop.fit  # noqa: F401 - before the forks, as a worker does
from service.jobs import repository as jobs_repository
from service.logging import set_up
from tests.support.prometheus_text import Scrape
from tests.support.worker_context import Place, copied_place
from tests.support.worker_runs import run_one
from worker import metrics_folder, metrics_server
from worker.context import WorkerContext
from worker.metrics_server import exposition_of

ROOT = Path(__file__).parents[2]


@pytest.fixture
def place(migrated_sqlite: Path, tmp_path: Path) -> Place:
    return copied_place(migrated_sqlite, tmp_path)


def scrape(place: Place) -> Scrape:
    return Scrape(exposition_of(place.context).render()[0].decode())


def test_a_real_job_is_counted_to_the_step(place: Place) -> None:
    table = place.table()
    before = scrape(place)
    job = place.submit(table, train={"epochs": 3, "batch_size": 16, "seed": 1, "checkpoint_seconds": 0})
    assert run_one(place)
    after = scrape(place)

    def more(name: str, **labels: str) -> float:
        return after.get(name, **labels) - before.get(name, **labels)

    row = place.job(job)
    assert row.state == "succeeded"
    assert row.progress is not None
    assert more("trainkit_worker_steps_total") == row.progress["steps"] == 3 * 6  # 96 of 120 samples are trained on
    assert more("trainkit_worker_metric_rows_total") == row.next_seq - 1 > 0
    assert more("trainkit_attempts_started_total", queue="train") == 1
    assert more("trainkit_job_queued_seconds_count", queue="train") == 1
    assert more("trainkit_attempts_ended_total", outcome="succeeded", layer="", code="") == 1
    assert more("trainkit_jobs_ended_total", state="succeeded", stop_reason="completed", layer="", code="") == 1
    assert more("trainkit_worker_attempt_seconds_count") == 1
    stored = more("trainkit_worker_checkpoint_store_seconds_count")
    with place.context.sessions() as session:
        newest = jobs_repository.checkpoints(session, job)[0]
    assert stored >= 1
    assert more("trainkit_worker_checkpoint_bytes_total") >= newest.bytes
    for gauge in ("samples_per_second", "training_resident_bytes", "spool_behind_bytes"):
        assert after.get(f"trainkit_worker_{gauge}") == 0, "nothing runs any more"
    assert (after.get("trainkit_worker_database_up"), after.get("trainkit_worker_broker_up")) == (1, 0)
    assert before.get("trainkit_datasets_checked_total", state="ready", code="") >= 1
    assert job not in "".join(after.label("code") | after.label("queue"))


def test_every_line_of_an_attempt_says_whose_it_is(place: Place, capfd: pytest.CaptureFixture[str]) -> None:
    import logging

    root = logging.getLogger()
    kept, level = root.handlers[:], root.level
    job = place.submit(place.table(), train={"epochs": 1, "seed": 1})
    set_up(replace(place.context.settings, log_format="json"))
    try:
        assert run_one(place)
    finally:
        logging.captureWarnings(False)
        root.handlers[:] = kept
        root.setLevel(level)
    entries = [json.loads(line) for line in capfd.readouterr().err.splitlines() if line.startswith("{")]
    worker_entries = [line for line in entries if line["logger"].startswith("worker.")]
    assert len(worker_entries) >= 3
    assert {(line["job"], line["attempt"], line["worker"]) for line in worker_entries} == {
        (job, 1, place.context.owner)
    }


KILLED = """
import json, os, signal, sys, time
from service.settings import Settings
from worker import metrics_folder
folder = metrics_folder.create(Settings.from_env())
from worker.context import make_context
from worker.metrics import BUSY_SLOTS, CHECKPOINT_SECONDS, RESIDENT_BYTES, STEPS
from worker.metrics_server import exposition_of

exposition = exposition_of(make_context(Settings.from_env()))
told = []
for steps in (3, 4):
    ready, say = os.pipe()
    pid = os.fork()
    if not pid:
        STEPS.inc(steps)
        BUSY_SLOTS.labels("train").inc()
        RESIDENT_BYTES.set(1000 * steps)
        CHECKPOINT_SECONDS.observe(0.3)
        os.write(say, b"x")
        signal.pause()
    os.read(ready, 1)
    told.append(exposition.render()[0].decode())
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    told.append(exposition.render()[0].decode())
left = sorted(path.name.split("_")[0] for path in folder.iterdir())
metrics_folder.remove()
print(json.dumps([told, left, folder.exists()]))
"""


def test_what_a_killed_supervisor_counted_stays_and_its_gauges_go(tmp_path: Path, promtool: str) -> None:
    environment = {
        "PATH": "/usr/bin:/bin",
        "PYTHONPATH": str(ROOT),
        "TRAINKIT_HOME": str(tmp_path),
        "TRAINKIT_BROKER_URL": "memory://",
        "TRAINKIT_WORKER_METRICS_PORT": "1",
        "PROMETHEUS_MULTIPROC_DIR": str(tmp_path / "somebody-else-s"),
    }
    left_behind = tmp_path / "scratch" / "worker-metrics" / f"{metrics_folder.socket.gethostname()}-999999999"
    left_behind.mkdir(parents=True)
    done = subprocess.run(
        [sys.executable, "-c", KILLED], env=environment, capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    texts, left, folder_exists = json.loads(done.stdout)
    scrapes = [Scrape(text) for text in texts]
    assert [s.get("trainkit_worker_steps_total") for s in scrapes] == [3, 3, 7, 7]
    assert [s.get("trainkit_worker_checkpoint_store_seconds_count") for s in scrapes] == [1, 1, 2, 2]
    assert [s.get("trainkit_worker_slots_busy", queue="train") for s in scrapes] == [1, 0, 1, 0]
    assert [s.get("trainkit_worker_training_resident_bytes") for s in scrapes] == [3000, 0, 4000, 0]
    assert (left.count("counter"), folder_exists, left_behind.exists()) == (3, False, False)
    for text in texts:
        checked = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, text=True)
        assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")


def fetch(port: int, path: str = "/metrics", **headers: str) -> tuple[int, str, str]:
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers=headers)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=10) as answer:
            return answer.status, answer.headers["Content-Type"], answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.headers["Content-Type"], error.read().decode()


def with_settings(context: WorkerContext, **changes: object) -> WorkerContext:
    return replace(context, settings=replace(context.settings, **changes))  # type: ignore[arg-type]


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "worker.example"])
def test_without_a_token_nobody_else_is_answered(place: Place, host: str, caplog: pytest.LogCaptureFixture) -> None:
    open_port = with_settings(place.context, worker_metrics_port=9101, worker_metrics_host=host, metrics_token=None)
    assert metrics_server.serve(open_port) is None
    assert "TRAINKIT_METRICS_TOKEN" in caplog.text


def test_it_answers_whoever_has_the_token(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    assert metrics_server.serve(place.context) is None
    real = metrics_server.make_server
    monkeypatch.setattr(metrics_server, "make_server", lambda host, port, app, **more: real(host, 0, app, **more))
    server = metrics_server.serve(with_settings(place.context, worker_metrics_port=1, metrics_token="t-o-k-e-n"))
    assert server is not None
    port = server.server_port
    try:
        for headers in ({}, {"Authorization": "Bearer t-o-k-e"}, {"Authorization": "t-o-k-e-n"}):
            status, _, body = fetch(port, **headers)
            assert (status, "TRAINKIT_METRICS_TOKEN" in body) == (401, True)
        right = {"Authorization": "Bearer t-o-k-e-n"}
        status, kind, body = fetch(port, **right)
        assert (status, kind) == (200, "text/plain; version=0.0.4; charset=utf-8")
        assert Scrape(body).get("trainkit_worker_database_up") == 1
        status, kind, body = fetch(port, Accept="application/openmetrics-text", **right)
        assert kind.startswith("application/openmetrics-text")
        Scrape(body, openmetrics=True)
        assert fetch(port, "/", **right)[0] == 404
        monkeypatch.undo()
        taken = with_settings(place.context, worker_metrics_port=port)
        assert metrics_server.serve(taken) is None, "a port that is taken stops no worker"
    finally:
        server.shutdown()
        server.server_close()

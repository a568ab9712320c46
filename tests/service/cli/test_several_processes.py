"""Several API processes count together: a scrape that meets any of them tells of all."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import psutil
import pytest

from service.cli.commands import shared_metrics
from service.cli.home import Home
from service.cli.up import Up
from tests.support.prometheus_text import Scrape

ROOT = Path(__file__).parents[3]
TOKEN = {"Authorization": "Bearer a-token-for-scrapes"}


def test_one_process_needs_no_folder(tmp_path: Path) -> None:
    home = {"TRAINKIT_HOME": str(tmp_path)}
    for one in ({}, {"WEB_CONCURRENCY": "1"}, {"WEB_CONCURRENCY": ""}):
        assert shared_metrics({**home, **one}) == {**home, **one}
    assert list(tmp_path.iterdir()) == []


def test_the_folder_is_empty_at_every_start(tmp_path: Path) -> None:
    environment = {"TRAINKIT_HOME": str(tmp_path), "WEB_CONCURRENCY": "2"}
    folder = Path(shared_metrics(environment)["PROMETHEUS_MULTIPROC_DIR"])
    assert folder == tmp_path / "run" / "api-metrics"
    (folder / "counter_1.db").write_bytes(b"x")
    (folder / "notes.txt").write_text("not ours")
    assert shared_metrics(environment)["PROMETHEUS_MULTIPROC_DIR"] == str(folder)
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]
    given = {"TRAINKIT_HOME": str(tmp_path), "PROMETHEUS_MULTIPROC_DIR": str(tmp_path / "mine")}
    assert shared_metrics(given) == given
    assert (tmp_path / "mine").is_dir()


def test_every_worker_has_a_port_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def ports() -> list[dict[str, str]]:
        up = Up(Home(tmp_path), "127.0.0.1", 1, 2, None)  # type: ignore[arg-type]
        return [up._metrics_port(number) for number in range(3)]

    monkeypatch.delenv("TRAINKIT_WORKER_METRICS_PORT", raising=False)
    assert ports() == [{}, {}, {}]
    monkeypatch.setenv("TRAINKIT_WORKER_METRICS_PORT", "9101")
    assert [port["TRAINKIT_WORKER_METRICS_PORT"] for port in ports()] == ["9101", "9102", "9103"]


def test_two_processes_tell_the_sum(tmp_path: Path, migrated_sqlite: Path) -> None:
    (tmp_path / "trainkit.db").write_bytes(migrated_sqlite.read_bytes())
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TRAINKIT_")}
    environment = {
        **kept,
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "client")]),
        "WEB_CONCURRENCY": "2",
        "TRAINKIT_METRICS_TOKEN": "a-token-for-scrapes",
        "TRAINKIT_BROKER_URL": "memory://",
    }
    command = [sys.executable, "-m", "trainkit_client.cli", "api", "--home", str(tmp_path), "--port", str(port)]
    with (tmp_path / "api.log").open("wb") as log:
        api = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    url = f"http://127.0.0.1:{port}"

    def ask(path: str) -> httpx.Response | None:
        try:  # a connection of its own: any of the processes takes it
            return httpx.get(url + path, headers=TOKEN, timeout=30, trust_env=False)
        except httpx.HTTPError:
            return None

    try:
        deadline = time.monotonic() + 120
        while len(serving := [p for p in psutil.Process(api.pid).children() if listens(p, tmp_path)]) < 2:
            assert time.monotonic() < deadline, (tmp_path / "api.log").read_text()
            time.sleep(0.1)
        requests = 0
        while requests < 30:
            if (answer := ask("/v1/jobs")) is not None:
                assert answer.status_code == 401
                requests += 1
        scrapes = []
        for _ in range(4):
            answer = ask("/metrics")
            assert answer is not None
            scrapes.append(Scrape(answer.text))
        labels = {"method": "GET", "route": "(none)", "status": "4xx"}
        assert [scrape.get("trainkit_http_requests_total", **labels) for scrape in scrapes] == [30] * 4
        assert {scrape.get("trainkit_database_up") for scrape in scrapes} == {1}
        assert not any(name.startswith(("process_", "trainkit_database_pool")) for name, _ in scrapes[0].values)
        serving = [p for p in psutil.Process(api.pid).children() if listens(p, tmp_path)]
        serving[0].send_signal(signal.SIGKILL)
        serving[0].wait(30)
        while (answer := ask("/metrics")) is None:
            assert time.monotonic() < deadline
        after = Scrape(answer.text)
        assert after.get("trainkit_http_requests_total", **labels) == 30, "what the killed one counted stays"
        assert after.get("trainkit_http_requests_in_progress") == 1
    finally:
        os.killpg(api.pid, signal.SIGKILL)
        api.wait()


def listens(process: psutil.Process, home: Path) -> bool:
    """Whether it has begun to count."""
    return (home / "run" / "api-metrics" / f"gauge_livesum_{process.pid}.db").exists()

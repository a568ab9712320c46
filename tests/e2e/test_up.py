"""`trainkit up`: starts everything, stops clean, finds everything again, refuses politely."""

from __future__ import annotations

import os
import signal
import subprocess
from functools import partial
from pathlib import Path

import httpx
import psutil

from tests.support.api_steps import example_spec, job_of, submit, upload, wait_until
from tests.support.stack import FAST, TRAINKIT, free_port, wait_for


def start_up(home: Path, port: int) -> subprocess.Popen[bytes]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TRAINKIT_")}
    return subprocess.Popen(
        [TRAINKIT, "up", "--home", str(home), "--port", str(port)],
        env={**environment, **FAST},
        stdout=(home.parent / "up.log").open("ab"),
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def client_of(home: Path, port: int) -> httpx.Client:
    def ready() -> bool:
        try:
            return httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=2).status_code == 200
        except httpx.HTTPError:
            return False

    wait_for(lambda: ready() and (home / "api-key").exists(), what="trainkit up")
    key = (home / "api-key").read_text().strip()
    return httpx.Client(base_url=f"http://127.0.0.1:{port}", headers={"Authorization": f"Bearer {key}"}, timeout=60)


def still_alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    return [p for p in processes if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


def trained(client: httpx.Client, job: str, epochs: int) -> bool:
    return int((job_of(client, job)["progress"] or {}).get("epoch", 0)) >= epochs


def test_stops_clean_in_the_middle_of_a_job_and_goes_on_after_a_restart(tmp_path: Path, data: Path) -> None:
    """Twice, as Ctrl-C and as a service manager stops it."""
    home, port = tmp_path / "home", free_port()
    job = ""
    for how, epoch in ((signal.SIGINT, 5), (signal.SIGTERM, 15)):
        up = start_up(home, port)
        with client_of(home, port) as client:
            if not job:
                train = {"epochs": 60, "checkpoint_seconds": 0}
                dataset = upload(client, data / "digits.zip")
                job = submit(client, example_spec("digits-mlp", dataset, train=train, early_stop=[]))
            wait_for(partial(trained, client, job, epoch), what="some epochs")
            assert job_of(client, job)["state"] == "running"
        assert (home.stat().st_mode & 0o777) == 0o700
        assert ((home / "api-key").stat().st_mode & 0o777) == 0o600
        family = psutil.Process(up.pid).children(recursive=True)
        assert len(family) >= 4
        up.send_signal(how)
        assert up.wait(timeout=60) == 0
        assert still_alive(family) == []

    again = start_up(home, port)
    try:
        with client_of(home, port) as client:
            done = wait_until(client, job, "succeeded")
            assert done["attempts"] <= 2
            assert len(client.get("/v1/datasets").json()["data"]) == 1
    finally:
        again.send_signal(signal.SIGTERM)
        again.wait(timeout=60)


def test_refuses_politely_when_port_or_home_is_taken(tmp_path: Path) -> None:
    home, port = tmp_path / "home", free_port()
    up = start_up(home, port)
    try:
        client_of(home, port).close()
        same_home = subprocess.run(
            [TRAINKIT, "up", "--home", str(home), "--port", str(free_port())],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert same_home.returncode != 0
        assert str(up.pid) in same_home.stdout + same_home.stderr
        other = tmp_path / "other"
        same_port = subprocess.run(
            [TRAINKIT, "up", "--home", str(other), "--port", str(port)], capture_output=True, text=True, timeout=60
        )
        assert same_port.returncode != 0
        assert str(port) in same_port.stdout + same_port.stderr
        assert "Traceback" not in same_home.stderr + same_port.stderr
    finally:
        up.send_signal(signal.SIGTERM)
        up.wait(timeout=60)

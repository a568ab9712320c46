"""`trainkit up`: starts everything, stops clean, finds everything again, refuses politely."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
from functools import partial
from pathlib import Path

import httpx
import psutil

from tests.support.api_steps import example_spec, job_of, submit, upload, wait_until
from tests.support.stack import TRAINKIT, free_port, wait_for
from tests.support.up import Installation, clean_environment, client_of, start_up


def still_alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    return [p for p in processes if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


def trained(client: httpx.Client, job: str, epochs: int) -> bool:
    return int((job_of(client, job)["progress"] or {}).get("epoch", 0)) >= epochs


def stop_clean(home: Path, up: subprocess.Popen[bytes], how: signal.Signals) -> None:
    """Signal it in the middle of a job: it exits with 0, and nothing of it lives on."""
    assert (home.stat().st_mode & 0o777) == 0o700
    files = [path for path in home.rglob("*") if path.is_file()]
    assert {path.name for path in files} >= {"api-key", "trainkit.db", "trainkit.db-wal", "api.log"}
    assert [path for path in files if path.stat().st_mode & 0o077] == []
    # its output is redirected here
    assert (home / "api-key").read_text().strip() not in (home.parent / "up.log").read_text()
    family = psutil.Process(up.pid).children(recursive=True)
    assert len(family) >= 4
    up.send_signal(how)
    assert up.wait(timeout=60) == 0
    assert still_alive(family) == []
    assert list(home.parent.glob(".state/trainkit/running/*.json")) == [], "commands would look for it"


def start_job(client: httpx.Client, dataset: str, epochs: int) -> str:
    train = {"epochs": epochs, "checkpoint_seconds": 0}
    return submit(client, example_spec("digits-mlp", dataset, train=train, early_stop=[]))


def test_stops_clean_in_the_middle_of_a_job_and_goes_on_after_a_restart(tmp_path: Path, data: Path) -> None:
    """Once as by Ctrl-C, once as a service manager stops it."""
    home, port = tmp_path / "home", free_port()
    up = start_up(home, port)
    with client_of(home, port, up) as client:
        dataset = upload(client, data / "digits.zip")
        job = start_job(client, dataset, epochs=60)
        wait_for(partial(trained, client, job, 5), what="some epochs")
        assert job_of(client, job)["state"] == "running"
    stop_clean(home, up, signal.SIGINT)

    up = start_up(home, port)
    with client_of(home, port, up) as client:
        done = wait_until(client, job, "succeeded")
        assert done["failures"] <= 2
        assert len(client.get("/v1/datasets").json()["data"]) == 1
        endless = start_job(client, dataset, epochs=100_000)
        wait_for(partial(trained, client, endless, 2), what="some epochs")
    stop_clean(home, up, signal.SIGTERM)
    with sqlite3.connect(home / "trainkit.db") as database:
        (state,) = database.execute("SELECT state FROM jobs WHERE id = ?", (endless,)).fetchone()
        (checkpoints,) = database.execute("SELECT count(*) FROM checkpoints WHERE job_id = ?", (endless,)).fetchone()
    assert state == "queued", "handed back"
    assert checkpoints > 0


def test_refuses_politely_when_port_or_home_is_taken(installation: Installation, tmp_path: Path) -> None:
    home, port = installation.home, installation.port
    same_home = refused("--home", str(home), "--port", str(free_port()))
    assert str(installation.process.pid) in same_home
    same_port = refused("--home", str(tmp_path / "other"), "--port", str(port))
    assert str(port) in same_port


def refused(*options: str) -> str:
    """What `trainkit up` says when it does not start."""
    done = subprocess.run([TRAINKIT, "up", *options], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


def test_commands_find_it_without_address_and_key(installation: Installation) -> None:
    """By a record that holds neither key nor password, and is left aside when its process is gone."""
    environment = clean_environment(installation.folder)
    jobs = [TRAINKIT, "jobs", "list", "--json"]
    (record,) = installation.folder.glob(".state/trainkit/running/*.json")
    text = record.read_text()
    assert (installation.home / "api-key").read_text().strip() not in text
    assert record.stat().st_mode & 0o077 == 0
    found = subprocess.run(jobs, env=environment, capture_output=True, text=True, check=False)
    assert (found.returncode, found.stderr) == (0, ""), found.stderr
    assert isinstance(json.loads(found.stdout), list)

    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    try:
        record.write_text(json.dumps({**json.loads(text), "pid": ended.pid}))
        lost = subprocess.run(
            jobs, env={**environment, "HOME": str(installation.folder)}, capture_output=True, text=True, check=False
        )
    finally:
        record.write_text(text)
    assert lost.returncode == 2
    assert "none runs on this machine" in lost.stderr

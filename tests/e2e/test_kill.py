"""Processes die at the worst moments; jobs finish without help, and their logs have no gap."""

from __future__ import annotations

import signal
from pathlib import Path

import httpx

from tests.support.api_steps import all_metrics, example_spec, job_of, submit, upload, wait_until
from tests.support.log_readers import Reader, check_all_ways
from tests.support.metric_rows import is_clocked
from tests.support.stack import Stack, training_processes, wait_for

EPOCHS = 60


def steady(dataset: str) -> dict[str, object]:
    """A job of some seconds that checkpoints after every evaluation."""
    train = {"epochs": EPOCHS, "batch_size": 32, "checkpoint_seconds": 0, "seed": 3}
    return example_spec("digits-mlp", dataset, train=train, early_stop=[])


def start_and_reach(client: httpx.Client, data: Path, epoch: int) -> str:
    job = submit(client, steady(upload(client, data / "digits.zip")))

    def reached() -> bool:
        current = job_of(client, job)
        assert current["state"] not in ("succeeded", "failed"), current
        return (current["progress"] or {}).get("epoch", 0) >= epoch

    wait_for(reached, what=f"epoch {epoch}")
    return job


def check_complete(client: httpx.Client, job: str, epochs: int = EPOCHS) -> None:
    """Every epoch counts exactly once in the live log, and seq has no gap."""
    rows = all_metrics(client, job)
    assert [row["seq"] for row in rows] == list(range(1, len(rows) + 1))
    live = [row["epoch"] for row in rows if row["name"] == "loss" and row["split"] == "val" and not row["superseded"]]
    assert live == list(range(1, epochs + 1))


def test_killed_training_process(fragile: Stack, data: Path) -> None:
    with fragile.client() as client:
        job = start_and_reach(client, data, 10)
        for process in wait_for(lambda: training_processes(fragile, job)):
            process.kill()
        done = wait_until(client, job, "succeeded")
        check_complete(client, job)
        attempts = client.get(f"/v1/jobs/{job}/attempts").json()["data"]
        assert len(attempts) == 2
        assert done["result"]["test"]["accuracy"] > 0.9


def test_killed_worker_is_replaced_and_the_job_equals_an_undisturbed_one(fragile: Stack, data: Path) -> None:
    with fragile.client() as client:
        job = start_and_reach(client, data, 10)
        readers = [Reader(fragile.client, job, way, seed) for seed, way in enumerate(("poll", "long-poll", "stream"))]
        for reader in readers:
            reader.start()
        orphans = training_processes(fragile, job)
        fragile.kill("worker")
        wait_for(lambda: not any(p.is_running() and p.status() != "zombie" for p in orphans), what="no orphans")
        fragile.start_worker("worker")
        done = wait_until(client, job, "succeeded")
        check_complete(client, job)
        assert done["interruptions"] >= 1
        seen = [reader.finished() for reader in readers]
        history = check_all_ways(client, job)
        assert seen == [[row[:-1] for row in history]] * 3, "read live, over cut connections: the same history"

        calm = submit(client, steady(done["dataset"]["id"]))
        undisturbed = wait_until(client, calm, "succeeded")
        assert values(client, job) == values(client, calm)
        assert done["result"]["test"] == undisturbed["result"]["test"]


def values(client: httpx.Client, job: str) -> list[tuple[object, ...]]:
    return [
        (row["split"], row["name"], row["step"], row["epoch"], row["value"])
        for row in all_metrics(client, job)
        if not row["superseded"] and not is_clocked(row["split"], row["name"])
    ]


def test_worker_told_to_stop_hands_its_job_back(fragile: Stack, data: Path) -> None:
    with fragile.client() as client:
        job = start_and_reach(client, data, 10)
        fragile.kill("worker", signal.SIGTERM)
        handed_back = job_of(client, job)
        assert handed_back["state"] == "queued"
        assert handed_back["failures"] <= 1
        fragile.start_worker("worker")
        wait_until(client, job, "succeeded")
        check_complete(client, job)


def test_restarted_api_and_broker_lose_nothing(fragile: Stack, data: Path) -> None:
    with fragile.client() as client:
        job = start_and_reach(client, data, 5)
        fragile.kill("api")
        fragile.kill("redis")
        fragile.start_redis()
        fragile.start_api()
    with fragile.client() as client:
        wait_until(client, job, "succeeded")
        check_complete(client, job)
        later = submit(client, example_spec("digits-mlp", job_of(client, job)["dataset"]["id"], train={"epochs": 2}))
        wait_until(client, later, "succeeded")

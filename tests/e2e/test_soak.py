"""Long runs behind `make soak`: random kills of training processes and workers under a steady load of jobs."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest
from journeys import ENDED, all_metrics, example_spec, job_of, submit, upload
from stack import running, training_processes, wait_for

JOBS, KILLS = 12, 40


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", [1, 2])
def test_random_kills_lose_nothing(tmp_path: Path, data: Path, seed: int) -> None:
    chance = random.Random(seed)
    with running(tmp_path, f"sqlite:///{tmp_path}/trainkit.db") as stack, stack.client() as client:
        dataset = upload(client, data / "digits.zip")
        train = {"epochs": 60, "batch_size": 32, "checkpoint_seconds": 0}
        jobs = [
            submit(client, example_spec("digits-mlp", dataset, train={**train, "seed": n}, early_stop=[]))
            for n in range(JOBS)
        ]
        for _ in range(KILLS):
            open_jobs = [job for job in jobs if job_of(client, job)["state"] not in ENDED]
            if not open_jobs:
                break
            wait_for(lambda: any(training_processes(stack, job) for job in jobs), what="work to kill")
            if chance.random() < 0.3:
                stack.kill("worker-train")
                stack.start_worker("worker-train", "train")
            else:
                for process in [p for job in jobs for p in training_processes(stack, job)]:
                    process.kill()
            time.sleep(chance.uniform(0.5, 3))
        wait_for(
            lambda: all(job_of(client, job)["state"] in ENDED for job in jobs), seconds=1800, what="all jobs to end"
        )
        for job in jobs:
            ended = job_of(client, job)
            assert ended["state"] == "succeeded", ended
            rows = all_metrics(client, job)
            assert [row["seq"] for row in rows] == list(range(1, len(rows) + 1))
            live = [r["epoch"] for r in rows if r["split"] == "val" and r["name"] == "loss" and not r["superseded"]]
            assert live == list(range(1, 61))

"""Random faults under a steady load: every accepted job ends once, with the weights of an undisturbed run.

The short form runs with the other tests; `make soak` throws 200 faults at each database, with both lease lengths.
"""

from __future__ import annotations

import random
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.support.api_steps import ENDED, example_spec, job_of, submit, upload, wait_until
from tests.support.chaos import Chaos, PrivatePostgres, check, percentile, recoveries, wait_for_work, weights_of
from tests.support.stack import Stack, running, wait_for

MANY = {"TRAINKIT_MAX_INTERRUPTIONS": "100000"}


@contextmanager
def disturbed(folder: Path, kind: str, seed: int, workers: int, **settings: str) -> Iterator[tuple[Stack, Chaos]]:
    """A stack of some workers, with scratch on a small disk of its own where that is allowed."""
    scratch = folder / "scratch"
    scratch.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16m", "trainkit-chaos", str(scratch)], capture_output=True, check=False
    )
    place = Path(tempfile.mkdtemp(prefix="trainkit-pg-"))
    postgres = PrivatePostgres(place) if kind == "postgresql" else None
    url = postgres.url if postgres else f"sqlite:///{folder}/trainkit.db"
    try:
        with running(Stack(folder, url, extra=MANY | settings)) as stack:
            names = ("worker", *(f"worker-{number}" for number in range(2, workers + 1)))
            for name in names[1:]:
                stack.start_worker(name)
            yield stack, Chaos(stack, random.Random(seed), names, postgres.restart if postgres else None)
    finally:
        if postgres:
            postgres.stop()
        shutil.rmtree(place, ignore_errors=True)
        if mounted.returncode == 0:
            subprocess.run(["umount", "-l", str(scratch)], check=False)


def spec(dataset: str, seed: int, epochs: int) -> dict[str, object]:
    """Dropout, a schedule and early-stop state among what must come back right; checkpoints after every evaluation."""
    train = {"epochs": epochs, "batch_size": 32, "checkpoint_seconds": 0, "seed": seed}
    rules = [{"kind": "patience", "monitor": "val_loss", "patience": epochs}]
    return example_spec(
        "digits-mlp",
        dataset,
        train=train,
        early_stop=rules,
        resources={"max_attempts": 100},
        labels={"seed": str(seed)},
    )


def run_chaos(stack: Stack, chaos: Chaos, data: Path, *, faults: int, epochs: int, seeds: int) -> None:
    """Undisturbed runs first, then the same ones again under fire; a client that is cut off asks again.

    There is one open job less than workers, so that a recovery never waits for another job's end.
    """
    transport = httpx.HTTPTransport(retries=10)
    headers = {"Authorization": f"Bearer {stack.key}"}
    with httpx.Client(base_url=stack.url, headers=headers, timeout=60, transport=transport) as client:
        dataset = upload(client, data / "digits.zip")
        calm = [submit(client, spec(dataset, seed, epochs)) for seed in range(seeds)]
        for job in calm:
            wait_until(client, job, "succeeded")
        expected = [weights_of(stack, job) for job in calm]
        assert len(set(expected)) == seeds
        running_: list[str] = []
        kinds = list(chaos.kinds())
        for number in range(faults):
            while sum(job_of(client, job)["state"] not in ENDED for job in running_) < len(chaos.workers) - 1:
                running_.append(submit(client, spec(dataset, len(running_) % seeds, epochs)))
            wait_for_work(stack, running_)
            # each kind once, then at random
            chaos.strike(kinds[number] if number < len(kinds) else chaos.chance.choice(kinds), running_)
        wait_for(stack.ready, what="the API")
        wait_for(
            lambda: all(job_of(client, job)["state"] in ENDED for job in running_), seconds=1800, what="all jobs to end"
        )
    found = check(stack, {job: expected[n % seeds] for n, job in enumerate(running_)})
    slowest = sorted(recoveries(stack, chaos.kills), reverse=True)
    times = [seconds for seconds, _ in slowest]
    shown = f"p50 {percentile(times, 0.5):.1f} s, p95 {percentile(times, 0.95):.1f} s" if times else "none needed"
    print(
        f"\n{len(chaos.kills)} faults, {len(running_)} jobs, {found['attempts']} attempts, "
        f"{found['interruptions']} interruptions: 0 lost, 0 double; {len(times)} recoveries: {shown}; slowest: "
        + ", ".join(f"{what} {seconds:.1f} s" for seconds, what in slowest[:6])
    )


@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", ["postgresql"])
def test_one_fault_of_each_kind(tmp_path: Path, data: Path, kind: str) -> None:
    with disturbed(tmp_path, kind, seed=7, workers=2) as (stack, chaos):
        run_chaos(stack, chaos, data, faults=len(chaos.kinds()), epochs=40, seeds=1)


@pytest.mark.soak
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
@pytest.mark.parametrize("lease", ["fast", "default"])
def test_two_hundred_faults(tmp_path: Path, data: Path, kind: str, lease: str) -> None:
    slow = {"TRAINKIT_LEASE_SECONDS": "30", "TRAINKIT_HEARTBEAT_SECONDS": "5"} if lease == "default" else {}
    faults = 200 if lease == "fast" else 40
    with disturbed(tmp_path, kind, seed=11, workers=3, **slow) as (stack, chaos):
        run_chaos(stack, chaos, data, faults=faults, epochs=120, seeds=3)

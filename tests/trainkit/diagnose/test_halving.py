"""Successive halving against Optuna's pruner, on the same values in the same order."""

from __future__ import annotations

import math

import numpy as np
import optuna
import pytest
from optuna.pruners import SuccessiveHalvingPruner

from trainkit.diagnose.early_stopping import Evaluation
from trainkit.diagnose.peer_rules import PeerRules, PeerState, RunningStats
from trainkit.spec.early_stop import SuccessiveHalving


def histories(seed: int, jobs: int, epochs: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    falling = random.uniform(0.5, 2, (jobs, 1)) * np.exp(-random.uniform(0, 0.3, (jobs, 1)) * np.arange(1, epochs + 1))
    return np.round(falling + random.normal(0, 0.05, (jobs, epochs)), 1 if seed % 2 else 6)  # odd ones have ties


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("seed", range(12))
def test_halving_equals_the_reference(seed: int, mode: str) -> None:
    random = np.random.default_rng(100 + seed)
    jobs, epochs, first, factor = 12, 20, int(random.integers(1, 4)), int(random.integers(2, 5))
    values = histories(seed, jobs, epochs) * (1 if mode == "min" else -1)
    monitor = "val_loss" if mode == "min" else "val_r2"
    rule = SuccessiveHalving(monitor=monitor, min_epochs=first, reduction_factor=factor)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    direction = "minimize" if mode == "min" else "maximize"
    pruner = SuccessiveHalvingPruner(min_resource=first, reduction_factor=factor)
    study = optuna.create_study(direction=direction, pruner=pruner)
    trials = [study.ask() for _ in range(jobs)]
    ours = [PeerRules([rule]) for _ in range(jobs)]
    seen: list[dict[int, RunningStats]] = [{} for _ in range(jobs)]
    alive = set(range(jobs))
    while alive:
        job = int(random.choice(sorted(alive)))
        epoch = len(seen[job]) + 1
        value = float(values[job, epoch - 1])

        def lookup(at: int, job: int = job) -> list[PeerState]:
            peers = [one for one in range(jobs) if one != job and at in seen[one]]
            return [PeerState(f"job_{one:02}", at, at, {monitor: seen[one][at]}) for one in peers]

        decisions = ours[job].observe(Evaluation(epoch, epoch, {monitor: value}, 0.0), lookup, epoch)
        seen[job][epoch] = ours[job].running_stats[monitor]
        trials[job].report(value, epoch)
        pruned = trials[job].should_prune()
        assert any(one.action == "stop" for one in decisions) == pruned, (job, epoch)
        assert all(one.inputs["rung"] is not None for one in decisions)
        if pruned or epoch == epochs:
            alive.discard(job)
    assert any(len(one) < epochs for one in seen)
    assert any(len(one) == epochs for one in seen)


def test_halving_rungs() -> None:
    rule = SuccessiveHalving(min_epochs=2, reduction_factor=3)
    assert [rule.rung(epoch - 1, epoch) for epoch in range(1, 20)] == [
        *(None, 0, None, None, None, 1),
        *[None] * 11,
        2,
        None,
    ]
    assert rule.rung(1, 7) == 1  # evaluated every few epochs: the last rung that was passed
    later = SuccessiveHalving(min_epochs=2, reduction_factor=3, start_epoch=6)  # as of a job that goes on beyond a stop
    assert [epoch for epoch in range(1, 60) if later.rung(epoch - 1, epoch) is not None] == [18, 54]
    assert rule.rung(3, 3) is None  # several evaluations in an epoch: the first counts


def test_halving_stops_non_finite_jobs_and_keeps_a_single_job() -> None:
    rules = PeerRules([SuccessiveHalving(min_epochs=1)])
    (alone,) = rules.observe(Evaluation(1, 1, {"val_loss": 3.0}, 0.0), lambda _: [], 1)
    assert alone.action == "continue"
    assert "best 1 of 1" in (alone.reason or "")
    (lost,) = PeerRules([SuccessiveHalving(min_epochs=1)]).observe(
        Evaluation(1, 1, {"val_loss": math.nan}, 0.0), lambda _: [], 1
    )
    assert (lost.action, lost.stop_reason) == ("stop", "early_stop")
    assert rules.observe(Evaluation(2, 2, {"val_loss": 9.0}, 0.0), lambda _: [], 2) == []

"""Optuna's draws out of rows: what they hang on, and that they learn."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from service.experiments.sampling import draw, seed_of
from service.experiments.strategies import PlanContext, TrialSnapshot, upcoming
from trainkit.spec import DatasetFacts
from trainkit.spec.experiments import parse_experiment

SPACE: dict[str, Any] = {
    "/optimizer/lr": {"low": 1e-6, "high": 1.0, "log": True},
    "/model/hidden": [[4], [8, 8], True, 1],
    "/train/epochs": {"low": 2, "high": 20, "step": 3, "type": "int"},
}
FACTS = DatasetFacts.model_validate({"kind": "images", "samples": 9, "input_shape": [1, 8, 8], "classes": {"a": 9}})


def loss(params: dict[str, Any]) -> float:
    return abs(math.log10(params["/optimizer/lr"]) + 3) + (0 if params["/model/hidden"] == [8, 8] else 1)


def run(kind: str, seed: int, trials: int = 40, **more: Any) -> list[dict[str, Any]]:
    plan = parse_experiment({"kind": kind, "spec": {}, "space": SPACE, "trials": trials, "seed": seed, **more})
    plotted = PlanContext(plan, FACTS, "val_loss", "min", draw=draw)
    past: list[TrialSnapshot] = []
    while not (found := upcoming(plotted, past)).complete or found.children:
        for child in found.children:
            value = loss(child.params)
            past.append(TrialSnapshot(len(past), child.params, child.document, "job", True, "succeeded", value))
    return [dict(one.params) for one in past]


def test_draws_lie_in_the_space_and_keep_their_kinds() -> None:
    for params in run("random", 0, 60):
        assert 1e-6 <= params["/optimizer/lr"] <= 1
        assert any(params["/model/hidden"] is one or params["/model/hidden"] == one for one in SPACE["/model/hidden"])
        assert params["/train/epochs"] in range(2, 21, 3)
        assert isinstance(params["/train/epochs"], int)
    kinds = [type(params["/model/hidden"]) for params in run("random", 0, 60)]
    assert {kinds.count(kind) > 5 for kind in (list, bool, int)} == {True}


def test_the_parzen_estimator_finds_the_good_region_and_random_draws_do_not() -> None:
    late = {
        kind: np.mean([[loss(p) for p in run(kind, seed)[20:]] for seed in (1, 2, 3)]) for kind in ("tpe", "random")
    }
    assert late["tpe"] < 0.75 * late["random"]


@pytest.mark.parametrize("kind", ["random", "tpe"])
def test_a_draw_hangs_on_seed_number_and_known_results_alone(kind: str) -> None:
    assert run(kind, 5, 14) == run(kind, 5, 14)
    assert run(kind, 5, 14) != run(kind, 6, 14)
    plan = parse_experiment(
        {"kind": kind, "spec": {}, "space": SPACE, "startup_trials": 2}
        if kind == "tpe"
        else {"kind": kind, "spec": {}, "space": SPACE}
    )
    params = run(kind, 5, 8)
    known = [TrialSnapshot(n, one, {}, "j", True, "succeeded", float(n)) for n, one in enumerate(params)]
    other = [TrialSnapshot(n, one, {}, "j", True, "succeeded", float(-n)) for n, one in enumerate(params)]
    same = draw(plan, 8, known, "min") == draw(plan, 8, other, "min")
    assert same == (kind == "random")
    assert draw(plan, 8, known, "min") == draw(plan, 8, other, "max")  # better is what the direction says
    failed = [TrialSnapshot(one.number, one.params, {}, "j", True, "failed", None) for one in known]
    running = [TrialSnapshot(one.number, one.params, {}, "j", False, "running") for one in known]
    for history in (failed, running):
        assert set(draw(plan, 8, history, "min")) == set(SPACE)


def test_streams_are_apart() -> None:
    seeds = {seed_of(seed, number) for seed in range(50) for number in range(200)}
    assert len(seeds) == 10_000

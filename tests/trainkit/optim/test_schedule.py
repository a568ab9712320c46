"""Every schedule against torch.optim.lr_scheduler, step by step."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter

from trainkit.optim.schedule import Schedule, build_schedule
from trainkit.spec.schedules import ScheduleSpec

EPOCHS, STEPS = 6, 5
SPEC = TypeAdapter(ScheduleSpec)
Scheduler = torch.optim.lr_scheduler


def ours(**spec: Any) -> Schedule:
    return build_schedule(SPEC.validate_python(spec), [0.1, 0.02], STEPS, EPOCHS)


def rates_of_torch(make: Callable[[torch.optim.Optimizer], Any], per_epoch: bool) -> list[list[float]]:
    parameters = [torch.nn.Parameter(torch.zeros(1)) for _ in range(2)]
    groups = [{"params": [p], "lr": lr} for p, lr in zip(parameters, (0.1, 0.02), strict=True)]
    optimizer = torch.optim.SGD(groups)
    scheduler = make(optimizer)
    rates = []
    for step in range(EPOCHS * STEPS):
        rates.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        if not per_epoch or (step + 1) % STEPS == 0:
            scheduler.step()
    return rates


@pytest.mark.parametrize(
    ("spec", "make", "per_epoch"),
    [
        ({"kind": "constant"}, lambda o: Scheduler.ConstantLR(o, factor=1.0), True),
        ({"kind": "step", "every_epochs": 2, "gamma": 0.5}, lambda o: Scheduler.StepLR(o, 2, 0.5), True),
        ({"kind": "multi_step", "milestones": [1, 4]}, lambda o: Scheduler.MultiStepLR(o, [1, 4], 0.1), True),
        ({"kind": "exponential", "gamma": 0.9}, lambda o: Scheduler.ExponentialLR(o, 0.9), True),
        ({"kind": "cosine"}, lambda o: Scheduler.CosineAnnealingLR(o, EPOCHS * STEPS), False),
        (
            {"kind": "one_cycle", "rise": 0.3},
            lambda o: Scheduler.OneCycleLR(o, [0.1, 0.02], total_steps=EPOCHS * STEPS, cycle_momentum=False),
            False,
        ),
    ],
)
def test_equals_torch(spec: dict[str, Any], make: Callable[..., Any], per_epoch: bool) -> None:
    schedule = ours(**spec)
    rates = [schedule.rates(step) for step in range(EPOCHS * STEPS)]
    for rate, reference in zip(rates, rates_of_torch(make, per_epoch), strict=True):
        assert rate == pytest.approx(reference, rel=1e-6)


def test_warm_up_rises_linearly_and_the_schedule_follows() -> None:
    schedule = ours(kind="cosine", warmup_epochs=1.0, floor=0.1)
    rates = [schedule.rates(step)[0] for step in range(EPOCHS * STEPS)]
    assert rates[:6] == pytest.approx([0.1 * k / 6 for k in range(1, 7)])
    assert rates[5] == max(rates)
    assert min(rates[5:]) == rates[-1] >= 0.01


@pytest.mark.parametrize(
    "kind", ["constant", "step", "multi_step", "exponential", "cosine", "one_cycle", "reduce_on_plateau"]
)
def test_a_linear_warm_up_stands_before_any_schedule(kind: str) -> None:
    """1.4 epochs of 5 steps are 7: rates k/8 of the full one for k = 1 ... 7, then the schedule's own."""
    schedule = ours(kind=kind, warmup_epochs=1.4)
    for group, full in enumerate((0.1, 0.02)):
        warm = [schedule.rates(step)[group] for step in range(7)]
        assert warm == pytest.approx([full * k / 8 for k in range(1, 8)])
    if kind in ("constant", "step", "exponential", "multi_step"):  # these count epochs from the start of training
        plain = ours(kind=kind)
        assert all(schedule.rates(step) == plain.rates(step) for step in range(7, EPOCHS * STEPS))
    if kind == "cosine":
        assert schedule.rates(7) == pytest.approx([0.1, 0.02])


def test_reduce_on_plateau_by_hand() -> None:
    schedule = ours(kind="reduce_on_plateau", monitor="val_loss", factor=0.5, patience=2, min_delta=0.1)
    seen = []
    for value in [float("nan"), 1.0, 0.95, 0.85, 0.9, float("inf"), 0.2]:
        schedule.observe(value)
        seen.append(schedule.rates(0)[0])
    # NaN: miss 1. 1.0: best. 0.95: not by more than 0.1, miss 1. 0.85: best. 0.9: miss 1. inf: miss 2, halved. 0.2: best.
    assert seen == pytest.approx([0.1, 0.1, 0.1, 0.1, 0.1, 0.05, 0.05])


def test_a_loaded_schedule_goes_on_as_the_saved_one() -> None:
    first = ours(kind="reduce_on_plateau", monitor="val_accuracy", patience=2)
    for value in (0.5, 0.4):
        first.observe(value)
    second = ours(kind="reduce_on_plateau", monitor="val_accuracy", patience=2)
    second.load(first.state())
    for value in (0.45, 0.44, 0.6):
        first.observe(value)
        second.observe(value)
        assert first.rates(7) == second.rates(7)
    assert first.rates(0)[0] == pytest.approx(0.01)


def test_min_lr_is_a_floor_that_never_raises() -> None:
    schedule = ours(kind="reduce_on_plateau", monitor="val_loss", patience=1, factor=0.01, min_lr=0.05)
    schedule.observe(1.0)
    schedule.observe(1.0)
    assert schedule.rates(0) == pytest.approx([0.05, 0.02])


def test_reduce_on_plateau_equals_torch_with_one_miss_less() -> None:
    values = torch.rand(60, generator=torch.Generator().manual_seed(0)).cumsum(0).neg().div(40).add(2).tolist()
    values = [value + (0.3 if index % 7 < 4 else 0.0) for index, value in enumerate(values)]
    schedule = ours(kind="reduce_on_plateau", monitor="val_loss", patience=3, factor=0.5, min_delta=0.01)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    reference = Scheduler.ReduceLROnPlateau(
        optimizer, factor=0.5, patience=2, threshold=0.01, threshold_mode="abs", eps=0
    )
    for value in values:
        schedule.observe(value)
        reference.step(value)
        assert schedule.rates(0)[0] == pytest.approx(optimizer.param_groups[0]["lr"])
    assert schedule.rates(0)[0] < 0.1


def test_a_state_survives_json_and_more_steps_than_planned_keep_a_rate() -> None:
    for kind in ("constant", "step", "multi_step", "exponential", "cosine", "one_cycle", "reduce_on_plateau"):
        schedule = ours(kind=kind)
        schedule.load(json.loads(json.dumps(schedule.state())))
        assert all(rate >= 0 for rate in schedule.rates(EPOCHS * STEPS + 3))

"""Optuna's draws, its memory being our rows: for every trial a study is made anew of those that it may know.

So a draw depends on seed, number and known results alone, and a planner that died is replaced without a trace. Optuna is
imported when it is asked for: the API never asks.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from service.experiments.strategies import TrialSnapshot
from trainkit.spec.experiments import Asha, Range, Sampled, Tpe

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial


def draw(plan: Sampled, number: int, history: Sequence[TrialSnapshot], better: str) -> dict[str, Any]:
    """Values of trial `number`, by pointer. `past`: all earlier trials, with the values of those that it may know.

    A trial that ended without a finite value counts as failed, one that has not ended as running (Optuna's constant liar).
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space = {pointer: _distribution(values) for pointer, values in plan.space.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # experimental features are named at every call
        sampler = _sampler(plan, seed_of(plan.seed, number))
        study = optuna.create_study(direction="minimize" if better == "min" else "maximize", sampler=sampler)
        study.add_trials([_frozen(plan, space, one) for one in history])
        trial = study.ask(space)
    return {pointer: _value(plan, pointer, trial.params[pointer]) for pointer in plan.space}


def seed_of(seed: int, number: int) -> int:
    """32 bits for one draw, so that no draw shares its stream with another's."""
    return int.from_bytes(hashlib.sha256(f"trainkit trial {seed} {number}".encode()).digest()[:4], "big")


def _sampler(plan: Sampled, seed: int) -> BaseSampler:
    from optuna.samplers import RandomSampler, TPESampler

    if isinstance(plan, Tpe):
        return TPESampler(n_startup_trials=plan.startup_trials, seed=seed)
    if isinstance(plan, Asha) and plan.sampler == "tpe":
        return TPESampler(seed=seed)
    return RandomSampler(seed=seed)


def _distribution(values: Range | list[Any]) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if not isinstance(values, Range):
        return CategoricalDistribution(list(range(len(values))))  # Optuna's choices are no lists; ours may be
    if values.type == "int":
        return IntDistribution(int(values.low), int(values.high), log=values.log, step=int(values.step or 1))
    return FloatDistribution(values.low, values.high, log=values.log, step=values.step)


def _value(plan: Sampled, pointer: str, drawn: Any) -> Any:
    values = plan.space[pointer]
    return drawn if isinstance(values, Range) else values[drawn]


def _drawn(plan: Sampled, pointer: str, value: Any) -> Any:
    """What Optuna knows the value by."""
    values = plan.space[pointer]
    if isinstance(values, Range):
        return value
    return next(place for place, one in enumerate(values) if one == value and type(one) is type(value))


def _frozen(plan: Sampled, space: dict[str, BaseDistribution], one: TrialSnapshot) -> FrozenTrial:
    from optuna.trial import TrialState, create_trial

    params = {pointer: _drawn(plan, pointer, one.params[pointer]) for pointer in plan.space}
    if not one.ended:
        return create_trial(state=TrialState.RUNNING, params=params, distributions=space)
    if one.value is None:
        return create_trial(state=TrialState.FAIL, params=params, distributions=space)
    return create_trial(state=TrialState.COMPLETE, value=one.value, params=params, distributions=space)

"""The autopilot's steps out of an experiment's trials, and the account of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from service.experiments.strategies import Child, Next, Past
from trainkit.diagnose.autopilot import AutopilotEnd, AutopilotStep, Budget, CompletedStep, History, next_step
from trainkit.diagnose.estimates import MetricEstimate
from trainkit.diagnose.narrative import explain
from trainkit.spec import DatasetFacts
from trainkit.spec.experiments import Autopilot
from trainkit.spec.patch import merge_patch

REASONS = {
    "jobs_spent": "the budget of jobs is spent",
    "seconds_spent": "no further step would end within the budget of seconds",
    "nothing_left": "nothing is left to try",
    "no_validation": "there is no validation part to tell a better run by",
    "nothing_to_train": "an ensemble has nothing to train",
}


def next_of(plan: Autopilot, facts: DatasetFacts, past: Sequence[Past]) -> Next:
    """The step after those that have been made; none while one is under way."""
    if not all(one.ended for one in past):
        return Next([], False)
    base = plan.spec if plan.metric is None else merge_patch(plan.spec, {"train": {"monitor": plan.metric}})
    found = next_step(base, tried_of(past), facts, Budget(plan.jobs, plan.seconds))
    if isinstance(found, AutopilotEnd):
        return Next([], True, REASONS[found.reason])
    params = {"step": len(past)} | ({"change": found.code} if found.code else {})
    why = {name: value for name, value in found.as_dict().items() if name != "document"}
    return Next([Child(found.document, params, why)], False)


def tried_of(past: Sequence[Past]) -> list[CompletedStep]:
    """The trials that have ended, as the autopilot remembers them."""
    return [_tried(one) for one in past if one.ended]


def account(facts: DatasetFacts, past: Sequence[Past]) -> tuple[list[dict[str, Any]], int | None]:
    """What was seen, done, expected and measured at each step that has ended; and which trial is to be taken as it stands."""
    tried = tried_of(past)
    return explain(tried, facts), History(tried, facts).done("nothing_left").best if tried else None


def _tried(one: Past) -> CompletedStep:
    outcome, why = one.outcome, dict(one.why or {})
    kept: Mapping[str, Any] = outcome.get("kept") or {}
    return CompletedStep(
        step=AutopilotStep(**{"document": dict(one.document), **why}),
        state=one.state,
        metrics={name: MetricEstimate(value, se, epoch) for name, (value, se, epoch) in kept.items()},
        diagnosis=outcome.get("diagnosis"),
        seconds=outcome.get("seconds") or 0.0,
        error=outcome.get("error"),
    )

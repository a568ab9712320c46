"""Which jobs an experiment is made of. Pure: the same plan and the same history give the same next jobs, whoever asks.

So nothing but the trials' rows has to survive a death, and two planners that meet make the same plan.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice, product
from typing import Any

from trainkit.diagnose.autopilot import AutopilotEnd, AutopilotStep, Budget, CompletedStep, History, next_step
from trainkit.diagnose.estimates import MetricEstimate
from trainkit.diagnose.narrative import explain
from trainkit.spec import DatasetFacts, JobSpec, SpecError
from trainkit.spec import Problem as SpecProblem
from trainkit.spec.baselines import baselines
from trainkit.spec.experiments import (
    Asha,
    Autopilot,
    Baselines,
    EnsembleOf,
    Grid,
    KFold,
    MonteCarlo,
    Plan,
    Sampled,
)
from trainkit.spec.patch import in_order, merge_patch, with_value
from trainkit.spec.split import SplitSpec
from trainkit.spec.training import TrainSpec

AUTOPILOT_END_REASONS = {
    "jobs_spent": "the budget of jobs is spent",
    "seconds_spent": "no further step would end within the budget of seconds",
    "nothing_left": "nothing is left to try",
    "no_validation": "there is no validation part to tell a better run by",
    "nothing_to_train": "an ensemble has nothing to train",
}
ENSEMBLE_KEEPS = ("dataset", "task", "split", "preprocess", "target_scaling", "resources")
"""Of the members' spec what their ensemble is made with."""


@dataclass(frozen=True, slots=True)
class NewTrial:
    """A job to be made: its spec, and what tells it from the others."""

    document: dict[str, Any]
    params: dict[str, Any]
    why: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class TrialSnapshot:
    """A trial as the plan sees it."""

    number: int
    params: Mapping[str, Any]
    document: Mapping[str, Any]
    job: str | None
    ended: bool
    state: str
    value: float | None = None
    """Of the plan's metric, once it has ended."""
    outcome: Mapping[str, Any] = field(default_factory=dict)
    why: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class NextTrials:
    """What is to be made now, and whether the plan is complete with it."""

    children: Sequence[NewTrial]
    complete: bool
    reason: str = ""
    """Why nothing more will come."""


@dataclass(frozen=True, slots=True)
class PlanContext:
    """A plan with what it is applied to."""

    plan: Plan
    facts: DatasetFacts
    metric: str
    better: str
    """`min` or `max`."""
    sources: Sequence[TrialSnapshot] = ()
    """Trials whose models an ensemble takes over, the best first."""
    draw: Callable[[Sampled, int, Sequence[TrialSnapshot], str], dict[str, Any]] | None = None
    """Draws the values of a sampled trial; left to the caller, for the library behind it is large."""


def upcoming(context: PlanContext, history: Sequence[TrialSnapshot], most: int | None = None) -> NextTrials:
    """The jobs to make now, `most` at most. How many are made at once decides when a trial is made, never what it is."""
    plan, under_way = context.plan, sum(not one.ended for one in history)
    room = max(0, plan.parallel - under_way)
    room = room if most is None else min(room, most)
    if isinstance(plan, Sampled):
        return _sampled(context, plan, history, room)
    if isinstance(plan, EnsembleOf):
        return _ensemble(context, plan, history, room)
    if isinstance(plan, Autopilot):
        return _autopilot_step(plan, context.facts, history)
    listed = list(islice(enumerated(plan, context.facts), len(history), len(history) + room + 1))
    return NextTrials(listed[:room], len(listed) <= room, "all jobs of the plan have been made")


def enumerated(plan: Plan, facts: DatasetFacts) -> Iterator[NewTrial]:
    """The jobs of a plan that is known beforehand, in their order."""
    if isinstance(plan, KFold | MonteCarlo):
        yield from resampled_trials(plan)
    elif isinstance(plan, Grid):
        for values in product(*plan.space.values()):
            params = dict(zip(plan.space, values, strict=True))
            yield NewTrial(placed(plan.spec, params), params)
    elif isinstance(plan, Baselines):
        yield NewTrial(dict(plan.spec), {"baseline": "spec"})
        for name, document in baselines(plan.spec, facts):
            yield NewTrial(document, {"baseline": name})


def placed(document: Mapping[str, Any], params: Mapping[str, Any]) -> dict[str, Any]:
    """The spec with each value at its pointer. Raises SpecError for a pointer that leads nowhere.

    Where the spec leaves a section out whose default has a kind, as the optimizer's, the pointer is about that kind.
    """
    changed: Any = document
    for pointer in sorted(params, key=in_order):
        value = params[pointer]
        section = pointer.split("/")[1]
        default: Any = JobSpec.model_fields[section].default if section in JobSpec.model_fields else None
        if section not in changed and pointer.count("/") > 1 and hasattr(default, "kind"):
            changed = {**changed, section: {"kind": default.kind}}
        try:
            changed = with_value(changed, pointer, value)
        except KeyError as error:
            escaped = pointer.replace("~", "~0").replace("/", "~1")
            message = f"{error.args[0]} is no place in `spec`"
            hint = "Name a field of `spec`; a place in a list must be there."
            raise SpecError([SpecProblem(f"/space/{escaped}", "no_such_place", message, hint)]) from None
    return dict(changed)


def resampled_trials(plan: KFold | MonteCarlo) -> Iterator[NewTrial]:
    """All variants of a cut stand together, so that pairs are complete early."""
    documents = {"base": dict(plan.spec)} | {
        name: merge_patch(plan.spec, patch) for name, patch in plan.variants.items()
    }
    base = resampled_split(plan, plan.spec)
    for params, cut in _draws(plan, base):
        for name, document in documents.items():
            labels = {**params, "variant": name} if plan.variants else params
            yield NewTrial({**document, "split": {**resampled_split(plan, document), **cut}}, labels)


def resampled_split(plan: KFold | MonteCarlo, document: Mapping[str, Any]) -> dict[str, Any]:
    """The `split` that all draws share, as the document says it. Raises ValidationError for one that is no split."""
    split = SplitSpec.model_validate(document.get("split") or {})
    chosen = split.model_dump(mode="json", exclude_unset=True)
    if isinstance(plan, MonteCarlo) and not {"train", "validation"} & chosen.keys():
        rest = split.train + split.validation
        chosen |= {"train": rest * 4 / 5, "validation": rest / 5}
    return chosen


def _draws(plan: KFold | MonteCarlo, split: Mapping[str, Any]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """(what tells the draw from others, its part of `split`). The test part follows from `split` alone."""
    named = split.get("resample_seed")
    first = int(split.get("seed", 0) if named is None else named)
    if isinstance(plan, MonteCarlo):
        for draw in range(plan.draws):
            yield {"draw": draw}, {"resample_seed": (first + draw) % 2**32}
        return
    for repeat in range(plan.repeats):
        for fold in range(plan.folds):
            labels = {"fold": fold, "repeat": repeat} if plan.repeats > 1 else {"fold": fold}
            yield labels, {"folds": plan.folds, "fold": fold, "resample_seed": (first + repeat) % 2**32}


def _sampled(context: PlanContext, plan: Sampled, history: Sequence[TrialSnapshot], room: int) -> NextTrials:
    """One trial at a time, each knowing the results of all but the `parallel` - 1 before it, and of no other."""
    number = len(history)
    if number >= plan.trials:
        return NextTrials([], True, "all trials have been made")
    known = number - plan.parallel + 1
    if room == 0 or not all(one.ended for one in history[: max(0, known)]):
        return NextTrials([], False)
    assert context.draw is not None
    history = [one if one.number < known else _hidden(one) for one in history]
    params = context.draw(plan, number, history, context.better)
    document = placed(plan.spec, params)
    if isinstance(plan, Asha):
        document["early_stop"] = [*(document.get("early_stop") or [{"kind": "diverged"}]), _halving(context, plan)]
    return NextTrials([NewTrial(document, params)], number + 1 >= plan.trials, "all trials have been made")


def _hidden(one: TrialSnapshot) -> TrialSnapshot:
    """A trial whose end the next one shall not know, though it may have come."""
    return TrialSnapshot(one.number, one.params, one.document, one.job, ended=False, state="running")


def _halving(context: PlanContext, plan: Asha) -> dict[str, Any]:
    return {
        "kind": "successive_halving",
        "monitor": context.metric,
        "min_epochs": plan.min_epochs,
        "reduction_factor": plan.reduction_factor,
    }


def _ensemble(context: PlanContext, plan: EnsembleOf, history: Sequence[TrialSnapshot], room: int) -> NextTrials:
    """Members first, which differ in their seed, then the ensemble of those that have a model."""
    if plan.experiment is not None:
        if history:
            return NextTrials([], True, "the ensemble has been made")
        jobs = [one.job for one in context.sources if one.job is not None]
        return NextTrials([_joined(plan, context.sources[0].document, jobs)], True, "the ensemble has been made")
    if len(history) < plan.members:
        seed = TrainSpec.model_validate(plan.spec.get("train") or {}).seed
        numbers = range(len(history), min(plan.members, len(history) + room))
        seeded = [(number, merge_patch(plan.spec, {"train": {"seed": seed + number}})) for number in numbers]
        return NextTrials([NewTrial(document, {"member": number}) for number, document in seeded], False)
    if len(history) > plan.members:
        return NextTrials([], True, "the ensemble has been made")
    if not all(one.ended for one in history):
        return NextTrials([], False)
    good = [one.job for one in history if one.outcome.get("model") and one.job is not None]
    if len(good) < 2:
        return NextTrials([], True, f"{len(good)} of {plan.members} members have a model: too few for an ensemble")
    return NextTrials([_joined(plan, plan.spec, good)], True, "the ensemble has been made")


def _joined(plan: EnsembleOf, spec: Mapping[str, Any], jobs: Sequence[str]) -> NewTrial:
    kept = {name: spec[name] for name in ENSEMBLE_KEEPS if name in spec}
    model = {"kind": "ensemble", "members": list(jobs), "method": plan.method}
    return NewTrial({**kept, "model": model}, {"ensemble": len(jobs)})


def _autopilot_step(plan: Autopilot, facts: DatasetFacts, history: Sequence[TrialSnapshot]) -> NextTrials:
    """Return the step after the completed ones; none while one is under way."""
    if not all(one.ended for one in history):
        return NextTrials([], False)
    base = plan.spec if plan.metric is None else merge_patch(plan.spec, {"train": {"monitor": plan.metric}})
    found = next_step(base, _completed_steps(history), facts, Budget(plan.jobs, plan.seconds))
    if isinstance(found, AutopilotEnd):
        return NextTrials([], True, AUTOPILOT_END_REASONS[found.reason])
    params = {"step": len(history)} | ({"change": found.code} if found.code else {})
    why = {name: value for name, value in found.as_dict().items() if name != "document"}
    return NextTrials([NewTrial(found.document, params, why)], False)


def _completed_steps(history: Sequence[TrialSnapshot]) -> list[CompletedStep]:
    """Return the trials that have ended as the autopilot's steps."""
    return [_completed_step(one) for one in history if one.ended]


def explain_autopilot(facts: DatasetFacts, history: Sequence[TrialSnapshot]) -> tuple[list[dict[str, Any]], int | None]:
    """Return (finding, change, expectation and result of each completed step, number of the best trial)."""
    steps = _completed_steps(history)
    return explain(steps, facts), History(steps, facts).done("nothing_left").best if steps else None


def _completed_step(one: TrialSnapshot) -> CompletedStep:
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

"""Judging a diagnosis on a case: what it names first and at all, and what its first recommendation is worth."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib import import_module
from typing import Any, Literal

from benchmarks.diagnosis.baselines import BASELINES
from benchmarks.diagnosis.case import Case
from benchmarks.diagnosis.effects import has_effect, measured_effect
from benchmarks.diagnosis.reference import Reference, reference_gain
from benchmarks.diagnosis.trial import Trial, data_of, trial, with_attainable
from trainkit.diagnose.diagnosis import diagnose
from trainkit.diagnose.verdicts import Code
from trainkit.spec.patch import merge_patch

Truth = Literal["faulty", "sound", "no effect", "unsettled"]
Answer = Literal["first", "suspect", "later", "inconclusive", "healthy", "wrong"]
QUIET = ("healthy", "inconclusive")
SURE = 0.8
"""Confidence above which a wrong answer is wrong and sure."""


@dataclass(frozen=True, slots=True)
class Opinion:
    """What a diagnosis says: codes and confidences, the main one first, suspects, and its first recommendation."""

    named: list[str]
    confidences: list[float]
    suspects: list[str]
    patch: Mapping[str, Any] | None = None
    effect: dict[str, Any] | None = None
    """Of the first recommendation, on the samples aside."""
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Result:
    """One case. `effective` are the planted codes that have an effect; `effects` has each fault's and its strength.

    `truth`: faulty; sound; `no effect`, where nothing planted has an effect beyond noise; `unsettled`, a run meant as
    sound though a quick reference is better by more than noise.
    """

    seed: int
    name: str
    truth: Truth
    effective: list[Code]
    planted: list[dict[str, Any]]
    opinions: dict[str, Opinion]
    twin: list[str]
    """Codes named on the twin without faults (passive); empty for a sound case."""
    reference: dict[str, Any] | None
    baselines: dict[str, list[list[str]]]
    family: str
    seconds: float
    cached: bool

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {**asdict(self), "answers": {name: answer(self, one) for name, one in self.opinions.items()}}


def answer(result: Result, opinion: Opinion) -> Answer:
    """Return how a diagnosis answers: the planted fault first, inconclusive with it among the suspects, later, ..."""
    first = opinion.named[0]
    if first in result.effective:
        return "first"
    if first == "inconclusive" and set(opinion.suspects) & set(result.effective):
        return "suspect"
    if set(opinion.named) & set(result.effective):
        return "later"
    return first if first in QUIET else "wrong"  # type: ignore[return-value]


def wrong_and_sure(result: Result, opinion: Opinion) -> bool:
    """Return whether the first verdict is wrong with a confidence above SURE.

    Where a fault has no effect, naming it is no error of this kind: the setting is there.
    """
    first, confidence = opinion.named[0], opinion.confidences[0]
    if confidence <= SURE or first == "inconclusive":
        return False
    if result.truth == "faulty":
        return first not in result.effective
    return first != "healthy" and first not in {one["code"] for one in result.planted}


def judge_case(
    case: Case, *, investigation: float | None = None, fresh: bool = False, recommend: bool = True
) -> Result:
    """Train a case and its twins, diagnose it, train the first recommendation, and compare.

    `investigation`: seconds for the controlled experiments; None: the passive diagnosis alone.
    """
    run = trial(case.recipe, case.document, fresh=fresh)
    twin = trial(case.sound_recipe, case.sound_document, fresh=fresh) if case.planted else run
    planted, effective = [], []
    for fault in case.planted:
        alone = run if len(case.planted) == 1 else trial(fault.recipe, fault.document, fresh=fresh)
        matters, effect = has_effect(fault.code, alone, twin)
        effective += [fault.code] if matters else []
        planted.append(
            {
                "code": fault.code,
                "strength": fault.strength,
                "what": fault.what,
                "effective": matters,
                "effect": effect.as_dict(),
            }
        )
    reference = None if case.planted else reference_gain(case.recipe, run)
    truth: Truth = "faulty" if effective else "no effect" if planted else _sound_or_not(reference)
    run, twin = (
        replace(one, record=with_attainable(recipe, one.record))
        for one, recipe in ((run, case.recipe), (twin, case.sound_recipe))
    )
    opinions = {"passive": passive(case, run, effective, recommend and truth == "faulty")}
    if investigation is not None:
        opinions["investigated"] = investigated(case, run, effective, investigation, recommend and truth == "faulty")
    return Result(
        case.seed,
        case.name,
        truth,
        effective,
        planted,
        opinions,
        [verdict.code for verdict in diagnose(twin.record).verdicts] if case.planted else [],
        None if reference is None else reference.as_dict(),
        {name: [sorted(finding.codes) for finding in rules(run.record)] for name, rules in BASELINES.items()},
        case.family,
        run.seconds,
        run.cached,
    )


def _sound_or_not(reference: Reference | None) -> Truth:
    return "unsettled" if reference is not None and reference.better else "sound"


def passive(case: Case, run: Trial, effective: Sequence[Code], recommend: bool) -> Opinion:
    """Return what the record alone says."""
    began = time.perf_counter()
    found = diagnose(run.record).as_dict()
    return _opinion(case, run, found, effective, recommend, time.perf_counter() - began)


def investigated(case: Case, run: Trial, effective: Sequence[Code], seconds: float, recommend: bool) -> Opinion:
    """Return what controlled experiments within so many seconds say, in front of what the record says."""
    began = time.perf_counter()
    data = data_of(case.recipe).dataset
    # By name: the diagnosis is tested without its experiments as well.
    budget = import_module("trainkit.diagnose.investigation").InvestigationBudget(seconds=seconds)
    investigate = import_module("trainkit.fit.investigate").investigate
    options = {"record": run.record, "attainable": run.record.attainable, "budget": budget}
    findings = investigate(case.document, data, **options).findings.as_dict()
    taken = time.perf_counter() - began
    return _opinion(case, run, combined(diagnose(run.record).as_dict(), findings), effective, recommend, taken)


def combined(found: Mapping[str, Any], findings: Mapping[str, Any]) -> dict[str, Any]:
    """Return a diagnosis as the service shows it after an investigation: what was measured before what the record says.

    A verdict of the record gives way to a measured one of its code, and to any where it is quiet; one that the runs
    contradict is left out. What was tried is recommended only where it helped.
    """
    measured, harmful = findings["verdicts"], [one["patch"] for one in findings["harmful"]]
    dropped = {one["code"] for one in measured} | {*findings["refuted"]} | ({*QUIET} if measured else set())
    verdicts = [*measured, *(one for one in found["verdicts"] if one["code"] not in dropped)]
    shown = {one["code"] for one in verdicts}
    others = [one for one in found["recommendations"] if one["code"] in shown and one["patch"] not in harmful]
    recommendations = [*findings["recommendations"], *others]
    return {"verdicts": verdicts, "recommendations": recommendations, "suspects": findings["suspects"]}


def _opinion(
    case: Case, run: Trial, found: Mapping[str, Any], effective: Sequence[Code], recommend: bool, seconds: float
) -> Opinion:
    """Return a diagnosis in short, with the effect of its first recommendation."""
    if not found["verdicts"]:
        raise RuntimeError(f"the diagnosis of case {case.name} has no verdict")
    first = found["recommendations"][0] if found["recommendations"] else None
    effect = _effect_of(case, run, first, effective) if first is not None and recommend else None
    return Opinion(
        [verdict["code"] for verdict in found["verdicts"]],
        [verdict["confidence"] for verdict in found["verdicts"]],
        [suspect["code"] for suspect in found.get("suspects", ())],
        None if first is None else dict(first["patch"]),
        effect,
        seconds,
    )


def _effect_of(case: Case, run: Trial, first: Mapping[str, Any], effective: Sequence[Code]) -> dict[str, Any]:
    """Return what a recommendation does, in the measure of the fault that it is for, else of the first that matters."""
    after = trial(case.recipe, merge_patch(case.document, first["patch"]))
    code = first["code"] if first.get("code") in effective else effective[0]
    return measured_effect(code, run, after).as_dict()

"""Judging a diagnosis on a case: what it names first and at all, and what its first recommendation is worth."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from benchmarks.diagnosis.baselines import BASELINES
from benchmarks.diagnosis.case import Case
from benchmarks.diagnosis.effects import measured_effect
from benchmarks.diagnosis.examination import Examination, InvestigationFile, Truth, examination
from benchmarks.diagnosis.trial import data_of, trial
from trainkit.diagnose.combined import combined
from trainkit.diagnose.diagnosis import diagnose
from trainkit.diagnose.verdicts import Code
from trainkit.spec.patch import merge_patch

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
    case: Case,
    *,
    investigation: float | None = None,
    fresh: bool = False,
    recommend: bool = True,
    records: Path | None = None,
    twins: bool = True,
) -> Result:
    """Train a case and its twins, diagnose it, train the first recommendation, and compare.

    `investigation`: seconds for the controlled experiments; None: the passive diagnosis alone. `records`: the folder of
    `examination`; `twins`: diagnose the twins without the fault, too.
    """
    found = examination(case, fresh=fresh, records=records, twins=twins)
    worth = recommend and found.truth in ("faulty", "sound")
    opinions = {"passive": passive(case, found, worth)}
    if investigation is not None:
        file = InvestigationFile(case, investigation, records, fresh=fresh)
        opinions["investigated"] = investigated(case, found, investigation, worth, file)
    return Result(
        case.seed,
        case.name,
        found.truth,
        found.effective,
        found.planted,
        opinions,
        [] if found.twin is None else [verdict.code for verdict in diagnose(found.twin).verdicts],
        found.reference,
        {name: [sorted(finding.codes) for finding in rules(found.run)] for name, rules in BASELINES.items()},
        case.family,
        found.seconds,
        found.cached,
    )


def passive(case: Case, examined: Examination, recommend: bool) -> Opinion:
    """Return what the record alone says."""
    began = time.perf_counter()
    found = diagnose(examined.run).as_dict()
    return _opinion(case, found, examined.effective, recommend, time.perf_counter() - began)


def investigated(
    case: Case, examined: Examination, seconds: float, recommend: bool, file: InvestigationFile
) -> Opinion:
    """Return what controlled experiments within so many seconds say, in front of what the record says."""
    began = time.perf_counter()
    findings = investigation_of(case, examined, seconds, file)
    taken = time.perf_counter() - began
    found = combined(examined.run, findings)
    return _opinion(case, found, examined.effective, recommend, taken)


def investigation_of(case: Case, examined: Examination, seconds: float, file: InvestigationFile) -> dict[str, Any]:
    """Return the findings of an investigation, which goes on from what `file` keeps, and is kept there."""
    data, record = data_of(case.recipe).dataset, examined.run
    # By name: the diagnosis is tested without its experiments as well.
    budget = import_module("trainkit.diagnose.investigation").InvestigationBudget(seconds=seconds)
    investigate = import_module("trainkit.fit.investigate").investigate
    # seconds of the processor: on a machine that others use as well, those of the clock would be fewer runs
    options = {"record": record, "attainable": record.attainable, "budget": budget, "clock": time.process_time}
    found = investigate(case.document, data, state=file.read(), **options)
    file.keep(found.state)
    findings: dict[str, Any] = found.findings.as_dict()
    return findings


def _opinion(
    case: Case, found: Mapping[str, Any], effective: Sequence[Code], recommend: bool, seconds: float
) -> Opinion:
    """Return a diagnosis in short, with the effect of its first recommendation."""
    if not found["verdicts"]:
        raise RuntimeError(f"the diagnosis of case {case.name} has no verdict")
    first = found["recommendations"][0] if found["recommendations"] else None
    # of a sound run what an alarm recommends: where it is better, the run was not as good as the data allow
    aims = effective or [one["code"] for one in found["verdicts"][:1] if one["code"] not in QUIET]
    effect = _effect_of(case, first, aims) if first is not None and recommend and aims else None
    return Opinion(
        [verdict["code"] for verdict in found["verdicts"]],
        [verdict["confidence"] for verdict in found["verdicts"]],
        [suspect["code"] for suspect in found.get("suspects", ())],
        None if first is None else dict(first["patch"]),
        effect,
        seconds,
    )


def _effect_of(case: Case, first: Mapping[str, Any], aims: Sequence[Code]) -> dict[str, Any]:
    """Return what a recommendation does, in the measure of the fault that it is for, else of the first of `aims`."""
    run = trial(case.recipe, case.document)
    after = trial(case.recipe, merge_patch(case.document, first["patch"]))
    code = first["code"] if first.get("code") in aims else aims[0]
    return measured_effect(code, run, after).as_dict()

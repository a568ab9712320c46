"""The diagnosis of a run: the evidence of every cause in its record, what remains suspected, and recommendations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from trainkit.diagnose.calibration import OF_HEALTHY, OF_VERDICTS
from trainkit.diagnose.cause import Cause
from trainkit.diagnose.causes import CAUSES, CODES, EXPLAINS
from trainkit.diagnose.performance import Performance, performance
from trainkit.diagnose.rates import not_finite
from trainkit.diagnose.recommendations import RecommendedSpec, recommend
from trainkit.diagnose.record import Record
from trainkit.diagnose.trends import MIN_EVALUATIONS
from trainkit.diagnose.verdicts import EXPLAINS_FROM_CONFIDENCE, Code, Suspect, Verdict
from trainkit.spec.models import is_sklearn_model

RULESET_VERSION = 11
"""Increment when a rule, a threshold or a recommendation changes: it is part of the ETag of a diagnosis."""
SURE = 0.5
"""Least score of evidence, and least confidence of a verdict that stands behind another; weaker evidence makes a suspect."""
NAMED = 0.8
"""Least confidence of the main verdict: below it the run is `inconclusive`, with the causes among its suspects."""
LEAST_SUSPICION = 0.05
"""Least suspicion of a suspect that is listed."""
DOUBTFUL = 0.3
"""Suspicion from which on a run is not called healthy."""
MAX_SUSPECTS = 8
HARM = {"short": 1.0, "unknown": 0.8, "unclear": 0.5, "close": 0.1}
"""How likely something is wrong with a run by its attainment, at least: factor for the suspicion of causes that lower the
skill. The probability that the run is short of what is attainable counts where it is larger."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Verdicts, the main one first, suspects, the likeliest first, and recommended specs. `final` once the run has ended."""

    final: bool
    verdicts: list[Verdict]
    recommendations: list[RecommendedSpec]
    suspects: list[Suspect]

    def as_dict(self) -> dict[str, Any]:
        """Return plain data; floats may be NaN or infinite."""
        return {
            "final": self.final,
            "verdicts": [verdict.as_dict() for verdict in self.verdicts],
            "suspects": [suspect.as_dict() for suspect in self.suspects],
            "recommendations": [spec.as_dict() for spec in self.recommendations],
        }


@dataclass(frozen=True, slots=True)
class Findings:
    """What the causes say of a record before it is decided what is named.

    evidence: verdicts whose confidence is still the score of their rule, causes before symptoms; suspects: the others.
    """

    evidence: list[Verdict]
    suspects: list[Suspect]
    reached: Performance | None

    def rival(self, code: Code) -> float:
        """Return the suspicion of the likeliest other cause of which it may be a symptom."""
        return max((one.suspicion for one in self.suspects if code in EXPLAINS.get(one.code, ())), default=0.0)


def diagnose(record: Record) -> Diagnosis:
    """Look for the evidence of every cause in the record of a run.

    The score of the evidence becomes a probability (`calibration`). The main verdict is named from 0.8 on. Without one
    the run is `healthy` if it has been evaluated often enough, comes close to what is attainable, and nothing is
    suspected; else it is `inconclusive`.
    """
    with np.errstate(all="ignore"):  # a diverged run's numbers overflow, and comparisons with them come out right
        found = examine(record)
        verdicts, suspects = _named(record, found)
        if not verdicts:
            verdicts = [_without_evidence(record, found.reached, suspects)]
        if verdicts[0].code == "inconclusive":
            candidates: list[Verdict] = [Verdict(one.code, one.suspicion, None, one.why) for one in suspects]
        else:
            candidates = verdicts
        return Diagnosis(record.final, verdicts, recommend(record, candidates), suspects)


def possible_causes(record: Record) -> list[Cause]:
    """Return the causes that a run of this kind of model can have."""
    fitted_by_sklearn = is_sklearn_model(record.spec.model)
    return [cause for cause in CAUSES.values() if not (fitted_by_sklearn and cause.needs_training_curve)]


def order_by_cause(found: Sequence[Verdict]) -> list[Verdict]:
    """Return the verdicts, causes before symptoms and then by falling confidence, each with its `explained_by`.

    The depth of a verdict is the longest chain of causes of at least 0.5 confidence that leads to it.
    """
    sure = {one.code for one in found if one.confidence >= EXPLAINS_FROM_CONFIDENCE}

    def causes(code: Code) -> list[Code]:
        return [cause for cause in EXPLAINS if cause in sure and code in EXPLAINS[cause]]

    def depth(code: Code) -> int:
        return 1 + max((depth(cause) for cause in causes(code)), default=-1)

    annotated = [
        Verdict(v.code, v.confidence, v.since_epoch, v.message, {**v.evidence, "explained_by": causes(v.code)})
        for v in found
    ]
    return sorted(annotated, key=lambda v: (depth(v.code), -v.confidence, CODES.index(v.code)))


def examine(record: Record) -> Findings:
    """Return the evidence of every cause with a score of 0.5 or more, and what is suspected beside it."""
    reached = performance(record)
    attainment = "unknown" if reached is None else reached.attainment
    compared = reached is not None and reached.attainable is not None and not_finite(record) is None
    few = len(record.get("train_loss")) < MIN_EVALUATIONS
    young = few and not record.final
    short = max(HARM[attainment], HARM["unclear"] if few else 0.0, (reached.shortfall or 0.0) if reached else 0.0)
    evidence: list[Verdict] = []
    suspected: list[tuple[float, Cause, str]] = []
    for cause in possible_causes(record):
        seen = cause.evidence(record)
        harm = short if cause.lowers_skill else 1.0
        harmless = cause.lowers_skill and compared and attainment in ("close", "unclear")
        if seen is not None and seen.confidence >= SURE and not harmless:
            evidence.append(seen)
            continue
        suspicion = 0.0 if young else harm * cause.suspicion(record)
        if seen is not None:
            suspicion = max(suspicion, harm * seen.confidence)
        if suspicion >= LEAST_SUSPICION:
            suspected.append((round(suspicion, 3), cause, seen.message if seen is not None else cause.words))
    suspects = [
        Suspect(cause.code, suspicion, why, _settled_by(record, cause))
        for suspicion, cause, why in sorted(suspected, key=lambda one: -one[0])
    ]
    return Findings(order_by_cause(evidence), suspects, reached)


def _named(record: Record, found: Findings) -> tuple[list[Verdict], list[Suspect]]:
    """Return the verdicts, empty where the main one is not sure enough, and the suspects that no verdict explains.

    A validation loss that rises, for example, shows overfitting, unless the labels are wrong: where these are suspected,
    overfitting is less likely, and both may be suspects.
    """
    verdicts: list[Verdict] = []
    main: int | None = None
    for place, one in enumerate(found.evidence):
        rivals = [found.rival(one.code)]
        if main is None:  # causes that come before it, and are not sure enough to be named
            rivals += [other.confidence for other in verdicts if one.code in EXPLAINS.get(other.code, ())]
        confidence = OF_VERDICTS.probability(one.confidence, max(rivals))
        verdicts.append(replace(one, confidence=confidence, evidence={**one.evidence, "score": one.confidence}))
        main = place if main is None and confidence >= NAMED else main
    named = [] if main is None else [one for one in verdicts[main:] if one.confidence >= SURE]
    moved = [
        Suspect(one.code, one.confidence, one.message, _settled_by(record, CAUSES[one.code]))
        for one in verdicts
        if one not in named
    ]
    explained = {code for one in named for code in (one.code, *EXPLAINS.get(one.code, ()))}
    suspects = [one for one in [*moved, *found.suspects] if one.code not in explained]
    return named, sorted(suspects, key=lambda one: -one.suspicion)[:MAX_SUSPECTS]


def _settled_by(record: Record, cause: Cause) -> list[str]:
    return list(dict.fromkeys(one.name for one in cause.interventions(record)))


def _without_evidence(record: Record, reached: Performance | None, suspects: Sequence[Suspect]) -> Verdict:
    """Return `healthy` where the run could have shown a fault and is as good as it can be, else `inconclusive`."""
    train, val = record.get("train_loss"), record.get("val_loss")
    by_sklearn = is_sklearn_model(record.spec.model)
    enough = by_sklearn or len(train) >= MIN_EVALUATIONS
    doubted = max((one.suspicion for one in suspects), default=0.0)
    attainment = "unknown" if reached is None else reached.attainment
    healthy = enough and attainment == "close" and doubted < DOUBTFUL
    evidence = {
        "evaluations": len(train),
        "performance": None if reached is None else reached.as_dict(),
        "skill": record.final_skill,
        "baseline_loss": record.baseline,
        "last_train_loss": float(train.value[-1]) if len(train) else None,
        "best_val_loss": float(val.value.min()) if len(val) else None,
        "looked_for": [cause.code for cause in possible_causes(record)],
        "could_not_be_seen": [cause.code for cause in possible_causes(record) if not cause.observable(record)],
        "explained_by": [],
        "series": ["train_loss", "val_loss"],
    }
    since = int(train.epoch[0]) if len(train) else None
    parts = [_standing_text(reached)] if reached is not None else []
    if healthy:
        parts.insert(0, "No problem was found.")
        if by_sklearn:
            parts.append(f"scikit-learn fits {record.spec.model.kind}, so only faults of the data were looked for.")
        evidence["score"] = round(1 - doubted, 3)
        return Verdict("healthy", OF_HEALTHY.probability(1 - doubted), since, " ".join(parts), evidence)
    if not len(train) and reached is None:
        message = "Nothing has been measured yet. The spec and the dataset show no problem."
        return Verdict("inconclusive", 0.0, since, message, evidence)
    parts.insert(0, "The record does not tell whether something is wrong.")
    if not enough:
        parts.append(f"{len(train)} evaluations are too few to tell; {MIN_EVALUATIONS} are needed.")
    if suspects:
        parts.append(f"Suspected: {', '.join(one.code for one in suspects[:3])}.")
    names = list(dict.fromkeys(name for one in suspects[:3] for name in one.settled_by))
    if names:
        parts.append(f"Short runs would tell: {', '.join(names[:5])}.")
    return Verdict("inconclusive", round(doubted, 3), since, " ".join(parts), evidence)


def _standing_text(reached: Performance) -> str:
    """Return a sentence about the metric of the run against what is attainable."""
    size = f"{reached.samples} validation samples" if reached.samples != 1 else "1 validation sample"
    text = f"{reached.metric} is {reached.value:.3g} on {size} (95 % interval {reached.low:.3g} to {reached.high:.3g})"
    reference = reached.attainable
    if reference is None:
        rest = (
            "far above chance," if reached.attainment == "close" else "and what is attainable is not known; chance is"
        )
        return f"{text}, {rest} {reached.chance:.3g}."
    return f"{text}; {reference.reference} reaches {reference.value:.3g} ({reference.low:.3g} to {reference.high:.3g})."

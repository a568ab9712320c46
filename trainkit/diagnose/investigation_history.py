"""Changes that an investigation can try, the variants that were trained, and what each change did."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
from pydantic import ValidationError

from trainkit.diagnose.cause import Intervention
from trainkit.diagnose.causes import CAUSES
from trainkit.diagnose.causes.class_imbalance import UNBALANCED
from trainkit.diagnose.diagnosis import diagnose
from trainkit.diagnose.paired import PairedEffect, holm
from trainkit.diagnose.record import Record
from trainkit.diagnose.sample_scores import SampleScores, gain, gain_over_folds, variance_of_seeds
from trainkit.diagnose.spec_changes import Patch
from trainkit.diagnose.verdicts import Code
from trainkit.spec import JobSpec, ResolvedSpec, SpecError, resolve
from trainkit.spec.patch import merge_patch

Kind = Literal["base", "change", "combination", "confirmation", "control", "folds"]
BASE, AGAIN, STANDARD = "base", "base-seed", "all-usual"
WITHOUT_COPIES, WITH_COPIES = "without_copies", "with_copies"
"""The change that drops copies from training, and its control: copies, and as few training samples."""
USUAL_GAIN, USUAL_GAIN_OF_EFFORT = 0.03, 0.08
"""Skill that a change may gain in a sound run: of an unusual setting made usual, and of any other, which is an effort."""
MATERIAL = 0.04
"""Gain of skill from which on a change is a repair; of an effort twice as much."""
ROOM = 0.15
"""What a base leaves of a perfect skill, below which an unusual setting made usual is to gain a share of it only."""
NOT_SHORT = 2.5
"""Times the usual gain that is asked for where the base is better than every reference: it can hardly have been harmed."""
WIDE = 0.15
"""Skill: a change whose interval reaches this far may be a repair that these samples cannot show."""
SIGNIFICANT = 0.05
ONE_SIDED = 1.645
SYMPTOM = 0.3
"""Of the confidence of a verdict in the record that another one explains; 0.7 of others."""
TARGETED = 0.6
"""Probability of repair from which on a change is a cause's own."""
DATA_CAUSES: frozenset[Code] = frozenset(
    {"class_imbalance", "leakage", "distribution_mismatch", "validation_too_small", "label_noise"}
)
"""Causes in the data, which have measures of their own; the others are told apart by what repairs the run."""
MATERIAL_RECALL = 0.06
"""Gain of the mean recall from which on balancing repairs a run."""
FEW_OF_A_CLASS = 5
MOST_SEEDS = 5
"""Seeds that a variant is trained with, the submitted one among them."""
FOLDS, ROUNDS = 3, 2
"""Folds that validate all samples but the test part once, and how often they are cut anew while that may decide."""
OTHER_SPLIT = ("larger_validation", "random_split")
"""Changes of the validation part itself: their runs cannot be paired with the base."""


@dataclass(frozen=True, slots=True)
class InvestigationBudget:
    """Limits of an investigation; None is no limit. With `jobs` alone the same input gives the same findings, bit for bit."""

    seconds: float | None = 60.0
    """Of training, by the clock. A variant is started only if it is expected to end within the limit."""
    jobs: int | None = None
    """Number of variants, the base included."""


@dataclass(frozen=True, slots=True)
class TriedChange:
    """An intervention as it is tried: its causes, each with the probability that it repairs a run that has it.

    `room`: share of ROOM that the base leaves to be gained, at most 1, since nothing gains 0.03 of a skill of 0.98; or
    NOT_SHORT.
    """

    name: str
    patch: Patch
    measure: str
    why: str
    causes: Mapping[Code, float]
    undoes: bool
    room: float = 1.0

    @property
    def cause(self) -> Code:
        """The cause that it answers best."""
        return max(self.causes, key=lambda code: (self.causes[code], code))

    @property
    def usual_gain(self) -> float:
        """Skill that it may gain in a sound run."""
        return USUAL_GAIN * self.room if self.undoes else USUAL_GAIN_OF_EFFORT

    @property
    def material_gain(self) -> float:
        """Gain of skill from which on it is a repair."""
        return MATERIAL * self.room if self.undoes else 2 * MATERIAL

    @property
    def targeted(self) -> frozenset[Code]:
        """The causes that it is expected to repair; others it repairs by the way."""
        return frozenset(code for code, repairs in self.causes.items() if repairs >= TARGETED)


@dataclass(frozen=True, slots=True)
class Variant:
    """One run of an investigation. `changes` are the names of the interventions in `patch`; `share` is the part of the
    base's training samples and epochs that it is trained on."""

    name: str
    document: dict[str, Any]
    kind: Kind = "change"
    patch: Patch = field(default_factory=dict)
    cause: Code | None = None
    measure: str = "val_loss"
    share: float = 1.0
    changes: tuple[str, ...] = ()
    why: str = ""

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            "name": self.name,
            "kind": self.kind,
            "document": self.document,
            "patch": self.patch,
            "cause": self.cause,
            "measure": self.measure,
            "share": self.share,
            "changes": list(self.changes),
            "why": self.why,
        }

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Variant:
        """What `as_dict` gave."""
        return cls(**{**stored, "changes": tuple(stored["changes"])})


@dataclass(frozen=True, slots=True)
class VariantResult:
    """A variant that has been trained: `succeeded`, or `failed` with its error.

    metrics: `val_loss`, `test_accuracy` ... of the kept weights, with standard errors, and `train_samples`. scores: of
    the validation samples; None without a model. series: name -> {epoch, value}. artifact: the folder of the trained weights.
    """

    variant: Variant
    state: Literal["succeeded", "failed"]
    metrics: Mapping[str, float] = field(default_factory=dict)
    scores: SampleScores | None = None
    seconds: float = 0.0
    series: Mapping[str, Mapping[str, list[float]]] = field(default_factory=dict)
    error: Mapping[str, Any] | None = None
    artifact: str | None = None

    @property
    def diverged(self) -> bool:
        """Whether its training gave no model; what failed for another reason (memory, time) says nothing of its change."""
        return self.error is not None and self.error.get("code") == "loss_not_finite"

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            "variant": self.variant.as_dict(),
            "state": self.state,
            "metrics": dict(self.metrics),
            "scores": None if self.scores is None else self.scores.as_dict(),
            "seconds": self.seconds,
            "series": {name: dict(one) for name, one in self.series.items()},
            "error": None if self.error is None else dict(self.error),
            "artifact": self.artifact,
        }

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> VariantResult:
        """What `as_dict` gave."""
        scores = stored["scores"]
        return cls(
            **{
                **stored,
                "variant": Variant.from_dict(stored["variant"]),
                "scores": None if scores is None else SampleScores.from_dict(scores),
            }
        )


@dataclass(frozen=True, slots=True)
class Tested:
    """What a change did: the runs that are compared, its effect on its own measure and on the skill.

    p_value: of the skill's gain, corrected for the number of changes tried (Holm).
    """

    change: TriedChange
    before: VariantResult
    after: VariantResult
    effect: PairedEffect
    skill: PairedEffect
    skill_of_samples: PairedEffect
    p_value: float = 1.0
    measure_p_value: float = 1.0

    @property
    def sampling_z(self) -> float:
        """Gain of skill over its standard error by the samples alone, of the runs with the submitted seed."""
        return self.skill_of_samples.gain / max(self.skill_of_samples.se, 1e-9)

    @property
    def helped(self) -> bool:
        """Whether it gained skill beyond noise and by more than a sound run does."""
        return self.p_value < SIGNIFICANT and self.skill.gain >= self.change.material_gain

    @property
    def helped_by_itself(self) -> bool:
        """The same where this is the only change that is asked about."""
        return self.skill.low > 0 and self.skill.gain >= self.change.material_gain

    @property
    def probably_helped(self) -> bool:
        """The same with a one-sided level of 5 %: of an unusual setting that was suspected the direction is known."""
        return self.skill.gain > ONE_SIDED * self.skill.se and self.skill.gain >= self.change.material_gain

    @property
    def hurt(self) -> bool:
        """Whether it lost skill beyond noise."""
        return self.p_value < SIGNIFICANT and self.skill.gain < 0


class InvestigationHistory:
    """The results of an investigation, and what follows from them."""

    def __init__(
        self, record: Record, results: Sequence[VariantResult], budget: InvestigationBudget | None = None
    ) -> None:
        self.record, self.results = record, list(results)
        self.budget = budget or InvestigationBudget()
        self.document = dict(record.document if record.document is not None else record.spec.model_dump(mode="json"))
        self.by_name = {result.variant.name: result for result in self.results}

    @cached_property
    def priors(self) -> dict[Code, float]:
        """Cause -> weight before any experiment: what the record shows, what it makes suspect, unusual settings."""
        found = diagnose(self.record)
        weights: dict[Code, float] = {}
        for code, interventions in self._interventions.items():
            weights[code] = 0.25 if any(one.undoes for one in interventions) else 0.04
        for suspect in found.suspects:
            weights[suspect.code] = max(weights.get(suspect.code, 0.0), 0.5 * suspect.suspicion)
        for verdict in found.verdicts:
            if verdict.code not in ("healthy", "inconclusive"):
                factor = SYMPTOM if verdict.evidence.get("explained_by") else 0.7
                weights[verdict.code] = max(weights.get(verdict.code, 0.0), factor * verdict.confidence)
        return weights

    @cached_property
    def _interventions(self) -> dict[Code, list[Intervention]]:
        return {code: list(cause.interventions(self.record)) for code, cause in CAUSES.items()}

    @cached_property
    def changes(self) -> list[TriedChange]:
        """All changes that fit the dataset, the most likely repair first; one for each different patch."""
        found: dict[str, TriedChange] = {}
        for code, interventions in self._interventions.items():
            for one in interventions:
                old = found.get(one.name)
                causes = {**(old.causes if old else {}), code: one.repairs}
                undoes = one.undoes or (old is not None and old.undoes)
                found[one.name] = TriedChange(one.name, one.patch, one.measure, one.why, causes, undoes, self._room)
        fitting = [change for change in found.values() if self.changed(change.patch) is not None]
        return sorted(fitting, key=lambda change: (-self._promise(change), change.name))

    @property
    def _room(self) -> float:
        bases = [r.scores for r in self.results if r.variant.kind == "base" and r.scores is not None]
        if not bases:
            return 1.0
        attainable = self.record.reference
        if attainable is not None and bases[-1].value(f"val_{attainable.metric}") > attainable.value:
            return NOT_SHORT
        return min(1.0, max(0.05, (1 - max(one.skill for one in bases)) / ROOM))

    def _promise(self, change: TriedChange) -> float:
        return sum(self.priors.get(code, 0.0) * repairs for code, repairs in change.causes.items())

    def changed(self, patch: Patch) -> ResolvedSpec | None:
        """The resolved document with a patch; None where it is invalid, does not fit the dataset, or changes nothing."""
        document = merge_patch(self.document, patch)
        try:
            if patch and JobSpec.model_validate(document) == JobSpec.model_validate(self.document):
                return None
            return resolve(document, self.record.facts)
        except (ValidationError, SpecError):
            return None

    @property
    def base_is_broken(self) -> bool:
        """Whether the base failed for another reason than a loss that is not finite, as every variant would."""
        base = next((r for r in self.results if r.variant.kind == "base"), None)
        return base is not None and base.error is not None and base.error.get("code") != "loss_not_finite"

    def combination_helped(self, name: str, beside: str = BASE) -> bool:
        """Whether a combination gained skill beyond noise over the base, or over the run `beside`."""
        effect = self.combination_effect(name, beside)
        return effect is not None and effect.low > 0 and effect.gain >= MATERIAL

    def combination_effect(self, name: str, beside: str = BASE) -> PairedEffect | None:
        """The gain of skill of one run over another, both at the working share; None where either is missing."""
        share = self.working_share
        before, after = self._result(beside, share), self._result(name, share)
        return None if before is None or after is None else self._gain("skill", before, after)

    @property
    def helpful_by_measure(self) -> list[Tested]:
        """Changes for causes in the data that gained beyond noise on the measure of their own."""
        return [
            one
            for one in self.tested.values()
            if set(one.change.causes) <= DATA_CAUSES and one.measure_p_value < SIGNIFICANT and one.effect.gain > 0
        ]

    @cached_property
    def working_share(self) -> float:
        """The largest share at which the base and at least one change have been trained."""
        shares = {r.variant.share for r in self.results if r.variant.kind == "change"}
        with_base = [share for share in shares if self._result(BASE, share) is not None]
        if with_base:
            return max(with_base)
        return max((r.variant.share for r in self.results if r.variant.kind == "base"), default=1.0)

    @cached_property
    def tested(self) -> dict[str, Tested]:
        """Name of a change -> what it did, at the largest share at which it was tried, with corrected p-values."""
        found = {}
        for change in self.changes:
            for share in sorted({r.variant.share for r in self.results}, reverse=True):
                if (tested := self._test(change, share)) is not None:
                    found[change.name] = tested
                    break
        names = [name for name, one in found.items() if one.change.name not in OTHER_SPLIT]
        weights = [0.02 + self._promise(found[name].change) for name in names]
        by_skill = holm([found[name].skill.p_value for name in names], weights)
        by_measure = holm([found[name].effect.p_value for name in names], weights)
        for name, p_value, adjusted in zip(names, by_skill, by_measure, strict=True):
            found[name] = replace(found[name], p_value=p_value, measure_p_value=adjusted)
        return found

    def _test(self, change: TriedChange, share: float) -> Tested | None:
        before, after = self._result(BASE, share), self._result(change.name, share)
        if before is None or after is None:
            return None
        if change.name in OTHER_SPLIT:
            none = PairedEffect(0.0, math.inf, -math.inf, math.inf, 1.0, 0)
            return Tested(change, before, after, none, none, none)
        effect = self._gain(change.measure, before, after)
        skill = self._gain("skill", before, after)
        samples = self._gain("skill", before, after, seeds=False)
        if effect is not None and skill is not None and change.undoes and change.measure == "val_loss":
            # probabilities may be worse where the predicted classes are not: a penalty keeps all of them near 1/2
            by_loss = self._of_constant_loss(effect)
            if by_loss is not None and by_loss.gain > 0:  # what hurts, hurts by the skill
                skill = max(skill, by_loss, key=lambda one: one.gain / max(one.se, 1e-9))
        return (
            None
            if effect is None or skill is None or samples is None
            else Tested(change, before, after, effect, skill, samples)
        )

    def _gain(
        self, measure: str, before: VariantResult, after: VariantResult, *, seeds: bool = True
    ) -> PairedEffect | None:
        """The effect between two variants of one share: over the folds where both have such runs, else with their seeds.

        Folds have more validation samples, and each has a seed of its own. `seeds=False`: of these two runs alone, by the
        samples alone.
        """
        one, other = self.scores_of(before), self.scores_of(after)
        if one is None or other is None:
            return None
        if not seeds:
            if measure == "skill":
                one, other = one.at_least_constant, other.at_least_constant
            return gain(measure, [one], [other])
        sides = [self._of_seeds(result, measure) for result in (before, after)]
        spread = spread_of_seeds(measure, [list(side.values()) for side in sides])
        if folds := self.in_folds(before, after, measure):
            return gain_over_folds(measure, folds, spread)
        pairs = [(sides[0][seed], sides[1][seed]) for seed in sides[0] if seed in sides[1]]
        return gain(measure, [pair[0] for pair in pairs], [pair[1] for pair in pairs], spread)

    def _of_constant_loss(self, effect: PairedEffect) -> PairedEffect | None:
        """A gain of loss as a share of the loss of a constant prediction, which is skill by the logarithmic score.

        None where that loss is 0, or not known.
        """
        base = self.base
        constant = 0.0 if base is None or base.scores is None else float(base.scores.constant().loss.mean())
        if constant <= 0:
            return None
        gain, se, low, high = (value / constant for value in (effect.gain, effect.se, effect.low, effect.high))
        return replace(effect, gain=gain, se=se, low=low, high=high)

    def _of_seeds(self, result: VariantResult, measure: str) -> dict[int, SampleScores]:
        """Number of the seed, 0 for the submitted one -> the scores of the same variant."""
        name, found = result.variant.name.split("@")[0], {}
        for seed in range(MOST_SEEDS):
            run = result if seed == 0 else self._result(of_seed(name, seed), result.variant.share)
            scores = None if run is None else self.scores_of(run)
            if scores is not None:
                found[seed] = scores.at_least_constant if measure == "skill" else scores
        return found

    def fold_scores(self, result: VariantResult, measure: str = "") -> dict[int, SampleScores]:
        """Number of the fold, those of the second round behind those of the first -> the scores of the same variant."""
        name, found = result.variant.name.split("@")[0], {}
        for fold in range(FOLDS * ROUNDS):
            run = self._result(fold_name(name, fold), result.variant.share)
            scores = None if run is None else run.scores
            if scores is not None:
                found[fold] = scores.at_least_constant if measure == "skill" else scores
        return found

    def in_folds(
        self, before: VariantResult, after: VariantResult, measure: str
    ) -> list[list[tuple[SampleScores, SampleScores]]]:
        """Of each round the pairs of runs on the same fold; a second round only once it is whole."""
        one, other = (self.fold_scores(result, measure) for result in (before, after))
        both = one.keys() & other.keys()
        rounds = [
            [(one[fold], other[fold]) for fold in range(number * FOLDS, (number + 1) * FOLDS) if fold in both]
            for number in range(ROUNDS)
        ]
        return [pairs for number, pairs in enumerate(rounds) if pairs and (not number or len(pairs) == FOLDS)]

    def values(self, tested: Tested, measure: str) -> tuple[float, float]:
        """The measure before and after a change, of the runs that its effect is of."""
        if folds := self.in_folds(tested.before, tested.after, measure):
            before, after = (SampleScores.joined(side) for side in zip(*folds[0], strict=True))
            return before.value(measure), after.value(measure)
        seeds = [self._of_seeds(result, "") for result in (tested.before, tested.after)]
        if both := seeds[0].keys() & seeds[1].keys():
            means = [float(np.mean([side[seed].value(measure) for seed in both])) for side in seeds]
            return means[0], means[1]
        one, other = (self.scores_of(result) for result in (tested.before, tested.after))
        assert one is not None
        assert other is not None
        return one.value(measure), other.value(measure)

    def scores_of(self, result: VariantResult) -> SampleScores | None:
        """The samples' scores of a run; a run that diverged counts as a constant prediction."""
        if result.scores is not None:
            return result.scores
        if not result.diverged:
            return None
        known = next((r.scores for r in self.results if r.scores is not None and _same_parts(r, result)), None)
        return None if known is None else known.constant()

    @property
    def base(self) -> VariantResult | None:
        """The base at the working share."""
        return self._result(BASE, self.working_share)

    @property
    def _comparable(self) -> list[VariantResult]:
        """Runs with scores at the working share on the base's own validation part, with the submitted seed."""
        return [
            r
            for r in self.results
            if r.scores is not None
            and r.variant.share == self.working_share
            and r.variant.kind in ("base", "change", "combination")
            and not set(r.variant.changes) & set(OTHER_SPLIT)
        ]

    @property
    def by_skill(self) -> list[VariantResult]:
        """The runs that can be compared, the one with the largest skill first."""
        return sorted(self._comparable, key=lambda result: -skill_of(result))

    @property
    def best(self) -> VariantResult | None:
        """The run with the largest skill of those that can be compared."""
        return next(iter(self.by_skill), None)

    @property
    def inflation(self) -> PairedEffect | None:
        """How much better validation looks by copies: the run with them over that without, of as many training samples.

        None where one of the two was not trained. On the samples that both validate, by accuracy or R^2.
        """
        measure = "val_accuracy" if self.record.classification else "val_r2"
        without, control = (self._result(name, self.share_of_copies) for name in (WITHOUT_COPIES, WITH_COPIES))
        return None if without is None or control is None else self._gain(measure, without, control, seeds=False)

    @property
    def share_of_copies(self) -> float:
        """The largest share at which the base and the run without copies were trained: that run is seldom promising."""
        shares = sorted({r.variant.share for r in self.results}, reverse=True)
        both = [share for share in shares if self._result(BASE, share) and self._result(WITHOUT_COPIES, share)]
        return both[0] if both else self.working_share

    def confirmation(self, name: str) -> tuple[VariantResult, VariantResult] | None:
        """(base, changed run) with another seed."""
        share = self.working_share
        before, after = self._result(AGAIN, share), self._result(f"{name}-seed", share)
        return None if before is None or after is None else (before, after)

    def is_repeated(self, tested: Tested) -> bool:
        """Whether its effect is of folds, or of three seeds or more."""
        share, name = tested.after.variant.share, tested.change.name
        folds = any(self._result(fold_name(name, fold), share) for fold in range(FOLDS))
        return folds or self._result(of_seed(name, 2), share) is not None

    def confirmed(self, name: str, measure: str) -> PairedEffect | None:
        """The effect of a change over folds or several seeds; with one more seed that of the runs with it alone."""
        tested, runs = self.tested.get(name), self.confirmation(name)
        if tested is not None and self.is_repeated(tested):
            return self._gain(measure, tested.before, tested.after)
        return None if runs is None else self._gain(measure, *runs, seeds=False)

    @property
    def best_balancing(self) -> Tested | None:
        """The change for classes of unequal size that gained most of the mean recall."""
        tested = [one for one in self.tested.values() if "class_imbalance" in one.change.targeted]
        return max(tested, key=lambda one: (one.effect.low, one.effect.gain, one.change.name), default=None)

    @property
    def unlearnt_class(self) -> bool:
        """Whether a class is never predicted rightly, by the base on its validation part and on the folds."""
        scores = [] if self.base is None or self.base.scores is None else [self.base.scores]
        scores += [] if self.base is None else self.fold_scores(self.base).values()
        if not scores or scores[0].predicted is None:
            return False
        truth, correct = (np.concatenate([getattr(one, name) for one in scores]) for name in ("truth", "correct"))
        return any(not correct[truth == name].any() for name in np.unique(truth))

    @property
    def recall_gap(self) -> tuple[float, float, float] | None:
        """(recall of small classes together, that of the others, its standard error) of the base over all three folds.

        Small are classes of at most a fifth of the largest one's samples. None without folds, or without such classes.
        """
        folds = {} if self.base is None else self.fold_scores(self.base)
        counts = np.array(list(self.record.classes.values()))
        if not {*range(FOLDS)} <= folds.keys() or not len(counts):
            return None
        scores = SampleScores.joined([folds[fold] for fold in range(FOLDS)])
        inside = np.isin(scores.truth, np.flatnonzero(counts * UNBALANCED <= counts.max()))
        if scores.predicted is None or not inside.any() or inside.all():
            return None
        low, n = float(scores.correct[inside].mean()), int(inside.sum())
        error = math.sqrt(max(low * (1 - low), 1 / (n + 2)) / n)
        return low, float(scores.correct[~inside].mean()), error

    @property
    def few_of_a_class(self) -> bool:
        """Whether a class has so few validation samples that they say next to nothing of its recall."""
        base = self.base
        if base is None or base.scores is None or base.scores.predicted is None:
            return False
        return int(np.unique(base.scores.truth, return_counts=True)[1].min()) < FEW_OF_A_CLASS

    def _result(self, name: str, share: float) -> VariantResult | None:
        return self.by_name.get(at_share(name, share))


def skill_of(result: VariantResult) -> float:
    return -math.inf if result.scores is None else result.scores.skill


def _same_parts(one: VariantResult, other: VariantResult) -> bool:
    return one.variant.patch.get("split") == other.variant.patch.get("split")


def spread_of_seeds(measure: str, sides: Sequence[Sequence[SampleScores]]) -> float:
    """The variance of the difference of two runs that differ by their seeds, pooled over two specs; 0 for one seed each."""
    found = [
        variance_of_seeds(measure, one, other)
        for side in sides
        for place, one in enumerate(side)
        for other in side[place + 1 :]
    ]
    return float(np.mean(found)) if found else 0.0


def of_seed(name: str, seed: int) -> str:
    """The name of a variant with the submitted seed, 0, or with one of those after it."""
    return name if seed == 0 else f"{name}-seed" if seed == 1 else f"{name}-seed-{seed}"


def fold_name(name: str, fold: int) -> str:
    """The name of a variant on a fold; those from FOLDS on are of the second round."""
    again = "" if fold < FOLDS else f"-again-{fold // FOLDS}"
    return f"{name}-fold-{fold % FOLDS + 1}-of-{FOLDS}{again}"


def at_share(name: str, share: float) -> str:
    return name if share == 1 else f"{name}@1-{round(1 / share)}"

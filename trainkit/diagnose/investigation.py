"""Investigation of a run by controlled experiment: which short runs to train next, from the history alone.

A variant is the submitted document with one change, trained on the same data with the same seed and epochs, and compared
with the base by pairs of validation samples. The plan depends on the record and the results alone, so an interrupted
investigation continues as it would have gone on. What the results say is decided in `findings.py`.

Stages, each only as far as the budget goes:
1. base: the document itself, whose predictions of single samples are needed.
2. screening: every change that could settle a cause, the most likely first, and the base again with another seed. Where
   all of them at full length do not fit, all are trained on a part of the samples or epochs first, and the better half on
   twice as much, and so on (successive halving, Jamieson and Talwalkar 2016).
3. control: copies, with as few training samples as the run without them has.
4. folds: balancing, where the small classes have too few validation samples to tell: base and change on three folds.
5. repetitions: the best changes with another seed, since seeds matter in some runs, and the best of many is flattered by
   chance.
6. votes: models of three folds say of each training label what they expected in its place.
7. combinations: what helped, with each change for another cause; where no single change helps, all unusual settings made
   usual at once, and then each of them left out, or pairs of the likeliest changes.
8. more folds: base and the best changes on three folds, and on three others, while it is open which cause it is, or
   whether there is one. All samples but the test part validate then, and each fold has a seed of its own.
9. more seeds: the same where samples cannot be cut into folds.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

from trainkit.diagnose.attribution import SUSPECTED, attribute
from trainkit.diagnose.investigation_history import (
    AGAIN,
    BASE,
    DATA_CAUSES,
    FOLDS,
    MATERIAL_RECALL,
    MOST_SEEDS,
    OTHER_SPLIT,
    ROUNDS,
    SIGNIFICANT,
    STANDARD,
    WITH_COPIES,
    WITHOUT_COPIES,
    InvestigationBudget,
    InvestigationHistory,
    Kind,
    Tested,
    TriedChange,
    Variant,
    VariantResult,
    at_share,
    fold_name,
    of_seed,
    skill_of,
    spread_of_seeds,
)
from trainkit.diagnose.label_votes import may_be_noise
from trainkit.diagnose.record import Record
from trainkit.diagnose.spec_changes import Patch
from trainkit.diagnose.verdicts import Code
from trainkit.spec import JobSpec, resolve
from trainkit.spec.estimate import estimate
from trainkit.spec.models import is_sklearn_model
from trainkit.spec.patch import merge_patch

SCREENING_SHARE = 0.55
"""Share of the seconds for which all changes are to be trained once."""
BASE_SHARE = 0.08
"""Share of the seconds that the first run may take by the estimate."""
LEAST_SHARE = 1 / 64
SMALL = 1000
"""Training samples: fewer are not divided; less than all is fewer epochs then."""
LEAST_EPOCHS = 2
KEPT = 0.5
"""Share of the changes that go on to the next rung."""
FEWEST_KEPT = 3
MOST_REPEATED = 3
MASKED_PRIOR = 0.15
"""Weight of a cause from which on its changes are tried in pairs where none helps alone."""
MOST_MASKED = 4
DECIDED, LIKELY = 0.9, 0.1
"""Probability of a cause, or of none, from which on more seeds are not needed; and from which on a cause is in question."""
UNSTABLE = 0.03
"""Standard deviation of the skill between seeds from which on suspected changes are tried with more of them."""
LEAST_TO_VOTE = 0.15
"""Skill from which on a model's votes on labels say something."""
PROMISING_Z = 1.0
"""Gain over its standard error from which on folds may show that a change helps."""
NAMED_BEFORE = 0.5
"""Weight of a cause that the record itself has named."""
LEAST_SUSPECTED = 0.1
"""Weight of `class_imbalance` from which on folds are worth their runs."""


def why_not_investigated(spec: JobSpec) -> str | None:
    """Return why runs of this spec are not investigated; None where they are."""
    if spec.model.kind == "ensemble" or is_sklearn_model(spec.model):
        return f"model.kind {spec.model.kind} has no training to vary; investigate a run of a network"
    if spec.train.monitor is None:
        return "split.validation is 0, and variants are compared on validation; give the split a validation part"
    return None


def next_variants(
    record: Record, results: Sequence[VariantResult], budget: InvestigationBudget | None = None
) -> list[Variant]:
    """Return the variants to train next, the first one first; empty once the investigation has ended.

    `record` is the run that is investigated; `results` are those of all variants so far, in their order. The list holds
    what can be trained without knowing more; asking again after each result gives the same order.
    """
    return _Plan(record, results, budget or InvestigationBudget()).next()


class _Plan(InvestigationHistory):
    """What to train next, from a history."""

    def next(self) -> list[Variant]:
        """The next variants that the budget allows."""
        if self.base_is_broken:
            return []
        stages = (
            self._base,
            self._screening,
            self._control,
            self._folds,
            self._repetitions,
            self._votes,
            self._combinations,
            self._more_folds,
            self._more_seeds,
        )
        for stage in stages:
            if found := self._affordable(stage()):
                return found
        return []

    def _affordable(self, variants: Sequence[Variant]) -> list[Variant]:
        waiting = [one for one in variants if one.name not in self.by_name]
        if self.budget.jobs is not None:
            waiting = waiting[: max(0, self.budget.jobs - len(self.results))]
        if self.budget.seconds is None:
            return waiting
        left = self.budget.seconds - sum(result.seconds for result in self.results)
        chosen = []
        for one in waiting:
            expected = self._expected_seconds(one)
            if expected <= left:
                chosen.append(one)
                left -= expected
        return chosen

    def _expected_seconds(self, variant: Variant) -> float:
        """Seconds by the base's own, in proportion to share and to the estimated cost of the change."""
        if self._unit is None:
            return 0.0  # the first run, which is trained in any case
        return self._unit * variant.share * self._cost(variant.patch)

    @cached_property
    def _unit(self) -> float | None:
        """Seconds of the base at full length, by its first run."""
        base = next((r for r in self.results if r.variant.kind == "base"), None)
        return None if base is None else base.seconds / base.variant.share

    def _cost(self, patch: Patch) -> float:
        """Estimated seconds of the changed run over those of the base."""
        changed = self.changed(patch) if patch else None
        if changed is None or self.record.resolved is None:
            return 1.0
        was = float(estimate(self.record.resolved, self.record.facts)["seconds"])
        now = float(estimate(changed, self.record.facts)["seconds"])
        return min(10.0, max(0.5, (now + 0.1) / (was + 0.1)))

    @cached_property
    def first_share(self) -> float:
        """Share of the base's training that its first run gets: all of it unless the estimate says it takes too long."""
        if self.budget.seconds is None or self.record.resolved is None:
            return 1.0
        seconds = float(estimate(self.record.resolved, self.record.facts)["seconds"])
        return _power_of_two(BASE_SHARE * self.budget.seconds / seconds if seconds > 0 else 1.0)

    @cached_property
    def rungs(self) -> list[float]:
        """Shares of the screening, ascending: one rung where all changes fit at full length."""
        if self.budget.seconds is None or self._unit is None:
            return [1.0]
        cost = sum(self._cost(change.patch) for change in self.changes) + 1
        share = _power_of_two(SCREENING_SHARE * self.budget.seconds / max(1e-9, cost * self._unit))
        return [share * 2**rung for rung in range(round(math.log2(1 / share)) + 1)]

    def _base(self) -> list[Variant]:
        return [] if self.results else [self._variant(BASE, "base", {}, self.first_share)]

    def _screening(self) -> list[Variant]:
        kept = self.changes
        for number, share in enumerate(self.rungs):
            if number:
                if not all(self._result(change.name, share / 2) for change in kept):
                    return []
                ranked = sorted(kept, key=lambda change: -self._rank(change, share / 2))
                count = max(FEWEST_KEPT, math.ceil(KEPT * len(kept)))
                if count >= len(kept) and number > 1:
                    count = FEWEST_KEPT
                kept = [change for change in kept if change in ranked[:count]]
            variants = [self._variant(BASE, "base", {}, share)]
            variants += [self._of_change(change, share) for change in kept]
            if not number:
                variants.append(self._again(share))
            waiting = [one for one in variants if one.name not in self.by_name]
            if waiting:
                # at a higher rung the base alone, without a change beside it, tells nothing
                return waiting if not number or len(self._affordable(waiting)) > 1 else []
        return []

    def _rank(self, change: TriedChange, share: float) -> float:
        tested = self._test(change, share)
        if tested is None:
            return -math.inf
        return max(one.gain / max(one.se, 1e-9) for one in (tested.effect, tested.skill))

    def _control(self) -> list[Variant]:
        """A run with copies that has as few training samples as that without: what is left between them is inflation."""
        share = self.share_of_copies
        base, without = self._result(BASE, share), self._result(WITHOUT_COPIES, share)
        samples = [None if one is None else one.metrics.get("train_samples") for one in (base, without)]
        if not samples[0] or not samples[1] or samples[1] >= samples[0]:
            return []
        patch: Patch = {"split": {"subsample": float(f"{samples[1] / samples[0]:.6g}")}}
        name = at_share(WITH_COPIES, share)
        why = "As few training samples as without copies, drawn at random."
        document = self._document(patch, share)
        if base is not None and (given := base.variant.document.get("split")) and isinstance(given, dict):
            part = (given.get("subsample") or 1.0) * samples[1] / samples[0]
            document = merge_patch(document, {"split": {"subsample": float(f"{part:.6g}")}})
        measure = "val_accuracy" if self.record.classification else "val_r2"
        return [Variant(name, document, "control", patch, "leakage", measure, share, (), why)]

    def _folds(self) -> list[Variant]:
        """Balancing on folds: together these validate all samples of the small classes, where one part has a few."""
        best = self.best_balancing
        if (
            best is None
            or self.priors.get("class_imbalance", 0.0) < LEAST_SUSPECTED
            or best.measure_p_value < SIGNIFICANT
            or (best.effect.gain < self._recall_worth_folds and not self.few_of_a_class)
        ):
            return []
        why = "The samples of the small classes are validated by folds: one validation part has too few of them."
        changes = {BASE: {}, best.change.name: best.change.patch}
        return self._on_folds(changes, range(FOLDS), why, "class_imbalance", "val_recall")

    @property
    def _recall_worth_folds(self) -> float:
        """Gain of recall on the one part from which on folds are asked: less where the record shows the fault."""
        return MATERIAL_RECALL / 2 if self.priors.get("class_imbalance", 0.0) >= NAMED_BEFORE else MATERIAL_RECALL

    def _on_folds(
        self,
        patches: Mapping[str, Patch],
        folds: Iterable[int],
        why: str,
        cause: Code | None = None,
        measure: str = "skill",
    ) -> list[Variant]:
        """Each variant on each fold; empty where the samples cannot be cut so."""
        share, split, seed = self.working_share, self.record.spec.split, self.record.spec.train.seed
        variants = []
        for fold in folds:
            cut: Patch = {"folds": FOLDS, "fold": fold % FOLDS}
            if fold >= FOLDS:
                cut["resample_seed"] = (
                    split.seed if split.resample_seed is None else split.resample_seed
                ) + fold // FOLDS
            other: Patch = {"split": cut, **({"train": {"seed": (seed + fold) % 2**31}} if fold else {})}
            for name, patch in patches.items():
                changed = _merged(patch, other)
                if self.changed(changed) is None:
                    return []
                label, document = at_share(fold_name(name, fold), share), self._document(changed, share)
                itself = self._result(name, share)
                changes = () if itself is None else itself.variant.changes
                variants.append(Variant(label, document, "folds", changed, cause, measure, share, changes, why))
        return variants

    def _combinations(self) -> list[Variant]:
        """Two faults at once: the winner with each change for another cause; or all unusual settings made usual."""
        if not self._room_for_more:
            return []
        found = attribute(self)
        share = self.working_share
        if found.winner is None:
            undoing = [change for change in self.changes if change.undoes]
            whole = self._combined(undoing, share, STANDARD) if len(undoing) > 1 else None
            if whole is not None and self._result(STANDARD, share) is None:
                return [whole]
            if whole is None or not self.combination_helped(STANDARD):
                return self._masked_pairs(share)
            if len(undoing) == 2:
                return []
            without = [
                self._combined([c for c in undoing if c is not left], share, f"{STANDARD}-but-{left.name}")
                for left in undoing
            ]
            return [one for one in without if one is not None]
        winner = found.winner.change
        others = [
            change
            for change in self.changes
            if change.name != winner.name
            and not change.targeted & winner.targeted
            and change.targeted
            and not change.targeted <= DATA_CAUSES
            and self._is_promising_beside(change)
        ]
        pairs = [self._combined([winner, other], share) for other in others[:4]]
        return [one for one in pairs if one is not None]

    def _masked_pairs(self, share: float) -> list[Variant]:
        """Pairs of the likeliest changes for different causes: two faults may hide each other's repair."""
        likely = [
            change
            for change in self.changes
            if change.targeted
            and not change.targeted <= DATA_CAUSES
            and any(self.priors.get(code, 0.0) >= MASKED_PRIOR for code in change.targeted)
        ][:MOST_MASKED]
        pairs = [
            self._combined([one, other], share)
            for place, one in enumerate(likely)
            for other in likely[place + 1 :]
            if not one.targeted & other.targeted
        ]
        return [one for one in pairs if one is not None]

    def _is_promising_beside(self, change: TriedChange) -> bool:
        tested = self.tested.get(change.name)
        helped = tested is not None and tested.helped and change.undoes
        return change.undoes or helped or any(self.priors.get(code, 0.0) >= 0.3 for code in change.targeted)

    @property
    def _room_for_more(self) -> bool:
        """Whether the best run is short of what is attainable; where that is unknown, of a skill of 0.9."""
        best = max((result for result in self._comparable), key=lambda r: skill_of(r), default=None)
        if best is None or best.scores is None:
            return True
        attainable = self.record.reference
        if attainable is None:
            return best.scores.skill < 0.9
        value: float = best.scores.value(f"val_{attainable.metric}")
        return value < attainable.low

    def _combined(self, changes: Sequence[TriedChange], share: float, name: str = "") -> Variant | None:
        patch: Patch = {}
        for change in changes:
            if _conflict(patch, change.patch):
                return None
            patch = _merged(patch, change.patch)
        if self.changed(patch) is None:
            return None
        names = tuple(change.name for change in changes)
        why = " ".join(change.why for change in changes)
        label = at_share(name or "+".join(names), share)
        document = self._document(patch, share)
        return Variant(label, document, "combination", patch, None, "skill", share, names, why)

    def _repetitions(self) -> list[Variant]:
        """With another seed: the change that would be recommended, and those that look as good."""
        winner = attribute(self).winner
        chosen = [] if winner is None else [winner.change]
        chosen += [one.change for one in self.helpful_by_measure][:1]
        # where seeds matter, more runs tell whether a change helps; what the samples alone would show is worth them
        promising = [
            one
            for one in self.tested.values()
            if one.change.name not in OTHER_SPLIT
            and one.sampling_z > 2
            and one.skill.gain >= one.change.material_gain
            and (winner is None or one.skill.gain > 0.8 * winner.skill.gain)
        ]
        ranked = sorted(promising, key=lambda one: (-self._promise(one.change) * one.skill.gain, one.change.name))
        chosen += [one.change for one in ranked if one.change.name not in [c.name for c in chosen]]
        return self._with_seed(chosen[: MOST_REPEATED if winner is None else 2], 1)

    def _more_folds(self) -> list[Variant]:
        """The base and what is in question on three folds, then on three others, as long as that may decide."""
        base = self.base
        if base is None or base.scores is None or not (chosen := self._in_question()):
            return []
        why = "All samples but the test part validate, by folds, each with another seed."
        patches = {BASE: {}, **{change.name: change.patch for change in chosen}}
        for number in range(ROUNDS):
            variants = self._on_folds(patches, range(number * FOLDS, (number + 1) * FOLDS), why)
            if any(one.name not in self.by_name for one in variants):
                return variants
        return []

    def _in_question(self) -> list[TriedChange]:
        """The best change of each likely cause, then others that may help, where it is not decided; at most three."""
        found = attribute(self)
        winner = found.winner
        if winner is not None and winner.helped and found.posterior[found.code] >= DECIDED:
            return []
        likely = sorted(
            ((p, code) for code, p in found.posterior.items() if code != "none" and p >= LIKELY), reverse=True
        )
        best = [one for _, code in likely if (one := self._best_change(code)) is not None]
        # ... and of what was suspected before, if the validation part cannot exclude it
        suspected = [self._best_change(code) for code, weight in self.priors.items() if weight >= SUSPECTED]
        best += [one for one in suspected if one is not None and one.skill.high >= one.change.material_gain]
        others = [
            one
            for one in self.tested.values()
            if one.change.name not in OTHER_SPLIT
            and not set(one.change.causes) <= DATA_CAUSES
            and one.skill.gain >= one.change.material_gain / 2
            and one.skill.gain > PROMISING_Z * one.skill.se
        ]
        best += sorted(others, key=_by_gain)
        return [one.change for one in {one.change.name: one for one in best}.values()][:MOST_REPEATED]

    def _more_seeds(self) -> list[Variant]:
        """The base and the best change of each likely cause with one more seed, as long as that may decide."""
        found, base = attribute(self), self.base
        if base is None or self.by_name.get(at_share(AGAIN, self.working_share)) is None:
            return []
        if self._on_folds({BASE: {}}, range(FOLDS), ""):
            return []  # which tell more
        known = self._of_seeds(base, "skill")
        open_causes = [code for code, p in found.posterior.items() if code != "none" and p >= LIKELY]
        if seeds_matter := spread_of_seeds("skill", [list(known.values())]) > 2 * UNSTABLE**2:
            open_causes += [code for code, weight in self.priors.items() if weight >= SUSPECTED]
        sure = max(found.posterior.values()) >= DECIDED and not (found.winner is None and seeds_matter)
        best = [self._best_change(code) for code in dict.fromkeys(open_causes)]
        ranked = sorted({one.change.name: one for one in best if one is not None}.values(), key=_by_gain)
        if sure or not ranked:
            return []
        chosen = [one.change for one in ranked[:MOST_REPEATED]]
        for seed in range(1, MOST_SEEDS):
            variants = self._with_seed(chosen, seed)
            if any(one.name not in self.by_name for one in variants):
                return variants
        return []

    def _best_change(self, code: Code) -> Tested | None:
        tested = [one for one in self.tested.values() if code in one.change.targeted and code not in DATA_CAUSES]
        return min(tested, key=_by_gain, default=None)

    def _with_seed(self, changes: Sequence[TriedChange], seed: int) -> list[Variant]:
        """The base and these changes with one of the seeds after the submitted one; empty without changes."""
        share, variants = self.working_share, []
        other: Patch = {"train": {"seed": (self.record.spec.train.seed + seed) % 2**31}}
        for change in changes:
            patch = _merged(change.patch, other)
            document, name = self._document(patch, share), at_share(of_seed(change.name, seed), share)
            why = f"{change.why} With another seed."
            variants.append(
                Variant(name, document, "confirmation", patch, change.cause, change.measure, share, (change.name,), why)
            )
        return [self._again(share, seed), *variants] if variants else []

    def _votes(self) -> list[Variant]:
        """Three folds of the best run, where its errors may be wrong labels."""
        best = max(self._comparable, key=skill_of, default=None)
        if not self.record.classification or best is None or not may_be_noise(best.scores, self.priors):
            return []
        if skill_of(best) < LEAST_TO_VOTE:
            return []  # votes of models that know nothing
        winner = attribute(self).winner
        if (
            winner is not None
            and winner.change.targeted != {"overfitting"}
            and self.priors.get("label_noise", 0.0) < 0.2
        ):
            return []  # another fault explains the errors
        why = "A model that has not seen a label says what it expected in its place."
        name = best.variant.name.split("@")[0]
        return self._on_folds({name: best.variant.patch}, range(FOLDS), why, "label_noise", "val_accuracy")

    def _of_change(self, change: TriedChange, share: float) -> Variant:
        document = self._document(change.patch, share)
        name = at_share(change.name, share)
        return Variant(
            name, document, "change", change.patch, change.cause, change.measure, share, (change.name,), change.why
        )

    def _again(self, share: float, seed: int = 1) -> Variant:
        patch: Patch = {"train": {"seed": (self.record.spec.train.seed + seed) % 2**31}}
        why = "The same spec with another seed: how much of a difference is chance."
        name = at_share(of_seed(BASE, seed), share)
        return Variant(name, self._document(patch, share), "confirmation", patch, None, "skill", share, (), why)

    def _variant(self, name: str, kind: Kind, patch: Patch, share: float) -> Variant:
        return Variant(at_share(name, share), self._document(patch, share), kind, patch, None, "skill", share)

    def _document(self, patch: Patch, share: float) -> dict[str, Any]:
        """The document with a patch, trained on `share`: fewer samples where there are many, then fewer epochs."""
        document: dict[str, Any] = merge_patch(self.document, patch)
        if share == 1:
            return document
        samples = max(1, self.record.parts[0])
        part = max(share, min(1.0, SMALL / samples))
        shortened: Patch = {}
        if part < 1:
            given = self.record.spec.split.subsample or 1.0
            shortened["split"] = {"subsample": float(f"{given * part:.6g}")}
        if part > share:
            epochs = resolve(document, self.record.facts).spec.train.epochs
            shortened["train"] = {"epochs": max(min(LEAST_EPOCHS, epochs), round(epochs * share / part))}
        return dict(merge_patch(document, shortened))


def _by_gain(tested: Tested) -> tuple[float, str]:
    return -tested.skill.gain, tested.change.name


def _power_of_two(share: float) -> float:
    """The largest power of two up to `share`, from LEAST_SHARE to 1."""
    if share >= 1:
        return 1.0
    return max(LEAST_SHARE, 2.0 ** math.floor(math.log2(share))) if share > 0 else LEAST_SHARE


def _merged(one: Patch, other: Patch) -> Patch:
    """Both patches in one; they must not conflict."""
    merged = dict(one)
    for key, value in other.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merged(merged[key], value) if both else value
    return merged


def _conflict(one: Patch, other: Patch) -> bool:
    """Whether two patches set the same field to different values."""
    for key, value in other.items():
        if key not in one:
            continue
        if isinstance(value, dict) and isinstance(one[key], dict):
            if _conflict(one[key], value):
                return True
        elif value != one[key]:
            return True
    return False

"""What an investigation has found: verdicts, changes that helped and that hurt with their measured effects."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from trainkit.diagnose.attribution import Attribution, Key, attribute
from trainkit.diagnose.calibration import OF_INVESTIGATIONS
from trainkit.diagnose.causes import CAUSES, EXPLAINS
from trainkit.diagnose.causes.class_imbalance import UNBALANCED
from trainkit.diagnose.causes.leakage import LEAST_INFLATION
from trainkit.diagnose.causes.overfitting import LARGE_RISE
from trainkit.diagnose.diagnosis import DOUBTFUL, NAMED, diagnose, order_by_cause
from trainkit.diagnose.held_out_data import LEAST_DIFFERENCE, SIGNIFICANT_ERRORS
from trainkit.diagnose.investigation_history import (
    DATA_CAUSES,
    FOLDS,
    MATERIAL,
    MATERIAL_RECALL,
    OTHER_SPLIT,
    SIGNIFICANT,
    STANDARD,
    WIDE,
    WITHOUT_COPIES,
    InvestigationBudget,
    InvestigationHistory,
    Tested,
    TriedChange,
    VariantResult,
)
from trainkit.diagnose.label_votes import LabelVotes, count_votes
from trainkit.diagnose.measured_change import MeasuredChange, Measurement
from trainkit.diagnose.record import Record
from trainkit.diagnose.variant_metrics import gap_closes, gap_to_test, rise_after_best
from trainkit.diagnose.verdicts import Code, Verdict, graded_confidence

MATERIAL_ABSOLUTE = 0.03
"""Share of the mean absolute error from which on a loss that outliers do not decide repairs a run."""
LEAST_CONFIDENCE = 0.5
"""A cause that the experiments leave less likely than this is a suspect, and no verdict."""
POSSIBLE = 0.05
"""Probability from which on a cause is a suspect of an investigation that does not decide."""
NEARLY = 0.7
"""Suspicion from which on outliers are kept as a verdict, unless the runs exclude them."""
FEWEST_SAMPLES = 20
"""Validation samples below which a change that did not help contradicts nothing."""
UNCONFIRMED = 0.75
"""Of the confidence of the record's main verdict where its changes did not help, and the runs do not exclude it."""
RIVAL = 0.2
"""Probability from which on another cause that the same change repairs is a suspect."""
RISE_ALONE = 0.9
"""Of the record's confidence in overfitting that it only suspected beside wrong labels, which the votes do not show."""
SURE, LIKELY = 0.8, 0.7
"""Probability of wrong labels from which on votes alone are enough, and where the record makes them suspect as well."""
MASKED = 0.75
"""Confidence in each of two faults whose changes helped only together."""
SUSPECTED = 0.1
"""Weight before the runs from which on a change that may have helped leaves a suspect."""
LEAST_HEALTHY = 0.7
"""Probability that no change helped beyond chance from which on a run is healthy."""
BY_CONTROL = 0.9
"""Confidence in a leak that the control of copies shows, though the record alone does not."""
SELDOM = 0.5
"""`next_choice` up to which it is a reason that is named."""
WORTH_A_WORD = 0.25
"""Suspicion of too few validation samples from which on a run is not healthy: no run settles it."""
FOLDED_GAP = 0.15
"""Recall of small classes below that of the others, over folds, from which on their size is to blame."""
MOST_RECOMMENDATIONS = 6


@dataclass(frozen=True, slots=True)
class InvestigationFindings:
    """Verdicts, the main one first; recommendations that worked; changes that hurt; and every change that was tried.

    suspects: `{code, suspicion, why}` of causes that the runs have not settled. refuted: codes of the passive verdicts
    that the runs contradict. message: what was found, in words.
    """

    verdicts: list[Verdict]
    recommendations: list[MeasuredChange]
    harmful: list[MeasuredChange]
    tried: list[dict[str, Any]]
    suspects: list[dict[str, Any]]
    refuted: list[Code]
    message: str
    posterior: dict[Key, float] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            "verdicts": [one.as_dict() for one in self.verdicts],
            "recommendations": [one.as_dict() for one in self.recommendations],
            "harmful": [one.as_dict() for one in self.harmful],
            "tried": self.tried,
            "suspects": self.suspects,
            "refuted": list(self.refuted),
            "message": self.message,
            "posterior": {code: round(value, 4) for code, value in self.posterior.items()},
        }


def conclude(
    record: Record, results: Sequence[VariantResult], budget: InvestigationBudget | None = None
) -> InvestigationFindings:
    """Return what the results say of the run `record`; also of an investigation that was stopped."""
    return _Conclusion(InvestigationHistory(record, results, budget)).findings()


class _Conclusion:
    """The steps from results to findings."""

    def __init__(self, history: InvestigationHistory) -> None:
        self.history, self.record, self.measure = history, history.record, Measurement(history)
        passive = diagnose(history.record)
        self.passive = {v.code: v for v in passive.verdicts if v.code not in ("healthy", "inconclusive")}
        self.only_suspected: set[Code] = set()
        # these have no repair of the skill by which they would be found: strong suspicion counts as well
        for suspect in passive.suspects:
            if suspect.code in DATA_CAUSES | {"wrong_loss"} and suspect.suspicion >= LEAST_CONFIDENCE:
                evidence: dict[str, Any] = {"explained_by": [], "series": SERIES}
                self.only_suspected.add(suspect.code)
                self.passive[suspect.code] = Verdict(suspect.code, suspect.suspicion, None, suspect.why, evidence)
        self.passive_suspicions = {one.code: one.suspicion for one in passive.suspects if one.code not in self.passive}
        self.attribution: Attribution = attribute(history)
        self.verdicts: list[Verdict] = []
        self.recommended: list[tuple[Code, MeasuredChange]] = []
        self.refuted: list[Code] = []
        self.judged: set[Code] = {*DATA_CAUSES, "overfitting"}
        self.suspects: dict[Code, dict[str, Any]] = {}

    def findings(self) -> InvestigationFindings:
        if self.history.base is None or self.history.base_is_broken:
            return self._without_runs()
        self._training()
        self._imbalance()
        self._outliers()
        self._label_noise()
        self._overfitting()
        self._of_parts()
        self._rest()
        verdicts = self._in_order() if self.verdicts else [self._nothing_found()]
        if verdicts[0].code == "inconclusive":
            self._unsettled()
            likeliest = max((one["suspicion"] for one in self.suspects.values()), default=None)
            verdicts = [replace(verdicts[0], confidence=verdicts[0].confidence if likeliest is None else likeliest)]
        verdicts = [_calibrated(one) for one in verdicts]
        order = [verdict.code for verdict in verdicts]
        chosen = sorted(self.recommended, key=lambda one: order.index(one[0]) if one[0] in order else len(order))
        recommendations = [change for _, change in chosen]
        helped = self._also_helped(probably=order[0] != "healthy")
        recommendations += [one for one in helped if one.patch not in [r.patch for r in recommendations]]
        return InvestigationFindings(
            verdicts,
            recommendations[:MOST_RECOMMENDATIONS],
            list(self._harmful()),
            list(self._tried()),
            [one for name, one in self.suspects.items() if name not in order],
            self.refuted,
            self._message(verdicts, recommendations),
            self.attribution.posterior,
        )

    def _in_order(self) -> list[Verdict]:
        """Causes first. What was repaired beyond noise stands before faults of the data that only the record shows."""
        winner = self.attribution.winner
        shown = self._can_refute and winner is not None and winner.helped
        shown = shown and any(one.code == self.attribution.code for one in self.verdicts)
        unshown = [one for one in self.verdicts if one.code in DATA_CAUSES and one.evidence.get("source") == "record"]
        last = unshown if shown else []
        return [*order_by_cause([one for one in self.verdicts if one not in last]), *order_by_cause(last)]

    def _without_runs(self) -> InvestigationFindings:
        error = next((r.error for r in self.history.results if r.error is not None), None)
        why = f"the base failed: {error['message']}" if error else "nothing was trained"
        evidence: dict[str, Any] = {"explained_by": [], "series": []}
        verdicts = list(self.passive.values()) or [
            Verdict("inconclusive", 1.0, None, f"No experiment: {why}.", evidence)
        ]
        return InvestigationFindings(verdicts, [], [], [], [], [], f"No experiment was made: {why}.")

    # Causes in training: what repaired the run

    def _training(self) -> None:
        winner, code = self.attribution.winner, self.attribution.code
        if winner is None:
            self._two_faults_at_once()
            return
        assert code != "none"
        confirmed = self.history.confirmed(winner.change.name, "skill")
        if confirmed is None:
            kept = 0.95
        else:
            # other seeds, or other samples, do not show it
            kept = 0.5 if confirmed.gain < 0.3 * winner.skill_of_samples.gain else 1.0
        posterior = self.attribution.posterior
        confidence = kept * posterior[code]
        # a change that helped repairs the run whichever of its causes is the right one
        of_change = sum(posterior.get(one, 0.0) for one in winner.change.targeted | {code})
        sure = kept * (
            1 - posterior["none"] if winner.helped else of_change if winner.change.undoes else posterior[code]
        )
        if sure < LEAST_CONFIDENCE:
            self._suspect(code, confidence, f"{winner.change.name} helped, which may be chance")
            return
        for rival in sorted(winner.change.targeted - {code}):
            if (probability := kept * self.attribution.posterior.get(rival, 0.0)) >= RIVAL:
                self._suspect(rival, probability, f"{winner.change.name} repairs it as well")
        self._add(code, confidence, winner.change, self._words(winner), self._evidence(winner))
        for name, other in self._pairs(winner):
            both = self.history.combination_effect(name, winner.change.name)
            assert both is not None
            second = max(other.targeted or set(other.causes), key=lambda c: (self.history.priors.get(c, 0.0), c))
            result = self._result(name)
            words = (
                f"Together with {winner.change.name}, {other.name} gained a further {both.gain:.3g} of skill "
                f"(95 % interval {both.low:.3g} to {both.high:.3g}): {other.why}"
            )
            evidence = {
                "variant": result.variant.name,
                "beside": winner.change.name,
                **both.as_dict(),
                "series": SERIES,
            }
            self.verdicts.append(Verdict(second, round(min(confidence, 0.9), 3), None, words, evidence))
            self.recommended.insert(0, (code, self.measure.combination(result, code)))

    def _pairs(self, winner: Tested) -> Iterator[tuple[str, TriedChange]]:
        """Combinations of the winner with another change that are better than the winner beyond noise; the best one."""
        found = []
        for result in self.history.results:
            changes = result.variant.changes
            if result.variant.kind != "combination" or len(changes) != 2 or changes[0] != winner.change.name:
                continue
            name = "+".join(changes)
            other = next(change for change in self.history.changes if change.name == changes[1])
            effect = self.history.combination_effect(name, winner.change.name)
            if effect is None:
                continue
            if effect.low > 0 and effect.gain >= other.material_gain:
                found.append((effect.gain, name, other))
        if found:
            _, name, other = max(found, key=lambda one: (one[0], one[1]))
            yield name, other

    def _two_faults_at_once(self) -> None:
        """No single change helped, but making all unusual settings usual did: those without which it does not."""
        history = self.history
        if not history.combination_helped(STANDARD):
            self._masked_pair()
            return
        whole = self._result(STANDARD)
        parts = [change for change in history.changes if change.name in whole.variant.changes]
        needed = []
        for change in parts:
            without = f"{STANDARD}-but-{change.name}"
            lost = history.combination_effect(STANDARD, without)
            if len(parts) == 2 or (lost is not None and lost.low > 0 and lost.gain >= MATERIAL):
                needed.append((change, lost))
        effect = history.combination_effect(STANDARD)
        assert effect is not None
        for change, lost in needed:
            code = max(change.targeted or set(change.causes), key=lambda c: (history.priors.get(c, 0.0), c))
            names = " and ".join(one.name for one in parts)
            words = (
                f"No single change repaired the run; {names} together gained {effect.gain:.3g} of skill "
                f"(95 % interval {effect.low:.3g} to {effect.high:.3g}), and {change.name} was needed for it."
            )
            shown = {"variant": whole.variant.name, **effect.as_dict(), "series": SERIES}
            evidence = shown if lost is None else {**shown, "lost_without": lost.as_dict()}
            self.verdicts.append(Verdict(code, 0.8, None, words, evidence))
        if needed:
            code = self.verdicts[-1].code
            self.recommended.append((code, self.measure.combination(whole, code)))

    def _masked_pair(self) -> None:
        """No single change helped, but two of them together did: each fault hid the repair of the other."""
        history = self.history
        helped = [
            result
            for result in history.results
            if result.variant.kind == "combination"
            and len(result.variant.changes) == 2
            and result.variant.share == history.working_share
            and history.combination_helped("+".join(result.variant.changes))
        ]
        if not helped:
            return
        best = max(helped, key=lambda one: (0.0 if one.scores is None else one.scores.skill, one.variant.name))
        effect = history.combination_effect("+".join(best.variant.changes))
        assert effect is not None
        changes = {change.name: change for change in history.changes}
        first, second = (changes[name] for name in best.variant.changes)
        for change, other in ((first, second), (second, first)):
            code = max(change.targeted or set(change.causes), key=lambda c: (history.priors.get(c, 0.0), c))
            words = (
                f"Neither {change.name} nor {other.name} repaired the run; together they gained {effect.gain:.3g} of skill "
                f"(95 % interval {effect.low:.3g} to {effect.high:.3g}). {change.why}"
            )
            evidence = {"variant": best.variant.name, "beside": other.name, **effect.as_dict(), "series": SERIES}
            self.verdicts.append(Verdict(code, MASKED, None, words, evidence))
        code = self.verdicts[-1].code
        self.recommended.append((code, self.measure.combination(best, code)))

    # Causes in the data

    def _imbalance(self) -> None:
        code: Code = "class_imbalance"
        best = self.history.best_balancing
        if best is None:
            return
        names = {one.change.name for one in self.history.tested.values() if code in one.change.targeted}
        others = [
            result.scores.value("val_recall")
            for result in self.history.results
            if result.scores is not None
            and result.variant.share == best.after.variant.share
            and result.variant.kind == "change"
            and not set(result.variant.changes) & (names | set(OTHER_SPLIT))
        ]
        effect, folds = best.effect, self.history.in_folds(best.before, best.after, best.change.measure)
        p_value = effect.p_value if folds else best.measure_p_value
        # a better trained model finds the small classes without weights
        by_others = max(others, default=0.0) - best.before.scores.value("val_recall") if best.before.scores else 0.0
        # ... of which one part with a few of their samples says nothing, where nothing else is wrong
        alike = by_others >= 0.7 * effect.gain and (not folds or bool(self.verdicts))
        # what the record shows is a planned comparison in one direction
        least = 2 * SIGNIFICANT if code in self.passive and folds else SIGNIFICANT
        counts = [count for count in self.record.classes.values() if count]
        # below that, recall of one class is bought with that of another
        unbalanced = code in self.passive or max(counts, default=0) >= UNBALANCED * min(counts, default=1)
        if p_value < least and effect.gain >= MATERIAL_RECALL and unbalanced and not alike:
            confidence = (1.0 if code in self.passive else 0.9) * (1 - p_value)
            self._add(code, confidence, best.change, self._words(best), self._evidence(best))
        elif (gap := self._recall_gap_shown()) is not None and not self.verdicts:
            low, high, error = gap
            words = (
                f"Over folds the small classes together have a recall of {low:.2g}, the others {high:.2g}. Weights do not "
                "mend it beyond noise: more of their samples would."
            )
            evidence = {"recall_of_small": low, "recall_of_others": high, "noise": 2 * error, "series": ["val_recall"]}
            confidence = graded_confidence(high - low, FOLDED_GAP, 0.5, 0.65)
            self.verdicts.append(Verdict(code, round(confidence, 3), self._since(code), words, evidence))
        elif (
            code in self.passive
            and effect.gain < MATERIAL_RECALL / 2
            and effect.high < 2 * MATERIAL_RECALL
            and not self._is_unlearnt(bool(folds))
        ):
            self.refuted.append(code)
        elif code in self.passive:
            self._keep_passive(code, 0.8, best.change, self._behind_repairs)
        elif self.history.priors.get(code, 0.0) >= SUSPECTED and effect.gain >= MATERIAL_RECALL and not alike:
            self._suspect(code, 0.5, f"{best.change.name} gained {effect.gain:.2g} of recall, which may be chance")

    def _recall_gap_shown(self) -> tuple[float, float, float] | None:
        """The recalls of small classes and of others over folds, where they differ materially and beyond noise."""
        gap = self.history.recall_gap
        return gap if gap is not None and gap[1] - gap[0] > max(FOLDED_GAP, 2 * gap[2]) else None

    def _is_unlearnt(self, on_folds: bool) -> bool:
        """Whether balancing could not show anything: a class is never predicted, or too few of its samples are held out."""
        return self.history.unlearnt_class or (not on_folds and self.history.few_of_a_class)

    def _outliers(self) -> None:
        """Squared errors of numbers with outliers: judged by absolute errors, since outliers decide the squared ones."""
        code: Code = "wrong_loss"
        tested = self.history.tested.get("huber_loss")
        if tested is None or any(verdict.code == code for verdict in self.verdicts):
            return
        self.judged.add(code)
        before, _ = self._values(tested)
        share = tested.effect.gain / max(before, 1e-9)
        best = max((self._absolute_gain(one) for one in self.history.tested.values() if one is not tested), default=0.0)
        # a better model has smaller errors, large and small ones
        alike = best >= 0.7 * tested.effect.gain and code not in self.passive
        if tested.measure_p_value < SIGNIFICANT and share >= MATERIAL_ABSOLUTE and not alike:
            confidence = 0.9 if code in self.passive else 0.7
            self._add(
                code,
                confidence * (1 - tested.measure_p_value),
                tested.change,
                self._words(tested),
                self._evidence(tested),
            )
        elif code in self.only_suspected and self.passive[code].confidence < NEARLY:
            self._open(code, self.passive[code].confidence, [tested])
        elif code in self.passive:
            possible = tested.effect.high >= MATERIAL_ABSOLUTE * before
            self._keep_passive(code, 1.0 if possible else 0.5, tested.change if tested.effect.low > 0 else None)

    def _absolute_gain(self, tested: Tested) -> float:
        """By how much a change made the mean absolute error smaller; 0 where it is of another validation part."""
        before, after = self.history.scores_of(tested.before), self.history.scores_of(tested.after)
        if before is None or after is None or tested.change.name in OTHER_SPLIT:
            return 0.0
        return before.value("val_mae") - after.value("val_mae")

    def _label_noise(self) -> None:
        votes = self.votes()
        code: Code = "label_noise"
        if votes is None:
            if code in self.passive:
                self._keep_passive(code, 1.0)
            return
        probability = votes.probability
        # a run with another fault, or data that say little, look alike: without a trace in the record more is asked for
        least = LIKELY if code in self.passive else SURE
        if probability >= least and (code in self.passive or not self._has_other_fault):
            words = (
                f"Models that have not seen a label contradict {votes.error:.0%} of the {votes.samples} labels, and "
                f"{votes.sure_error:.0%} (95 % interval {votes.sure_low:.0%} to {votes.sure_high:.0%}) where they are "
                f"surest{_next_choice(votes)}: confidence does not make them agree, as it would if the labels were right."
            )
            self.verdicts.append(
                Verdict(code, round(probability, 3), None, words, {**votes.as_dict(), "series": SERIES})
            )
        elif code in self.passive and probability < 0.2:
            self.refuted.append(code)
        elif code in self.passive and code not in self.only_suspected:
            self._keep_passive(code, 1.0)
        elif code in self.passive or (probability >= LEAST_CONFIDENCE and not self._has_other_fault):
            why = f"models that have not seen a label contradict {votes.error:.0%} of the labels"
            self._suspect(code, probability, why)

    @property
    def _has_other_fault(self) -> bool:
        return any(verdict.code not in ("overfitting", "label_noise") for verdict in self.verdicts)

    def votes(self) -> LabelVotes | None:
        """Of the folds; without them of the best run's validation samples."""
        if not self.record.classification:
            return None
        best = self.history.best
        if best is None or best.scores is None:
            return None
        folds = {one.variant.name: self.history.fold_scores(one) for one in self.history.by_skill}
        known = [
            [scores[fold] for fold in range(FOLDS)] for scores in folds.values() if {*range(FOLDS)} <= scores.keys()
        ]
        return count_votes(known[0] if known else [best.scores])

    def _overfitting(self) -> None:
        """What training shows in its curves: the best weights are kept, so the kept ones may hide it."""
        code: Code = "overfitting"
        if code not in self.passive:
            self._rise_alone()
            return
        if any(v.code == code for v in self.verdicts):
            return
        base = self.history.base
        rises = {
            one.change.name: rise_after_best(one.after)
            for one in self.history.tested.values()
            if code in one.change.causes
        }
        before = None if base is None else rise_after_best(base)
        known = {name: rise for name, rise in rises.items() if rise is not None}
        most = self._behind_repairs
        if before is None or before <= 0 or not known:
            self._keep_passive(code, 1.0, most=most)
            return
        name = min(known, key=lambda one: (known[one], one))
        tested = self.history.tested[name]
        # the best weights are kept: a rise behind them matters where it is large, or where less capacity improves them
        helps = any(one.effect.low > 0 for one in self.history.tested.values() if code in one.change.targeted)
        large = before >= LARGE_RISE * (self.record.scale or math.inf) and self.record.stop_reason != "early_stop"
        confirmed = known[name] < 0.6 * before and (helps or large)
        self._keep_passive(code, 1.2 if confirmed else 0.7, tested.change if tested.effect.low > 0 else None, most)
        found = next((v for v in self.verdicts if v.code == code), None)
        if found is not None:
            found.evidence["rise_after_best"] = {"before": before, "after": known[name], "variant": name}

    def _rise_alone(self) -> None:
        """A large rise that the record alone could not tell from wrong labels: the votes have not shown any."""
        shown = CAUSES["overfitting"].evidence(self.record)
        if self.verdicts or shown is None or shown.confidence < NAMED:
            return
        confidence = round(RISE_ALONE * shown.confidence, 3)
        self.verdicts.append(replace(shown, confidence=confidence, evidence={**shown.evidence, "source": "record"}))

    def _of_parts(self) -> None:
        """Causes in how the parts were cut: copies, shipped parts, a validation part that is too small."""
        inflation = self.history.inflation
        by_control = inflation is not None and inflation.low > LEAST_INFLATION and not self.verdicts
        if inflation is not None and by_control and "leakage" not in self.passive:
            words = (
                f"Copies raise {'the accuracy' if self.record.classification else 'R^2'} of validation by "
                f"{inflation.gain:.2g} (95 % interval {inflation.low:.2g} to {inflation.high:.2g}), against a run without "
                "them on as many training samples."
            )
            evidence: dict[str, Any] = {
                "inflation_by_copies": inflation.as_dict(),
                "series": ["val_accuracy", "val_loss"],
            }
            self.verdicts.append(Verdict("leakage", BY_CONTROL, None, words, evidence))
            self.recommended.append(("leakage", self.measure.change(self.history.tested[WITHOUT_COPIES], "leakage")))
        if "leakage" in self.passive:
            tested = [one for one in self.history.tested.values() if "leakage" in one.change.causes]
            columns = [one for one in tested if one.change.name != WITHOUT_COPIES]
            # of a run that has learnt little the control says next to nothing, and without a strong column any is worse
            shown = inflation is not None and inflation.low > 0 and not self.verdicts
            # without copies training has fewer samples, so that only the control of equal size can refute them
            none = inflation is not None and inflation.high < LEAST_INFLATION and not columns
            factor = 1.2 if shown else 0.4 if none else 1.0
            most = 0.98 if shown or columns else self._behind_repairs
            self._keep_passive("leakage", factor, tested[0].change if tested else None, most)
            found = next((v for v in self.verdicts if v.code == "leakage"), None)
            if found is not None and inflation is not None:
                found.evidence["inflation_by_copies"] = inflation.as_dict()
        if "distribution_mismatch" in self.passive:
            factor = {True: 1.2, False: 0.5, None: 1.0}[
                gap_closes(self.record, self.history.tested.get("random_split"))
            ]
            split = next((c for c in self.history.changes if c.name == "random_split"), None)
            self._keep_passive("distribution_mismatch", factor, split)
        else:
            self._parts_of_the_repaired_run()
        if "validation_too_small" in self.passive:
            split = next((c for c in self.history.changes if c.name == "larger_validation"), None)
            if "validation_too_small" in self.only_suspected:  # no run tells more of it than the record
                self._suspect("validation_too_small", self.passive["validation_too_small"].confidence, "see the record")
            else:
                self._keep_passive("validation_too_small", 1.0, split)

        elif (suspicion := self.passive_suspicions.get("validation_too_small", 0.0)) >= WORTH_A_WORD:
            self._suspect("validation_too_small", suspicion, "see the record")

    def _parts_of_the_repaired_run(self) -> None:
        """Shipped parts that differ: a run that had learnt nothing could not show it, and the repaired one does."""
        winner, change = (
            self.attribution.winner,
            next((c for c in self.history.changes if c.name == "random_split"), None),
        )
        gap = None if winner is None or change is None else gap_to_test(winner.after, self.record.parts)
        if not self.verdicts or winner is None or gap is None:
            return
        difference, error = gap
        if difference <= max(SIGNIFICANT_ERRORS * error, LEAST_DIFFERENCE):
            return
        metric = "Accuracy" if self.record.classification else "R^2"
        words = f"{metric} of the run with {winner.change.name} is {difference:.2g} better on validation than on test."
        evidence = {
            "variant": winner.after.variant.name,
            "difference": difference,
            "noise": 2 * error,
            "series": SERIES,
        }
        confidence = graded_confidence(difference / error, SIGNIFICANT_ERRORS, 6, 0.7)
        self.verdicts.append(Verdict("distribution_mismatch", round(confidence, 3), None, words, evidence))

    def _rest(self) -> None:
        """Passive verdicts on training that the runs neither showed nor could refute."""
        named = {verdict.code for verdict in self.verdicts}
        for code, verdict in self.passive.items():
            explained = any(code in EXPLAINS.get(name, ()) for name in named)
            if code in named or explained or code in self.judged or code in self.refuted:
                continue
            tested = [one for one in self.history.tested.values() if code in one.change.targeted]
            if not tested:
                self._suspect(code, verdict.confidence, "none of its changes was tried")
            elif not self._can_refute:
                self._open(code, 0.5 * verdict.confidence, tested)
            elif self.verdicts or (not self._is_short and all(one.skill.high < WIDE for one in tested)):
                self.refuted.append(code)
            elif self._is_short:
                why = "its changes alone did not help, and the run is short of what is attainable: two faults may hide"
                self._suspect(code, 0.5 * verdict.confidence, why)
            else:
                self._open(code, 0.5 * verdict.confidence, tested)
        left = [code for code in self.suspects if code in self.passive]
        main = max(left, key=lambda code: self.passive[code].confidence, default=None)
        if not self.verdicts and main is not None and self.passive[main].confidence >= NAMED:
            del self.suspects[main]
            self._keep_passive(main, UNCONFIRMED)
        for code, suspicion in self.passive_suspicions.items():
            if suspicion < (DOUBTFUL if self._learns_nothing else LEAST_CONFIDENCE):
                continue
            tested = [one for one in self.history.tested.values() if code in one.change.targeted]
            if self.verdicts or not tested:
                continue
            if code == "overfitting":
                self._suspect(code, 0.5 * suspicion, "its trace is in the curves, behind the weights that are kept")
            elif self._learns_nothing:
                self._suspect(code, 0.5 * suspicion, "the run learns nothing, and no single change helped")
            elif any(one.skill.high >= WIDE for one in tested):
                self._open(code, 0.5 * suspicion, tested)

    def _open(self, code: Code, suspicion: float, tested: Sequence[Tested]) -> None:
        """What was suspected before, and the runs vary too much to exclude."""
        wide = max(one.skill.high for one in tested)
        self._suspect(code, suspicion, f"a gain of up to {wide:.2g} of skill is not excluded")

    @property
    def _can_refute(self) -> bool:
        """Whether a repair would show: the base has a model, and enough samples validate it."""
        base = self.history.base
        return base is not None and base.scores is not None and len(base.scores.index) >= FEWEST_SAMPLES

    @property
    def _learns_nothing(self) -> bool:
        """Whether the base is no better than a constant prediction."""
        base = self.history.base
        return base is not None and (base.scores is None or base.scores.skill < MATERIAL)

    @property
    def _is_short(self) -> bool:
        """Whether the base is below what is attainable beyond noise."""
        base, attainable = self.history.base, self.record.reference
        if base is None or base.scores is None or attainable is None:
            return False
        return base.scores.value(f"val_{attainable.metric}") < attainable.low

    def _unsettled(self) -> None:
        """What remains possible where the runs do not decide."""
        for code, probability in self.attribution.posterior.items():
            if code != "none" and probability >= POSSIBLE and code not in self.suspects:
                self._suspect(code, probability, "the runs do not exclude it")

    def _nothing_found(self) -> Verdict:
        """Healthy: this is what the data give; or inconclusive, where more is attainable or the runs tell too little."""
        base = self.history.base
        assert base is not None
        attainable = self.record.reference
        none = self.attribution.posterior.get("none", 1.0)
        tested = [o for o in self.history.tested.values() if o.change.name not in OTHER_SPLIT and o.change.targeted]
        evidence: dict[str, Any] = {
            "changes_tried": [one.change.name for one in tested],
            "largest_gain": max((one.skill.gain for one in tested), default=None),
            "posterior_of_none": round(none, 4),
            "explained_by": [],
            "series": SERIES,
        }
        if base.scores is None:
            words = "The run left no model, and no change that was tried gave one."
            return Verdict("inconclusive", 1.0, None, words, evidence)
        if not tested:
            return Verdict("inconclusive", 1.0, None, "The budget left no change to be tried.", evidence)
        if attainable is not None:
            value = base.scores.value(f"val_{attainable.metric}")
            evidence["attainable"] = attainable.as_dict()
            if value < attainable.low:
                words = (
                    f"No change that was tried helped beyond noise, but {attainable.reference} reaches "
                    f"{attainable.metric} {attainable.value:.3g} (95 % interval {attainable.low:.3g} to "
                    f"{attainable.high:.3g}) where this run reaches {value:.3g}."
                )
                return Verdict("inconclusive", round(none, 3), None, words, evidence)
        if self.suspects or none < LEAST_HEALTHY:
            words = "No change that was tried helped beyond noise, but what is left open could be a fault."
            return Verdict("inconclusive", round(max(none, 0.5), 3), None, words, evidence)
        clear = sum(one.skill.high < WIDE for one in tested) / len(tested)
        words = (
            f"None of {len(tested)} changes helped beyond noise and chance: this is what the data give "
            f"(skill {base.scores.skill:.2g})."
        )
        return Verdict("healthy", round(none * (0.5 + 0.5 * clear), 3), None, words, evidence)

    # Pieces

    def _add(self, code: Code, confidence: float, change: TriedChange, words: str, evidence: dict[str, Any]) -> None:
        self.verdicts.append(Verdict(code, round(min(confidence, 0.995), 3), self._since(code), words, evidence))
        self.recommended.append((code, self.measure.change(self.history.tested[change.name], code)))

    def _keep_passive(self, code: Code, factor: float, change: TriedChange | None = None, most: float = 0.98) -> None:
        verdict = self.passive[code]
        confidence = round(min(0.98, factor * verdict.confidence), 3)
        if confidence < min(LEAST_CONFIDENCE, verdict.confidence):
            self.refuted.append(code)
            return
        confidence = round(min(confidence, most), 3)
        self.verdicts.append(
            Verdict(code, confidence, verdict.since_epoch, verdict.message, {**verdict.evidence, "source": "record"})
        )
        if change is not None and change.name in self.history.tested:
            self.recommended.append((code, self.measure.change(self.history.tested[change.name], code)))

    @property
    def _behind_repairs(self) -> float:
        """The most confidence of what no run has shown: what was repaired comes first."""
        return min((one.confidence - 0.01 for one in self.verdicts), default=1.0)

    def _suspect(self, code: Code, suspicion: float, why: str) -> None:
        settled_by = [change.name for change in self.history.changes if code in change.targeted]
        self.suspects[code] = {"code": code, "suspicion": round(suspicion, 3), "why": why, "settled_by": settled_by}

    def _since(self, code: Code) -> int | None:
        return self.passive[code].since_epoch if code in self.passive else None

    def _result(self, name: str) -> VariantResult:
        found = self.history._result(name, self.history.working_share)
        assert found is not None
        return found

    def _words(self, tested: Tested) -> str:
        effect, metric = tested.effect, tested.change.measure
        before, after = self._values(tested)
        return (
            f"{tested.change.why.rstrip('.')}: {metric} from {before:.3g} to {after:.3g}, a gain of {effect.gain:.3g} "
            f"(95 % interval {effect.low:.3g} to {effect.high:.3g}) on {effect.samples} validation samples, by pairs."
        )

    def _values(self, tested: Tested) -> tuple[float, float]:
        return self.history.values(tested, tested.change.measure)

    def _evidence(self, tested: Tested) -> dict[str, Any]:
        before, after = self._values(tested)
        confirmed = self.history.confirmed(tested.change.name, tested.change.measure)
        likely = sorted(self.attribution.posterior.items(), key=lambda one: -one[1])[:3]
        return {
            "source": "experiment",
            "variant": tested.after.variant.name,
            "runs": [tested.before.variant.name, tested.after.variant.name],
            "metric": tested.change.measure,
            "before": before,
            "after": after,
            **tested.effect.as_dict(),
            "corrected_p_value": tested.measure_p_value,
            "skill_gain": tested.skill.gain,
            "with_another_seed": None if confirmed is None else confirmed.as_dict(),
            "posterior": {code: round(value, 4) for code, value in likely},
            "series": SERIES,
        }

    def _also_helped(self, *, probably: bool) -> list[MeasuredChange]:
        """Changes for no verdict that gained beyond noise, the surest first; a tenth of the largest gain is too little.

        `probably`: also those that gained by their own interval, which one of many changes may do by chance.
        """
        least = max([MATERIAL / 2, *(one.skill.gain / 10 for one in self.history.tested.values())])
        helped = [
            one
            for one in self.history.tested.values()
            if (one.p_value < SIGNIFICANT or (probably and one.skill.low > 0))
            and one.skill.gain >= least
            and one.effect.low > 0
        ]
        surest = sorted(helped, key=lambda one: (one.p_value >= SIGNIFICANT, -one.skill.low, one.change.name))
        return [self.measure.change(one, None) for one in surest]

    def _harmful(self) -> Iterator[MeasuredChange]:
        for one in self.history.tested.values():
            if (
                one.hurt
                and one.skill.gain <= -MATERIAL / 2
                and one.effect.high < 0
                and not set(one.change.causes) & {"leakage"}
            ):
                yield self.measure.change(one, None)

    def _tried(self) -> Iterator[dict[str, Any]]:
        for name, one in self.history.tested.items():
            outcome = "repaired" if one.helped else "hurt" if one.hurt else "no difference beyond noise"
            if name in OTHER_SPLIT:
                outcome = "not comparable by pairs"
            yield {
                "change": name,
                "causes": sorted(one.change.targeted or one.change.causes),
                "variant": one.after.variant.name,
                "state": one.after.state,
                "metric": one.change.measure,
                **one.effect.as_dict(),
                "skill_gain": one.skill.gain,
                "skill_low": one.skill.low,
                "skill_high": one.skill.high,
                "corrected_p_value": one.p_value,
                "outcome": outcome,
            }

    def _message(self, verdicts: Sequence[Verdict], recommendations: Sequence[MeasuredChange]) -> str:
        runs = len(self.history.results)
        return f"{runs} {'run was' if runs == 1 else 'runs were'} trained. {verdicts[0].message}"


SERIES = ["train_loss", "val_loss"]


def _next_choice(votes: LabelVotes) -> str:
    """Words on the place of contradicted labels, where it speaks for wrong ones."""
    seldom = votes.next_choice is not None and votes.next_choice < SELDOM
    return ", and these labels are seldom the model's next choice" if seldom else ""


def _calibrated(verdict: Verdict) -> Verdict:
    """The verdict with the probability that such a score is right as its confidence; `inconclusive` claims nothing."""
    if verdict.code == "inconclusive":
        return verdict
    confidence = OF_INVESTIGATIONS.probability(verdict.confidence)
    return replace(verdict, confidence=confidence, evidence={**verdict.evidence, "score": verdict.confidence})

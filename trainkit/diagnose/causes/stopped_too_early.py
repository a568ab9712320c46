"""Stopped too early: the run ended while it still improved."""

from __future__ import annotations

from collections.abc import Iterator

from trainkit.diagnose.capacity import limit_symptom_confidence
from trainkit.diagnose.cause import Cause, Intervention
from trainkit.diagnose.interventions import UNUSUAL_RATE, longer, rate_tenfold, wider
from trainkit.diagnose.performance import performance
from trainkit.diagnose.plateau import held_back_by_dropout
from trainkit.diagnose.rates import default_rate
from trainkit.diagnose.record import Record
from trainkit.diagnose.spec_changes import Change, early_stop_patch, longer_patch, rate_patch
from trainkit.diagnose.trends import still_gaining
from trainkit.diagnose.verdicts import EXPLAINS_FROM_CONFIDENCE, Verdict, graded_confidence

FEW_STEPS = 500
"""A run with fewer steps than this is short for any network."""
CUT_OFF = 0.6
"""Suspicion of so short a run that ends at its best."""
BEHIND = 0.8
"""Probability that a run is short of what is attainable from which on its end at its best is no coincidence."""


def evidence(record: Record) -> Verdict | None:
    """Stopped too early: the run ended while the validation loss was still falling (`still_gaining`)."""
    if not record.final or record.state == "failed" or record.stop_reason == "diverged":
        return None
    found = still_gaining(record)
    if found is None:
        return None
    return Verdict(
        "stopped_too_early",
        min(
            limit_symptom_confidence(
                record, graded_confidence(found.gain, found.threshold, 4 * found.threshold, 0.5, 0.9)
            ),
            1.0
            if held_back_by_dropout(record) is None
            else EXPLAINS_FROM_CONFIDENCE - 0.05,  # more epochs would not help against the dropout
        ),
        found.epoch,
        f"Training ended ({record.stop_reason or record.state}) while {found.series} was still falling: by "
        f"{found.gain:.3g} since epoch {found.since_epoch}.",
        {
            "gain_of_last_quarter": found.gain,
            "noise": found.noise,
            "threshold": found.threshold,
            "stop_reason": record.stop_reason,
            "epochs": record.spec.train.epochs,
            "series": [found.series, f"{found.series}_se", "train_loss"],
        },
    )


def suspicion(record: Record) -> float:
    """The best evaluation is one of the last two of an ended run; the fewer steps it had, the more."""
    loss = record.get("val_loss")
    if not record.final or record.stop_reason in ("diverged", "early_stop") or not len(loss):
        return 0.0
    if int(loss.value.argmin()) < len(loss) - 2:
        return 0.0
    return CUT_OFF if int(loss.step[-1]) < FEW_STEPS else 0.4


def recommendations(record: Record) -> Iterator[Change]:
    expected = ("val_loss", "down", "by about the gain of the last quarter of this run", "this record")
    yield Change(
        longer_patch(record, 2), "Twice the epochs: the validation loss was still falling at the end.", expected
    )
    yield Change(
        {**longer_patch(record, 2), **early_stop_patch(record)},
        "Twice the epochs, stopped early when the validation loss stops falling.",
        expected,
    )
    yield Change(rate_patch(record, 3.0), "Three times the learning rate, in the same number of epochs.", expected)


def interventions(record: Record) -> Iterator[Intervention]:
    code = "stopped_too_early"
    # an end amid the fall is unusual, unless it is the rate that is: more epochs undo it
    slow = record.spec.optimizer.lr < default_rate(record) / UNUSUAL_RATE
    reached = performance(record)
    behind = reached is not None and (reached.shortfall or 0.0) >= BEHIND
    cut_off = not slow and (evidence(record) is not None or (behind and suspicion(record) >= CUT_OFF))
    yield longer(record, code, 0.9, undoes=cut_off)
    yield rate_tenfold(record, code, 0.55)
    yield from wider(record, code, 0.3)


CAUSE = Cause(
    code="stopped_too_early",
    interventions=interventions,
    evidence=evidence,
    recommendations=recommendations,
    suspicion=suspicion,
    words="The run may have ended while it still improved.",
    explains=frozenset({"underfitting_model_bias", "optimization_failure"}),
)

"""A cause of a bad run: what shows it, what would settle it, and what to change. One module of `causes` defines each."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from trainkit.diagnose.record import Record
from trainkit.diagnose.spec_changes import Change, Patch
from trainkit.diagnose.trends import MIN_EVALUATIONS
from trainkit.diagnose.verdicts import Code, Verdict


@dataclass(frozen=True, slots=True)
class Intervention:
    """One controlled change of the spec: where `cause` is what is wrong, the run with this change is better.

    patch: a JSON merge patch of the submitted document.
    measure: the metric that the repair is judged by, `val_loss`, `val_accuracy`, `val_recall`, `val_r2` or `val_mae`.
    repairs: the probability that it repairs most of the run where `cause` is what is wrong. Several causes may name the
    same change, each with its own probability.
    undoes: whether it makes an unusual setting usual. Such a change is specific: a run that it repairs had that fault.
    """

    name: str
    cause: Code
    patch: Patch
    measure: str
    why: str
    repairs: float = 0.85
    undoes: bool = False


def no_interventions(record: Record) -> Iterable[Intervention]:
    """Return no intervention: no short run settles the cause."""
    return ()


def is_trained(record: Record) -> bool:
    """Return whether the record has the evaluations of a trend."""
    return len(record.get("train_loss")) >= MIN_EVALUATIONS


def no_suspicion(record: Record) -> float:
    """Return 0: what the evidence does not show is not suspected either."""
    return 0.0


@dataclass(frozen=True, slots=True)
class Cause:
    """A cause of a bad run.

    evidence: the verdict where the record shows an effect of the cause; an unusual setting alone is none.
    recommendations: changes of the spec against it, the most promising first; they are checked before they are shown.
    explains: codes of the verdicts that it may produce as symptoms; these are listed after it.
    observable: whether this record could have shown it.
    suspicion: from 0 to 1, how plausible it is where the record does not show it: by the spec, and by weak signs.
    words: what it would mean, for a suspect whose record shows nothing of it.
    lowers_skill: whether its effect is a validation metric below what is attainable. Where the run is known not to be
    short of that, its evidence and its suspicion weigh less: what looks unusual did no harm.
    interventions: the controlled changes that settle it.
    needs_training_curve: False for causes in the data, which models of scikit-learn may have too.
    """

    code: Code
    evidence: Callable[[Record], Verdict | None]
    recommendations: Callable[[Record], Iterable[Change]]
    explains: frozenset[Code] = frozenset()
    observable: Callable[[Record], bool] = is_trained
    suspicion: Callable[[Record], float] = no_suspicion
    interventions: Callable[[Record], Iterable[Intervention]] = no_interventions
    words: str = ""
    lowers_skill: bool = True
    needs_training_curve: bool = True

"""A cause of a bad run: what shows it, what would settle it, and what to change. One module of `causes` defines each."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from trainkit.diagnose.record import Record
from trainkit.diagnose.spec_changes import Change, Patch
from trainkit.diagnose.verdicts import Code, Verdict


@dataclass(frozen=True, slots=True)
class Intervention:
    """One controlled change of the spec: where `cause` is what is wrong, the run with this change is better.

    `patch` is a JSON merge patch of the submitted document; `measure` the metric that the repair is judged by, e.g.
    `val_loss`, `val_recall` or `train_loss`.
    """

    name: str
    cause: Code
    patch: Patch
    measure: str
    why: str


def no_interventions(record: Record) -> Iterable[Intervention]:
    """Return no intervention: no short run settles the cause."""
    return ()


def has_been_evaluated(record: Record) -> bool:
    """Return whether the run has been evaluated at least once."""
    return len(record.get("train_loss")) > 0


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
    suspicion: from 0 to 1, how much it is worth an experiment although the record does not show it.
    interventions: the controlled changes that settle it.
    needs_training_curve: False for causes in the data, which models of scikit-learn may have too.
    """

    code: Code
    evidence: Callable[[Record], Verdict | None]
    recommendations: Callable[[Record], Iterable[Change]]
    explains: frozenset[Code] = frozenset()
    observable: Callable[[Record], bool] = has_been_evaluated
    suspicion: Callable[[Record], float] = no_suspicion
    interventions: Callable[[Record], Iterable[Intervention]] = no_interventions
    needs_training_curve: bool = True

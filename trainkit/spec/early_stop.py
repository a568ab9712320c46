"""Early-stop rules: each is checked after every evaluation and leaves a decision. `parse_rules` reads them without a job."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from trainkit.spec.base import NonNegative, Positive, ShortForm, SpecModel
from trainkit.spec.metrics import DIRECTIONS, metric_problem, mode_problem, with_mode
from trainkit.spec.problems import Problem, SpecError, problems_from_validation

Mode = Literal["auto", "min", "max"]


class Patience(SpecModel):
    """Stop when `monitor` has not improved by more than `min_delta` over the best for `patience` evaluations."""

    kind: Literal["patience"] = "patience"
    monitor: str = "val_loss"
    """The metric to watch, such as val_loss or val_accuracy."""
    mode: Mode = "auto"
    """Whether smaller (min) or larger (max) is better; auto follows the metric's own direction."""
    patience: Annotated[int, Field(ge=1)] = 5
    """Evaluations in a row without improvement."""
    min_delta: NonNegative = 0.0
    """Improvement must exceed this, absolute; a tie keeps the earlier one."""
    start_epoch: Annotated[int, Field(ge=0)] = 0
    """Evaluations up to and including this epoch never count as misses; the best is tracked all the same."""


class NoisePatience(SpecModel):
    """Patience whose least improvement is `standard_errors` standard errors of the metric, so that noise never counts.

    sqrt(p(1-p)/n) for an accuracy p of n samples, s/sqrt(n) for a mean loss (s: standard deviation of the samples').
    """

    kind: Literal["noise_patience"] = "noise_patience"
    monitor: Literal["val_loss", "val_accuracy"] = "val_loss"
    """The metric to watch."""
    mode: Mode = "auto"
    """Whether smaller (min) or larger (max) is better; auto follows the metric's own direction."""
    patience: Annotated[int, Field(ge=1)] = 5
    """Evaluations in a row without improvement."""
    standard_errors: Annotated[float, Field(ge=0, le=100)] = 1.0
    """Improvement must exceed this many standard errors of the evaluation at hand."""
    start_epoch: Annotated[int, Field(ge=0)] = 0
    """Evaluations up to and including this epoch never count as misses; the best is tracked all the same."""


class Target(SpecModel):
    """Stop as soon as `monitor` reaches `value`."""

    kind: Literal["target"] = "target"
    monitor: str = "val_accuracy"
    """The metric to watch."""
    mode: Mode = "auto"
    """Whether smaller or larger is better; auto follows the metric's own direction."""
    value: float
    """The value that is good enough."""


class Diverged(SpecModel):
    """Stop when a loss is not finite, or exceeds `factor` times the first training loss."""

    kind: Literal["diverged"] = "diverged"
    factor: Annotated[float, Field(gt=1)] | None = None
    """Left out: only non-finite losses count."""


class TimeBudget(SpecModel):
    """Stop at the first evaluation after `seconds` of training time, summed over all attempts."""

    kind: Literal["time_budget"] = "time_budget"
    seconds: Positive
    """Training seconds."""


class NoProgress(SpecModel):
    """Stop when train and validation loss both moved less than `min_delta` over the last `evaluations`."""

    kind: Literal["no_progress"] = "no_progress"
    evaluations: Annotated[int, Field(ge=2)] = 5
    """How many evaluations are looked back on."""
    min_delta: NonNegative = 1e-4
    """Both losses' ranges (max - min) must stay within this."""


class Stalled(SpecModel):
    """Stop when train_loss has not fallen more than `min_delta` below its least for `evaluations` evaluations."""

    kind: Literal["stalled"] = "stalled"
    evaluations: Annotated[int, Field(ge=1)] = 5
    """Evaluations in a row without such a fall."""
    min_delta: NonNegative = 1e-4
    """The fall must exceed this, absolute."""


class Gap(SpecModel):
    """Stop when val_loss - train_loss has grown for `patience` evaluations in a row and exceeds `min_gap`."""

    kind: Literal["gap"] = "gap"
    patience: Annotated[int, Field(ge=1)] = 5
    """Evaluations of growth in a row."""
    min_gap: NonNegative = 0.0
    """Gaps up to this are never stopped for."""
    min_growth: NonNegative = 0.0
    """The gap grows where it exceeds the one before by more than this share of it; 0.1 is a tenth."""


class Median(SpecModel):
    """Stop when the job's best is worse than the median of the running averages of the other jobs of its group.

    The true median (the mean of the middle two), at the same epoch; a tie goes on (Golovin et al. 2017, 3.2.2).
    """

    kind: Literal["median"] = "median"
    monitor: str = "val_loss"
    """The metric that the jobs are compared by."""
    mode: Mode = "auto"
    """Whether smaller (min) or larger (max) is better; auto follows the metric's own direction."""
    min_jobs: Annotated[int, Field(ge=1)] = 3
    """So many other jobs must have come to the epoch before anything is compared."""
    start_epoch: Annotated[int, Field(ge=0)] = 0
    """Up to and including this epoch nothing is compared."""


class Percentile(SpecModel):
    """Stop when the job's best is not among what the best `percentile` % of the other jobs of its group have.

    At the same epoch, with linear interpolation; a tie goes on. The comparison of Optuna's PercentilePruner.
    """

    kind: Literal["percentile"] = "percentile"
    percentile: Annotated[float, Field(ge=0, le=100)] = 25.0
    """The share of jobs to keep: 25 keeps the best quarter."""
    monitor: str = "val_loss"
    """The metric that the jobs are compared by."""
    mode: Mode = "auto"
    """Whether smaller (min) or larger (max) is better; auto follows the metric's own direction."""
    min_jobs: Annotated[int, Field(ge=1)] = 3
    """So many other jobs must have been evaluated in the epoch before anything is compared."""
    start_epoch: Annotated[int, Field(ge=0)] = 0
    """Up to and including this epoch nothing is compared."""


class SuccessiveHalving(SpecModel):
    """At the rungs min_epochs x reduction_factor^k, go on only as one of the best 1/reduction_factor of the jobs there.

    Of all jobs of the group that have come to the rung by then, this one included; a tie goes on, and of fewer than
    `reduction_factor` jobs only the best so far does. The asynchronous form of Li et al. 2020 as Optuna's
    SuccessiveHalvingPruner has it.
    """

    kind: Literal["successive_halving"] = "successive_halving"
    monitor: str = "val_loss"
    """The metric that the jobs are compared by, as it is at the rung."""
    mode: Mode = "auto"
    """Whether smaller (min) or larger (max) is better; auto follows the metric's own direction."""
    min_epochs: Annotated[int, Field(ge=1, le=1_000_000)] = 1
    """Epochs of the first rung."""
    reduction_factor: Annotated[int, Field(ge=2, le=100)] = 3
    """One in so many goes on, and each rung is so many times as long as the one before."""
    start_epoch: Annotated[int, Field(ge=0)] = 0
    """Up to and including this epoch nothing is compared."""

    def rung(self, before: int, epoch: int) -> int | None:
        """The last rung in (before, epoch] beyond `start_epoch`, counted from 0; None where there is none."""
        before = max(before, self.start_epoch)
        found, length, number = None, self.min_epochs, 0
        while length <= epoch:
            found = number if length > before else None
            length, number = length * self.reduction_factor, number + 1
        return found


PeerRule = Median | Percentile | SuccessiveHalving
"""Rules that compare a job with others: only who sees them all can ask these."""
PEER_RULE_KINDS = frozenset({"median", "percentile", "successive_halving"})
EarlyStopRule = Annotated[
    Patience
    | NoisePatience
    | Target
    | Diverged
    | TimeBudget
    | NoProgress
    | Stalled
    | Gap
    | Median
    | Percentile
    | SuccessiveHalving,
    Field(discriminator="kind"),
    ShortForm(),
]


def peer_rules_of(rules: Iterable[EarlyStopRule]) -> tuple[PeerRule, ...]:
    """Those of the rules that compare jobs."""
    return tuple(rule for rule in rules if isinstance(rule, PeerRule))


class RuleSet(SpecModel):
    """Rules to replay on a job's history."""

    rules: Annotated[tuple[EarlyStopRule, ...], Field(max_length=16)] | None = None
    """As in a spec's `early_stop`; left out: the job's own."""


HINTS = {
    "roc_auc": "It is measured only in jobs where a rule, the schedule or `train.monitor` names it.",
    "se": "Standard errors are logged with every evaluation of a validation part since they exist; this job has none.",
}


def parse_rules(document: Any) -> tuple[EarlyStopRule, ...] | None:
    """The rules of `{"rules": [...]}` with their modes written out; None for the job's own. Raises SpecError."""
    if not isinstance(document, dict):
        raise SpecError([Problem("", "not_an_object", "the body is an object with `rules`", 'Send {"rules": [...]}.')])
    try:
        given = RuleSet.model_validate(document).rules
    except ValidationError as error:
        raise SpecError(problems_from_validation(error, document, RuleSet)) from None
    if given is None:
        return None
    found = (_monitor_problem(f"/rules/{index}", rule) for index, rule in enumerate(given))
    problems = [problem for problem in found if problem is not None]
    if problems:
        raise SpecError(problems)
    return tuple(with_mode(rule) for rule in given)


def needs(rule: EarlyStopRule) -> tuple[str, ...]:
    """The series that the rule cannot do without."""
    match rule.kind:
        case "patience" | "target" | "median" | "percentile" | "successive_halving":
            return (rule.monitor,)
        case "noise_patience":
            return (rule.monitor, f"{rule.monitor}_se")
        case "gap" | "no_progress":
            return ("train_loss", "val_loss")
        case "stalled":
            return ("train_loss",)
        case _:
            return ()


def check_logged(rules: Sequence[EarlyStopRule], logged: Collection[str]) -> None:
    """Raise SpecError for every rule that needs a series that was not logged."""
    problems = []
    for index, rule in enumerate(rules):
        missing = [name for name in needs(rule) if name not in logged]
        if missing:
            where = f"/rules/{index}" + ("/monitor" if hasattr(rule, "monitor") else "")
            hint = next((text for ending, text in HINTS.items() if missing[0].endswith(ending)), "")
            known = ", ".join(sorted(name for name in logged if name.partition("_")[2] in DIRECTIONS)) or "none"
            message = f"the rule needs {' and '.join(missing)}, which this job has not logged"
            problems.append(Problem(where, "not_logged", message, f"{hint} Logged: {known}.".strip()))
    if problems:
        raise SpecError(problems)


def _monitor_problem(where: str, rule: EarlyStopRule) -> Problem | None:
    """What is wrong with a rule whatever the job is."""
    monitor = getattr(rule, "monitor", None)
    if monitor is None:
        return None
    choices = [f"{part}_{name}" for part in ("val", "train") for name in DIRECTIONS]
    return metric_problem(where, monitor, choices) or mode_problem(where, monitor, getattr(rule, "mode", "auto"))

"""An experiment's table: a row a trial, live; and what the figures say together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from service.experiments.strategies import resampled_split
from service.experiments.tables import Trial
from service.jobs.tables import Job
from service.metrics.service import finite
from trainkit.diagnose.compare import compare, summary
from trainkit.spec import DatasetFacts
from trainkit.spec.experiments import KFold, MonteCarlo, Plan
from trainkit.spec.metrics import bounds, direction
from trainkit.spec.split import SplitSpec

BASE = "base"
GOOD = ("succeeded", "stopped")
"""States of a trial whose figures count."""


@dataclass(frozen=True, slots=True)
class TrialRow:
    """A trial as the table has it. `metrics` of one that runs are the newest of its log, and `final` is false."""

    number: int
    job: str | None
    state: str
    final: bool
    params: Mapping[str, Any]
    value: float | None
    metrics: Mapping[str, float]
    stop_reason: str | None
    error: Mapping[str, Any] | None
    model: str | None
    best_epoch: int | None
    seconds: float | None
    progress: Mapping[str, Any] | None
    why: Mapping[str, Any] | None


def trial_row(trial: Trial, job: Job | None, metric: str) -> TrialRow:
    """The row of one trial; `job` is its job as it is now, if it is still there."""
    done = trial.outcome or {}
    live = {} if job is None else {name: value for name, value in job.metrics_last.items() if value is not None}
    metrics: Mapping[str, float] = done.get("metrics", {}) if done else finite(live)
    state = done.get("state") or (job.state if job is not None else "deleted")
    value = metrics.get(metric) if done and state in GOOD else None
    progress = job.progress if job is not None and not done else None
    return TrialRow(
        trial.number,
        trial.job_id,
        state,
        bool(done),
        trial.params,
        value,
        metrics,
        done.get("stop_reason"),
        done.get("error"),
        done.get("model"),
        done.get("best_epoch"),
        done.get("seconds"),
        progress,
        trial.rationale,
    )


def best(lines: Sequence[TrialRow], metric: str) -> TrialRow | None:
    """The trial that is the best by the validation part, for the test part chooses nothing."""
    chosen_by = validated(metric)
    good = [line for line in lines if line.final and line.metrics.get(chosen_by) is not None]
    sign = 1 if direction(chosen_by) == "min" else -1
    return min(good, key=lambda line: (sign * line.metrics[chosen_by], line.number), default=None)


def validated(metric: str) -> str:
    """The same measure on the validation part."""
    return f"val_{metric.partition('_')[2]}"


def summaries(
    plan: Plan | None, facts: DatasetFacts | None, lines: Sequence[TrialRow], metric: str
) -> list[dict[str, Any]]:
    """Mean, sd, standard error and 95 % interval over the trials, by variant.

    Of folds and draws two: of their validation parts, by which weights are chosen, and of the one test part.
    """
    validated_apart = isinstance(plan, KFold | MonteCarlo)
    name = metric.partition("_")[2]
    metrics = [f"val_{name}", f"test_{name}"] if validated_apart else [metric]
    found = []
    for variant in dict.fromkeys(line.params.get("variant", BASE) for line in lines):
        of_variant = [line for line in lines if line.params.get("variant", BASE) == variant]
        for measured in dict.fromkeys([*metrics, metric]):
            values = [value for line in of_variant if (value := value_of(line, measured)) is not None]
            if values:
                missing = sum(line.final for line in of_variant) - len(values)
                # each validates on other samples, after training on mostly the same ones
                share = validation_share(plan, facts) if measured.startswith("val_") else None
                figures = summary(values, bounds=bounds(measured), test_share=share).as_dict()
                row = {"variant": variant, "metric": measured, "models": "one_per_trial", **figures}
                found.append({**row, "without_figure": missing})
    return found


def value_of(line: TrialRow, metric: str) -> float | None:
    """A trial's metric, of the weights that it kept; None until it has ended well."""
    return line.metrics.get(metric) if line.final and line.state in GOOD else None


def comparisons(
    plan: Plan | None, facts: DatasetFacts | None, lines: Sequence[TrialRow], metric: str
) -> list[dict[str, Any]]:
    """Each variant against the spec itself, on the validation parts of the draws that both have a figure of.

    Not on the test part: it is the same in all draws, so that its own chance would be taken for a difference.
    """
    if not isinstance(plan, KFold | MonteCarlo) or not plan.variants:
        return []
    share, compared = validation_share(plan, facts), validated(metric)
    base = by_cut(lines, BASE, compared)
    found = []
    for name in plan.variants:
        by_cut_of_variant = by_cut(lines, name, compared)
        pairs = [cut for cut in base if cut in by_cut_of_variant]
        if pairs:
            a, b = [base[cut] for cut in pairs], [by_cut_of_variant[cut] for cut in pairs]
            found.append(paired(a, b, compared, (BASE, name), share))
    return found


def paired(
    a: Sequence[float], b: Sequence[float], metric: str, names: tuple[str, str], share: float | None
) -> dict[str, Any]:
    """Whether B is better than A on the same cuts."""
    found = compare(a, b, better=direction(metric), test_share=share, metric=metric, names=names, bounds=bounds(metric))
    return {"a": names[0], "b": names[1], **found.as_dict()}


def by_cut(lines: Sequence[TrialRow], variant: str, metric: str) -> dict[tuple[tuple[str, Any], ...], float]:
    """Cut -> metric of that variant's trials that have one."""
    return {
        cut_of(line): value
        for line in lines
        if line.params.get("variant", BASE) == variant and (value := value_of(line, metric)) is not None
    }


def cut_of(line: TrialRow) -> tuple[tuple[str, Any], ...]:
    """Which cut of the data the trial was about."""
    return tuple(sorted((key, value) for key, value in line.params.items() if key != "variant"))


def validation_share(plan: Plan | None, facts: DatasetFacts | None) -> float | None:
    """n_validation / n_train of a fold or draw: the corrected test's share, since the training parts overlap."""
    if facts is None or not isinstance(plan, KFold | MonteCarlo):
        return None
    cut = {"folds": plan.folds, "fold": 0} if isinstance(plan, KFold) else {"resample_seed": 0}
    split = SplitSpec.model_validate({**resampled_split(plan, plan.spec), **cut})
    train, validation, _ = split.sizes(facts.samples, facts.splits)
    return validation / train if train and validation else None

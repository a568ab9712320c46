"""What forecasting makes of a dataset: windows of a series as samples, the values some steps later as targets."""

from __future__ import annotations

from collections.abc import Iterator

from trainkit.spec.facts import DatasetFacts, feature_columns, target_column
from trainkit.spec.job import JobSpec
from trainkit.spec.problems import Problem

DEFAULT_WINDOW = 16


def cuts_windows(spec: JobSpec, facts: DatasetFacts) -> bool:
    """Whether windows must be cut: not when each sequence already comes with the number that follows it."""
    return spec.task == "forecasting" and not (facts.kind == "sequences" and facts.target_type != "none")


def window_of(spec: JobSpec, shortest: int) -> int:
    """Steps a window has: as the spec says, else 16, or what half of the shortest series allows."""
    return spec.dataset.window or max(2, min(DEFAULT_WINDOW, (shortest - spec.dataset.horizon) // 2))


def too_short(window: int, horizon: int, longest: int) -> Problem:
    """No series has room for one window."""
    return Problem(
        "/dataset/window",
        "series_too_short",
        f"a window of {window} and a horizon of {horizon} need {window + horizon} steps, "
        f"the longest series has {longest}",
        "Give a smaller window or horizon.",
    )


def problems(spec: JobSpec, facts: DatasetFacts) -> Iterator[Problem]:
    """Why no windows can be cut from the dataset."""
    if spec.split.resamples:
        hint = "Take train, validation and test shares: they are cut by time."
        field = "folds" if spec.split.folds is not None else "resample_seed"
        message = "parts drawn at random would train on what comes after the validation part"
        yield Problem(f"/split/{field}", "folds_of_time", message, hint)
    if facts.kind not in ("table", "arrays", "sequences"):
        yield Problem("/task", "not_a_series", "images are no series of numbers", 'Use "classification".')
    elif facts.kind == "arrays" and facts.target_type == "class":
        hint = "Save y as floats; text cannot be forecast."
        yield Problem("/task", "target_not_numbers", "the dataset's targets are classes", hint)
    elif facts.kind == "table" and not numeric_columns(spec, facts):
        yield Problem("/dataset/features", "no_features", "no column of numbers is left", "Name some in `features`.")
    else:
        shortest, longest = facts.lengths or (facts.samples, facts.samples)
        window = window_of(spec, shortest)
        if longest < window + spec.dataset.horizon:
            yield too_short(window, spec.dataset.horizon, longest)


def numeric_columns(spec: JobSpec, facts: DatasetFacts) -> list[str]:
    """A table's columns that make the series, in order; the target, when one is named, comes last."""
    target = target_column(spec, facts)
    names = [column.name for column in feature_columns(spec, facts) if column.type == "numeric"]
    return names if target is None else [*names, target.name]


def windowed(spec: JobSpec, facts: DatasetFacts) -> DatasetFacts:
    """Facts of the dataset of windows (window, F). With series of several lengths the counts are those of equal ones."""
    shortest, longest = facts.lengths or (facts.samples, facts.samples)
    series = facts.samples if facts.kind == "sequences" else 1
    window = window_of(spec, shortest)
    counts = max(1, (shortest + longest) // 2 - window - spec.dataset.horizon + 1)
    train, validation, test = by_time(counts, spec)
    features, targets = _widths(spec, facts)
    return DatasetFacts(
        kind="sequences",
        samples=series * counts,
        input_shape=(window, features),
        target_type="number",
        target_width=targets,
        constant_target=facts.constant_target,
        splits={"train": series * train, "validation": series * validation, "test": series * test},
        lengths=(window, window),
        series=tuple(numeric_columns(spec, facts)) if facts.kind == "table" else None,
    )


def by_time(count: int, spec: JobSpec) -> tuple[int, int, int]:
    """How many of a series' windows train, validate and test, the earliest first."""
    train, validation, _ = spec.split.fractions
    first, second = round(count * train), round(count * (train + validation))
    return first, second - first, count - second


def _widths(spec: JobSpec, facts: DatasetFacts) -> tuple[int, int]:
    """(features of a step, values to forecast)."""
    if facts.kind == "table":
        names = numeric_columns(spec, facts)
        return len(names), 1 if target_column(spec, facts) is not None else len(names)
    if facts.kind == "sequences":
        width = (facts.input_shape or (0, 0))[-1]
        return width, width
    width = 1
    for side in facts.input_shape or ():
        width *= side
    return (width, width) if facts.target_type != "number" else (width + facts.target_width, facts.target_width)

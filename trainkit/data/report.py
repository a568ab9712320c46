"""What a look at the whole dataset tells: counts, statistics, and findings with a severity."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainkit.data import duplicates
from trainkit.data.dataset import PARTS, ArrayInputs, Dataset, ImageInputs, TableInputs
from trainkit.data.decoding import channels, is_deep
from trainkit.data.drift import MOST_FEATURES, drift
from trainkit.data.findings import Finding, finding
from trainkit.data.statistics import Scan, differences, scan
from trainkit.data.target_leakage import giveaways

IMBALANCE = 5.0
ID_SHARE = 0.95
SHOWN = 20
SEVERITIES = ("error", "warning", "info")
MOST_ROUNDED = 50_000_000
"""Numbers in arrays that are still rounded to find rows that are almost the same."""
MOST_LISTED = 1000
"""Unreadable files or rows that the report names one by one."""


def report(dataset: Dataset, reason: str, details: dict[str, Any]) -> dict[str, Any]:
    """The report of a dataset that can be used. Plain data."""
    facts = dataset.facts
    findings = [*_unreadable(details), *_notes(details), *_imbalance(facts.classes), *_parts(dataset)]
    made: dict[str, Any] = {
        "kind": facts.kind,
        "detected_because": reason,
        "samples": facts.samples,
        "classes": facts.classes,
        "splits": facts.splits,
        **details,
        "unreadable": list(details.get("unreadable") or [])[:MOST_LISTED],
    }
    named = duplicates.Named(made.pop("names", None), facts.kind == "table")
    if by_split := _by_split(dataset):
        made["classes_by_split"] = by_split
    brightness = None
    if isinstance(dataset.inputs, ImageInputs):
        seen = scan(dataset.inputs.pixels)
        brightness = seen.means
        made.update(_channels(seen))
        findings += [*_flat(seen, named), *_image_copies(dataset, dataset.inputs, seen, named)]
    else:
        findings += _copies(dataset, named)
    if isinstance(dataset.inputs, TableInputs):
        made["columns"] = [column.model_dump() for column in facts.columns or ()]
        made["column_statistics"] = _statistics(dataset.inputs)
        findings += _columns(dataset)
    if dataset.targets is not None and facts.target_type == "number":
        findings += _whole_targets(dataset.targets)
    if isinstance(dataset.inputs, ArrayInputs):
        findings += _constant_features(dataset.inputs)
        made["feature_statistics"] = _feature_statistics(dataset.inputs)
    findings += [*giveaways(dataset), *drift(dataset, brightness)]
    made["findings"] = sorted(findings, key=lambda found: SEVERITIES.index(found["severity"]))
    return made


def _unreadable(details: dict[str, Any]) -> list[dict[str, str]]:
    items = details.get("unreadable") or []
    first = f"{items[0]['where']}: {items[0]['reason']}" if items else ""
    return (
        [finding("warning", "unreadable", f"{len(items)} left out; the first: {first}", items[0]["where"])]
        if items
        else []
    )


def _notes(details: dict[str, Any]) -> list[dict[str, str]]:
    """What the reader did that its user may not expect."""
    found = []
    if resized := details.get("resized"):
        message = f"{resized} images were resized to {details.get('size', 'the common size')}"
        found.append(finding("info", "resized", message))
    if len({channels(mode) for mode in details.get("modes", ())}) > 1:
        found.append(finding("info", "mixed_modes", "grey and colour images are mixed: all are read as RGB"))
    if deep := [mode for mode in details.get("modes", ()) if is_deep(mode)]:
        message = f"images of more than 8 bits a channel ({', '.join(deep)}) were scaled to 8"
        found.append(finding("info", "reduced_depth", message))
    for one, other in details.get("case_clashes", ())[:SHOWN]:
        message = f"{one!r} and {other!r} differ in upper and lower case alone"
        found.append(finding("warning", "case_clash", message, other))
    if unlabelled := details.get("unlabelled"):
        found.append(finding("warning", "unlabelled", f"{unlabelled} images stand in no row of the table"))
    if column := details.get("split_column"):
        message = "this column gives the training, validation and test part, and is no input"
        found.append(finding("info", "split_column", message, column))
    return found


def _parts(dataset: Dataset) -> list[dict[str, str]]:
    """One class alone, and classes that the shipped training part does not hold."""
    classes = dataset.facts.classes
    if not classes or dataset.targets is None:
        return []
    found = []
    if sum(count > 0 for count in classes.values()) < 2:
        found.append(finding("warning", "one_class", "all samples are of one class: there is nothing to tell apart"))
    if dataset.split is not None:
        split = np.asarray(dataset.split)
        seen = set(np.unique(np.asarray(dataset.targets)[split == 0]).tolist())
        for code, name in enumerate(classes):
            if code not in seen and classes[name] and (split == 0).any():
                message = f"class {name!r} is missing from the training part: it cannot be learnt"
                found.append(finding("warning", "class_not_in_train", message))
    return found[:SHOWN]


def _whole_targets(targets: NDArray[Any]) -> list[dict[str, str]]:
    values = np.unique(targets)
    if targets.ndim > 1 or (values != np.floor(values)).any():
        return []
    message = f"{len(values)} different whole numbers are read as numbers to predict; for classes, save them as text"
    return [finding("info", "whole_number_targets", message, "y")]


def _constant_features(inputs: ArrayInputs) -> list[dict[str, str]]:
    rows = inputs.values.reshape(len(inputs.values), -1)
    constant = np.flatnonzero(rows.min(0) == rows.max(0))
    if not len(constant):
        return []
    listed = ", ".join(map(str, constant[:SHOWN].tolist())) + (" ..." if len(constant) > SHOWN else "")
    return [finding("info", "constant_column", f"{len(constant)} of {rows.shape[1]} features never change", listed)]


def _feature_statistics(inputs: ArrayInputs) -> dict[str, list[float]]:
    """`index` and `rms` (root mean square) of the features; of very many only some, evenly spread."""
    rows = inputs.values.reshape(len(inputs.values), -1)
    index = range(0, rows.shape[1], max(1, -(-rows.shape[1] // MOST_FEATURES)))
    with np.errstate(over="ignore", invalid="ignore"):
        sizes = [float(np.sqrt(np.square(rows[:, place], dtype=np.float64).mean())) for place in index]
    told = [(place, size) for place, size in zip(index, sizes, strict=True) if np.isfinite(size)]
    return {"index": [place for place, _ in told], "rms": [float(f"{size:.6g}") for _, size in told]}


def _imbalance(classes: dict[str, int] | None) -> list[dict[str, str]]:
    if not classes or len(classes) < 2:
        return []
    most, least = max(classes, key=lambda c: classes[c]), min(classes, key=lambda c: classes[c])
    if classes[most] < IMBALANCE * max(1, classes[least]):
        return []
    message = f"class {most!r} has {classes[most]} samples, class {least!r} {classes[least]}: see `balance`"
    return [finding("warning", "class_imbalance", message)]


def _channels(seen: Scan) -> dict[str, list[float]]:
    """Mean and deviation of each channel on the [0, 1] scale, from exact integer sums."""
    counts = seen.histogram
    levels = np.arange(256)[:, None] / 255
    total = counts.sum(0)
    mean = (counts * levels).sum(0) / total
    deviation = np.sqrt((counts * (levels - mean) ** 2).sum(0) / total)
    return {"channel_means": mean.round(6).tolist(), "channel_stds": deviation.round(6).tolist()}


def _flat(seen: Scan, named: duplicates.Named) -> list[Finding]:
    """Pictures of one colour."""
    flat = np.flatnonzero(seen.flat)
    if not len(flat):
        return []
    first = named[int(flat[0])]
    return [finding("warning", "blank_images", f"{len(flat)} images are of one colour; the first: {first}", first)]


def _image_copies(dataset: Dataset, inputs: ImageInputs, seen: Scan, named: duplicates.Named) -> list[Finding]:
    earlier, later = duplicates.near_images(seen.hashes, seen.digests, lambda a, b: differences(inputs.pixels, a, b))
    return [
        *duplicates.exact(dataset, seen.digests, named),
        *duplicates.near(dataset, earlier, later, named, "images"),
    ]


def _copies(dataset: Dataset, named: duplicates.Named) -> list[Finding]:
    inputs = dataset.inputs
    marks = duplicates.digests(inputs)
    found = duplicates.exact(dataset, marks, named)
    rows: NDArray[Any] | None = None
    if isinstance(inputs, TableInputs):
        rows = duplicates.table_rows(inputs, dataset.facts.target)
    elif isinstance(inputs, ArrayInputs) and inputs.values.dtype.kind == "f" and inputs.values.size <= MOST_ROUNDED:
        rows = np.asarray(inputs.values, np.float64).reshape(len(inputs.values), -1)
    if rows is not None and rows.shape[1]:
        found += duplicates.near(dataset, *duplicates.near_rows(rows, marks), named, "rows")
    return found


def _by_split(dataset: Dataset) -> dict[str, dict[str, int]] | None:
    """How many samples of each class stand in each part."""
    classes = dataset.facts.classes
    if dataset.split is None or not classes or dataset.targets is None:
        return None
    split, y = np.asarray(dataset.split), np.asarray(dataset.targets)
    counted = {part: np.bincount(y[split == code], minlength=len(classes)) for code, part in enumerate(PARTS)}
    return {part: dict(zip(classes, counts.tolist(), strict=True)) for part, counts in counted.items() if counts.any()}


def _statistics(inputs: TableInputs) -> dict[str, dict[str, float]]:
    """Of each column of numbers, over its finite values: mean, deviation, least, quartiles and largest."""
    made = {}
    for name, column in inputs.columns.items():
        values = np.asarray(column.values)
        values = values[np.isfinite(values)] if column.categories is None else values[:0]
        if not len(values):
            continue
        with np.errstate(over="ignore", invalid="ignore"):
            numbers = [values.mean(), values.std(), *np.quantile(values, [0, 0.25, 0.5, 0.75, 1])]
        names = ("mean", "std", "min", "q1", "median", "q3", "max")
        made[name] = {n: float(number) for n, number in zip(names, numbers, strict=True) if np.isfinite(number)}
    return made


def _columns(dataset: Dataset) -> list[dict[str, str]]:
    found = []
    n = dataset.facts.samples
    for column in dataset.facts.columns or ():
        if column.missing:
            message = f"{column.missing} of {n} values are missing"
            found.append(finding("warning", "missing_values", message, column.name))
        if column.type == "numeric" and isinstance(dataset.inputs, TableInputs):
            infinite = int(np.isinf(dataset.inputs.columns[column.name].values).sum())
            if infinite:
                found.append(finding("warning", "infinite_values", f"{infinite} values are infinite", column.name))
        if column.unique <= 1:
            message = "no value is present" if column.missing == n else "every value is the same"
            found.append(finding("warning", "constant_column", message, column.name))
        id_like = (column.type == "categorical" or column.integer) and column.name != dataset.facts.target
        if id_like and n > SHOWN and column.unique > ID_SHARE * n:
            found.append(
                finding("warning", "id_like_column", f"{column.unique} different values in {n} rows", column.name)
            )
    target = dataset.facts.column(dataset.facts.target) if dataset.facts.target else None
    if target is not None and target.categories and len(target.categories) <= SHOWN:
        found += _imbalance(target.categories)
    return found

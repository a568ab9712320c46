"""The report of a dataset: counts, statistics, and findings with a severity."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainkit.data import duplicates
from trainkit.data.dataset import PARTS, ArrayInputs, Dataset, ImageInputs, SequenceInputs, TableInputs, table_of
from trainkit.data.decoding import channels, is_deep
from trainkit.data.drift import MOST_FEATURES, find_drift
from trainkit.data.findings import Finding, finding
from trainkit.data.statistics import ImageStatistics, image_statistics, mean_differences
from trainkit.data.target_leakage import find_target_leaks
from trainkit.data.unlabelled import MOST_EXAMPLES
from trainkit.spec.facts import MOST_UNLABELLED, DatasetFacts

IMBALANCE = 5.0
ID_NAME = re.compile(r"(?i:(?:^|[_\s.-])(?:ids?|codes?|zip|fips)$)|[a-z]I[dD]$")
ID_LIKE_SHARE = 0.95
MAX_LISTED = 20
SEVERITIES = ("error", "warning", "info")
MAX_ROUNDED_VALUES = 50_000_000
"""Largest number of array values that is searched for near duplicate rows."""
MAX_UNREADABLE_LISTED = 1000
"""Number of unreadable files or rows that the report lists."""


def report(dataset: Dataset, reason: str, details: dict[str, Any]) -> dict[str, Any]:
    """Return the report of a dataset as plain data."""
    facts = dataset.facts
    findings = [*_unreadable(details), *_reader_notes(details), *_imbalance(facts.classes), *_class_coverage(dataset)]
    result: dict[str, Any] = {
        "kind": facts.kind,
        "detected_because": reason,
        "samples": facts.samples,
        "classes": facts.classes,
        "splits": facts.splits,
        **details,
        "unreadable": list(details.get("unreadable") or [])[:MAX_UNREADABLE_LISTED],
    }
    findings += result.pop("column_findings", [])
    readings = result.pop("column_readings", {})
    named = duplicates.SampleNames(result.pop("names", None), facts.kind == "table")
    if by_split := _by_split(dataset):
        result["classes_by_split"] = by_split
    brightness = None
    if isinstance(dataset.inputs, ImageInputs):
        images = image_statistics(dataset.inputs.pixels)
        brightness = images.means
        result.update(_channels(images))
        findings += [*_flat(images, named), *_image_duplicates(dataset, dataset.inputs, images, named)]
    else:
        findings += _table_duplicates(dataset, named)
    if (table := table_of(dataset.inputs)) is not None:
        result["columns"] = [{**column.model_dump(), **readings.get(column.name, {})} for column in facts.columns or ()]
        result["column_statistics"] = _statistics(table)
        findings += _columns(dataset)
    if isinstance(dataset.inputs, ImageInputs) and table is not None:
        others = (name for name in readings if facts.column(name) is None)
        result["columns"] += [{"name": name, **readings[name]} for name in others]
        findings += _features_of_images(facts)
    elif table is None and readings:  # images or sequences that a table describes
        result["columns"] = [{"name": name, **reading} for name, reading in readings.items()]
    if facts.constant_target:
        message = "the target has the same value in every sample, so there is nothing to learn"
        findings.append(finding("warning", "constant_target", message, "y"))
    if dataset.targets is not None and facts.target_type == "number":
        findings += _whole_targets(dataset.targets)
    if isinstance(dataset.inputs, ArrayInputs):
        findings += _constant_features(dataset.inputs)
    if isinstance(dataset.inputs, ArrayInputs | SequenceInputs):
        result["feature_statistics"] = _feature_statistics(dataset.inputs)
    findings += [*find_target_leaks(dataset), *find_drift(dataset, brightness)]
    result["findings"] = sorted(findings, key=lambda found: SEVERITIES.index(found["severity"]))
    return result


def _unreadable(details: dict[str, Any]) -> list[dict[str, str]]:
    items = details.get("unreadable") or []
    first = f"{items[0]['where']}: {items[0]['reason']}" if items else ""
    return (
        [
            finding(
                "warning",
                "unreadable",
                f"{len(items)} unreadable files or rows were left out; the first: {first}",
                items[0]["where"],
            )
        ]
        if items
        else []
    )


def _reader_notes(details: dict[str, Any]) -> list[dict[str, str]]:
    """Return findings about what the reader did that users may not expect."""
    found = []
    if resized := details.get("resized"):
        message = f"{resized} images were resized to {details.get('size', 'the common size')}"
        found.append(finding("info", "resized", message))
    if len({channels(mode) for mode in details.get("modes", ())}) > 1:
        found.append(finding("info", "mixed_modes", "the dataset mixes grey and colour images: all are read as RGB"))
    if deep := [mode for mode in details.get("modes", ()) if is_deep(mode)]:
        message = f"images with more than 8 bits per channel ({', '.join(deep)}) were scaled to 8 bits"
        found.append(finding("info", "reduced_depth", message))
    for one, other in details.get("case_clashes", ())[:MAX_LISTED]:
        message = f"{one!r} and {other!r} differ only in upper and lower case"
        found.append(finding("warning", "case_clash", message, other))
    if unlabelled := details.get("unlabelled"):
        found.append(
            finding("warning", "unlabelled", f"{unlabelled} images are not in the table, so they were left out")
        )
    for table in details.get("unused_tables", ())[:MAX_LISTED]:
        message = (
            "this table is not used: the folders give the classes; upload with kind=image_table to take its labels"
        )
        found.append(finding("warning", "unused_table", message, table))
    if layout := details.get("layout"):
        found.append(_layout_note(layout))
    if columns := details.get("one_hot"):
        message = (
            f"each row of y holds a single 1 in {columns} columns: y is read as {columns} classes, named 0 to "
            f"{columns - 1} by column; upload with `task: regression` to predict {columns} numbers"
        )
        found.append(finding("info", "one_hot_targets", message, "y"))
    if columns := details.get("multi_label"):
        message = (
            f"y holds only 0 and 1 in {columns} columns, but not a single 1 in each row: it is read as {columns} numbers "
            "to predict; several labels for one sample are not supported as classes"
        )
        found.append(finding("warning", "multi_label_targets", message, "y"))
    if column := details.get("split_column"):
        message = "this column defines the training, validation and test part and is not used as an input"
        found.append(finding("info", "split_column", message, column))
    return found


def _layout_note(layout: dict[str, Any]) -> Finding:
    """Return how arrays of three dimensions a sample were read: which axis is the channels."""
    shape, last = layout["shape"], layout["channels"] == "last"
    channels, (height, width) = (shape[2], shape[:2]) if last else (shape[0], shape[1:])
    reason = "given at upload" if layout["given"] else "detected" if layout["certain"] else "the shape leaves it open"
    message = (
        f"samples of shape {tuple(shape)} are read as images of {width} x {height} pixels with {channels} "
        f"channel{'s' if channels > 1 else ''}, channels {layout['channels']} ({reason})"
    )
    if not layout["given"]:
        message += f"; upload with `channels: {'first' if last else 'last'}` if that is wrong"
    sure = layout["given"] or layout["certain"]
    return finding("info" if sure else "warning", "channel_layout", message, "X")


def _features_of_images(facts: DatasetFacts) -> list[Finding]:
    """Return findings of the columns beside images: which of them a model can learn from, and which not."""
    columns = facts.columns or ()
    texts = {column.name for column in columns if column.categories is None and column.type == "categorical"}
    useless = texts | {column.name for column in columns if not column.unique}
    useful = [column.name for column in columns if column.name not in useless]
    found = []
    if useful:
        message = (
            f"the table describes each image by {_counted(useful)}: a model of kind multimodal learns from the image and "
            "the columns; a model of images sees the image alone, and its job warns of the unused columns"
        )
        found.append(finding("info", "feature_columns", message, useful[0]))
    for column in columns:
        if column.name in useless:
            reason = f"it has {column.unique} different texts, like an id" if column.unique else "it holds no value"
            message = f"no model can learn from this column: {reason}; put it into `dataset.ignore`"
            found.append(finding("warning", "unused_columns", message, column.name))
    return found[: MAX_LISTED + 1]


def _counted(names: Sequence[str]) -> str:
    listed = ", ".join(names[:MAX_LISTED]) + (" ..." if len(names) > MAX_LISTED else "")
    return f"{len(names)} column{'s' if len(names) > 1 else ''} ({listed})"


def _class_coverage(dataset: Dataset) -> list[dict[str, str]]:
    """Return findings of a single class, and of classes that the predefined training part lacks."""
    classes = dataset.facts.classes
    if not classes or dataset.targets is None:
        return []
    found = []
    if sum(count > 0 for count in classes.values()) < 2:
        found.append(finding("warning", "one_class", "all samples are of one class: a classifier needs at least two"))
    if dataset.split is not None:
        split = np.asarray(dataset.split)
        seen = set(np.unique(np.asarray(dataset.targets)[split == 0]).tolist())
        for code, name in enumerate(classes):
            if code not in seen and classes[name] and (split == 0).any():
                message = f"class {name!r} is missing from the training part, so it cannot be learnt"
                found.append(finding("warning", "class_not_in_train", message))
    return found[:MAX_LISTED]


def _whole_targets(targets: NDArray[Any]) -> list[dict[str, str]]:
    values = np.unique(targets)
    if targets.ndim > 1 or (values != np.floor(values)).any():
        return []
    message = (
        f"{len(values)} different whole numbers are used as a regression target; upload with `task: classification` if "
        "they are classes"
    )
    return [finding("info", "whole_number_targets", message, "y")]


def _constant_features(inputs: ArrayInputs) -> list[dict[str, str]]:
    rows = inputs.values.reshape(len(inputs.values), -1)
    constant = np.flatnonzero(rows.min(0) == rows.max(0))
    if not len(constant):
        return []
    listed = ", ".join(map(str, constant[:MAX_LISTED].tolist())) + (" ..." if len(constant) > MAX_LISTED else "")
    return [finding("info", "constant_column", f"{len(constant)} of {rows.shape[1]} features are constant", listed)]


def _feature_statistics(inputs: ArrayInputs | SequenceInputs) -> dict[str, list[float]]:
    """Return `index` and `rms` (root mean square) of the features, over all steps; of many features evenly spread ones."""
    rows = inputs.values.reshape(len(inputs.values), -1)
    index = range(0, rows.shape[1], max(1, -(-rows.shape[1] // MOST_FEATURES)))
    with np.errstate(over="ignore", invalid="ignore"):
        sizes = [float(np.sqrt(np.square(rows[:, place], dtype=np.float64).mean())) for place in index]
    finite = [(place, size) for place, size in zip(index, sizes, strict=True) if np.isfinite(size)]
    return {"index": [place for place, _ in finite], "rms": [float(f"{size:.6g}") for _, size in finite]}


def _imbalance(classes: dict[str, int] | None) -> list[dict[str, str]]:
    if not classes or len(classes) < 2:
        return []
    most, least = max(classes, key=lambda c: classes[c]), min(classes, key=lambda c: classes[c])
    if classes[most] < IMBALANCE * max(1, classes[least]):
        return []
    message = f"class {most!r} has {classes[most]} samples, class {least!r} only {classes[least]}: set `balance`"
    return [finding("warning", "class_imbalance", message)]


def _channels(seen: ImageStatistics) -> dict[str, list[float]]:
    """Return mean and standard deviation of each channel on the [0, 1] scale, from exact integer counts."""
    counts = seen.histogram
    levels = np.arange(256)[:, None] / 255
    total = counts.sum(0)
    mean = (counts * levels).sum(0) / total
    deviation = np.sqrt((counts * (levels - mean) ** 2).sum(0) / total)
    return {"channel_means": mean.round(6).tolist(), "channel_stds": deviation.round(6).tolist()}


def _flat(seen: ImageStatistics, named: duplicates.SampleNames) -> list[Finding]:
    """Return a finding of images of a single colour."""
    flat = np.flatnonzero(seen.flat)
    if not len(flat):
        return []
    first = named[int(flat[0])]
    return [finding("warning", "blank_images", f"{len(flat)} images are of a single colour; the first: {first}", first)]


def _image_duplicates(
    dataset: Dataset, inputs: ImageInputs, seen: ImageStatistics, named: duplicates.SampleNames
) -> list[Finding]:
    earlier, later = duplicates.near_images(
        seen.hashes, seen.digests, lambda a, b: mean_differences(inputs.pixels, a, b)
    )
    marks = seen.digests
    repeated = []
    if inputs.columns is not None:  # the same image with other columns is another sample
        marks = duplicates.joined_digests(marks, duplicates.digests(inputs.columns))
        repeated = duplicates.repeated_images(dataset, seen.digests, marks, named)
    return [
        *duplicates.exact_duplicates(dataset, marks, named),
        *repeated,
        *duplicates.near_duplicates(dataset, earlier, later, named, "images"),
    ]


def _table_duplicates(dataset: Dataset, named: duplicates.SampleNames) -> list[Finding]:
    inputs = dataset.inputs
    marks = duplicates.digests(inputs)
    found = duplicates.exact_duplicates(dataset, marks, named)
    rows: NDArray[Any] | None = None
    if isinstance(inputs, TableInputs):
        rows = duplicates.table_rows(inputs, dataset.facts.target)
    elif (
        isinstance(inputs, ArrayInputs) and inputs.values.dtype.kind == "f" and inputs.values.size <= MAX_ROUNDED_VALUES
    ):
        rows = np.asarray(inputs.values, np.float64).reshape(len(inputs.values), -1)
    if rows is not None and rows.shape[1]:
        found += duplicates.near_duplicates(dataset, *duplicates.near_rows(rows, marks), named, "rows")
    return found


def _by_split(dataset: Dataset) -> dict[str, dict[str, int]] | None:
    """Return the number of samples of each class in each part."""
    classes = dataset.facts.classes
    if dataset.split is None or not classes or dataset.targets is None:
        return None
    split, y = np.asarray(dataset.split), np.asarray(dataset.targets)
    counted = {part: np.bincount(y[split == code], minlength=len(classes)) for code, part in enumerate(PARTS)}
    return {part: dict(zip(classes, counts.tolist(), strict=True)) for part, counts in counted.items() if counts.any()}


def _statistics(inputs: TableInputs) -> dict[str, dict[str, float]]:
    """Return mean, standard deviation, minimum, quartiles and maximum of the finite values of each numeric column."""
    statistics = {}
    for name, column in inputs.columns.items():
        values = np.asarray(column.values)
        values = values[np.isfinite(values)] if column.categories is None else values[:0]
        if not len(values):
            continue
        with np.errstate(over="ignore", invalid="ignore"):
            numbers = [values.mean(), values.std(), *np.quantile(values, [0, 0.25, 0.5, 0.75, 1])]
        names = ("mean", "std", "min", "q1", "median", "q3", "max")
        statistics[name] = {n: float(number) for n, number in zip(names, numbers, strict=True) if np.isfinite(number)}
    return statistics


def _unlabelled_rows(dataset: Dataset, target: str, missing: int) -> Finding:
    """Return the finding of rows without a target, which a job leaves out; the first ones are named."""
    assert isinstance(dataset.inputs, TableInputs)
    column = dataset.inputs.columns[target]
    values = np.asarray(column.values)
    gaps = np.flatnonzero(values < 0 if column.categories is not None else np.isnan(values))[:MOST_EXAMPLES]
    named = duplicates.SampleNames(rows=True)
    listed = ", ".join(named[row] for row in gaps.tolist()) + (" ..." if missing > MOST_EXAMPLES else "")
    most = missing > MOST_UNLABELLED * dataset.facts.samples
    does = "refuses the dataset, unless `dataset.missing_target` says `leave_out`" if most else "leaves them out"
    message = f"{missing} of {dataset.facts.samples} rows have no target ({listed}): a job {does}"
    return finding("warning", "unlabelled_rows", message, target)


def _columns(dataset: Dataset) -> list[dict[str, str]]:
    found = []
    n = dataset.facts.samples
    for column in dataset.facts.columns or ():
        if column.missing and column.name == dataset.facts.target:
            found.append(_unlabelled_rows(dataset, column.name, column.missing))
        elif column.missing:
            message = f"{column.missing} of {n} values are missing"
            found.append(finding("warning", "missing_values", message, column.name))
        if column.infinite:
            message = f"{column.infinite} of {n} values are infinite, or beyond the largest float32 (3.4e38)"
            found.append(finding("warning", "infinite_values", message, column.name))
        if column.unique == 1 and column.name == dataset.facts.target:
            message = "the target has the same value in every row, so there is nothing to learn"
            found.append(finding("warning", "constant_target", message, column.name))
        elif column.unique <= 1:
            message = "no value is present" if column.missing == n else "every value is the same"
            found.append(finding("warning", "constant_column", message, column.name))
        id_like = (column.type == "categorical" or column.integer) and column.name != dataset.facts.target
        if id_like and n > MAX_LISTED and column.unique > ID_LIKE_SHARE * n:
            found.append(
                finding("warning", "id_like_column", f"{column.unique} different values in {n} rows", column.name)
            )
        elif id_like and column.type == "numeric" and column.unique > 2 and ID_NAME.search(column.name):
            message = (
                "whole numbers in a column named like an id: a model takes them as amounts; if they name things, set the "
                "column's type to category, or leave it out by `ignore`"
            )
            found.append(finding("info", "ids_as_numbers", message, column.name))
    target = dataset.facts.column(dataset.facts.target) if dataset.facts.target else None
    if target is not None and target.categories and len(target.categories) <= MAX_LISTED:
        found += _imbalance(target.categories)
    return found

"""What a look at the whole dataset tells: counts, statistics, and findings with a severity."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainkit.data.dataset import PARTS, ArrayInputs, Dataset, ImageInputs, Inputs, SequenceInputs, TableInputs
from trainkit.data.decoding import channels

IMBALANCE = 5.0
ID_SHARE = 0.95
SHOWN = 20
MOST_LISTED = 1000
"""Unreadable files or rows that the report names one by one."""


def finding(severity: str, code: str, message: str, where: str = "") -> dict[str, str]:
    """One finding: severity `error`, `warning` or `info`."""
    return {"severity": severity, "code": code, "message": message, "where": where}


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
    if isinstance(dataset.inputs, ImageInputs):
        made.update(_channels(dataset.inputs))
    if isinstance(dataset.inputs, TableInputs):
        made["columns"] = [column.model_dump() for column in facts.columns or ()]
        findings += _columns(dataset)
    if dataset.targets is not None and facts.target_type == "number":
        findings += _whole_targets(dataset.targets)
    if isinstance(dataset.inputs, ArrayInputs):
        findings += _constant_features(dataset.inputs)
    findings += _duplicates(dataset)
    made["findings"] = findings
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


def _imbalance(classes: dict[str, int] | None) -> list[dict[str, str]]:
    if not classes or len(classes) < 2:
        return []
    most, least = max(classes, key=lambda c: classes[c]), min(classes, key=lambda c: classes[c])
    if classes[most] < IMBALANCE * max(1, classes[least]):
        return []
    message = f"class {most!r} has {classes[most]} samples, class {least!r} {classes[least]}: see `balance`"
    return [finding("warning", "class_imbalance", message)]


def _channels(inputs: ImageInputs) -> dict[str, list[float]]:
    """Mean and deviation of each channel on the [0, 1] scale, from exact integer sums."""
    pixels = inputs.pixels
    counts = np.zeros((256, pixels.shape[3]), np.int64)
    for start in range(0, len(pixels), 4096):
        block = np.asarray(pixels[start : start + 4096])
        for channel in range(pixels.shape[3]):
            counts[:, channel] += np.bincount(block[..., channel].ravel(), minlength=256)
    levels = np.arange(256)[:, None] / 255
    total = counts.sum(0)
    mean = (counts * levels).sum(0) / total
    deviation = np.sqrt((counts * (levels - mean) ** 2).sum(0) / total)
    return {"channel_means": mean.round(6).tolist(), "channel_stds": deviation.round(6).tolist()}


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


def _duplicates(dataset: Dataset) -> list[dict[str, str]]:
    """Exact duplicates, and the same sample in the training and the test part (leakage)."""
    marks = [hashlib.blake2b(sample, digest_size=16).digest() for sample in _samples(dataset.inputs)]
    again = len(marks) - len(set(marks))
    found = [finding("info", "duplicates", f"{again} samples are exact copies of others")] if again else []
    if dataset.targets is not None and dataset.facts.target_type == "class" and again:
        labels: dict[bytes, set[int]] = {}
        for mark, label in zip(marks, np.asarray(dataset.targets).tolist(), strict=True):
            labels.setdefault(mark, set()).add(label)
        if torn := sum(len(own) > 1 for own in labels.values()):
            message = f"{torn} samples stand under two or more classes: at most one of their labels can be right"
            found.append(finding("warning", "conflicting_labels", message))
    if dataset.split is not None:
        parts: dict[bytes, set[int]] = {}
        for mark, part in zip(marks, np.asarray(dataset.split).tolist(), strict=True):
            parts.setdefault(mark, set()).add(part)
        shared = Counter(tuple(sorted(own)) for own in parts.values() if len(own) > 1)
        for own, count in shared.items():
            names = " and ".join(PARTS[part] for part in own)
            message = f"{count} samples stand in {names}: the figures of the held-out part will be too good"
            found.append(finding("warning", "leakage", message))
    return found


def _samples(inputs: Inputs) -> Iterator[bytes]:
    """The bytes of each sample's inputs."""
    if isinstance(inputs, SequenceInputs):
        for start, end in zip(inputs.offsets[:-1].tolist(), inputs.offsets[1:].tolist(), strict=True):
            yield inputs.values[start:end].tobytes()
        return
    if isinstance(inputs, ImageInputs):
        rows = inputs.pixels
    elif isinstance(inputs, ArrayInputs):
        rows = inputs.values
    else:
        rows = np.stack([np.asarray(column.values, np.float64) for column in inputs.columns.values()], axis=1)
    for row in rows:
        yield row.tobytes()

"""Sequences in long form: a CSV with an id column, one row for each step, and the same label in all rows of an id."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainkit.data.dataset import Column, Dataset, SequenceInputs, class_targets, make_dataset, number_classes
from trainkit.data.errors import data_error
from trainkit.data.table.reader import LABEL_COLUMNS, read_columns
from trainkit.data.table.table_format import SequenceTable
from trainkit.data.unlabelled import unlabelled_finding
from trainkit.spec.read_options import DEFAULT_READ_OPTIONS, ReadOptions

ID_COLUMNS = ("sequence_id", "sequence", "id", "series", "series_id")


def read_long_csv(
    path: Path, *, target: str | None, reading: ReadOptions = DEFAULT_READ_OPTIONS
) -> tuple[Dataset, dict[str, Any]]:
    """Return (dataset, details); the rows of each id keep their order.

    The default `target` is the only column named label, class, target, category or y, if it is constant in each
    sequence; otherwise there is no target. Sequences without a target are left out, unless they are more than half.

    Raises DataError naming the column, or the row, where row 1 is the first below the header.
    """
    table = read_columns(path, target, reading)
    columns, parts, details = table.columns, table.split, table.details
    name = next((column for column in columns if column.lower() in ID_COLUMNS), None)
    if name is None:
        raise data_error("missing_column", "there is no column of sequence ids", path.name, f"Name it {ID_COLUMNS[0]}.")
    ids = np.asarray(columns[name].values)
    if target is None:
        target = _label_column(columns, ids)
    if _gaps(columns[name]).any():
        raise data_error("missing_values", f'the column "{name}" has missing or infinite values', name)
    if target is not None and np.isinf(columns[target].values).any():
        raise data_error("infinite_values", f'the column "{target}" has infinite values', target)
    _, first, group = np.unique(ids, return_index=True, return_inverse=True)
    rank = np.argsort(np.argsort(first))[group]  # sequences in order of appearance
    order = np.argsort(rank, kind="stable")
    lengths = np.bincount(rank)
    features = [column for column in columns if column not in (name, target)]
    for feature in features:
        if columns[feature].is_date:
            hint = "Leave the column out: the rows of a sequence keep the order of the file."
            raise data_error("not_numeric", f'the column "{feature}" holds dates', feature, hint)
        if columns[feature].categories is not None or not np.isfinite(columns[feature].values).all():
            hint = "Features of sequences must be finite numbers without gaps."
            raise data_error(
                "not_numeric", f'the column "{feature}" holds values that are not finite numbers', feature, hint
            )
    if not features:
        raise data_error("no_features", "there is no feature column besides id and target", path.name)
    values = np.stack([columns[feature].values for feature in features], axis=1)[order].astype(np.float32)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    targets: NDArray[Any] | None = None
    classes: tuple[str, ...] | None = None
    labelled = np.ones(len(lengths), bool)
    if target is not None:
        column = columns[target]
        gaps = _of_sequence(_gaps(column), target, order, offsets)
        places = [f"row {int(order[offsets[place]]) + 1}" for place in np.flatnonzero(gaps).tolist()]
        details["column_findings"] += unlabelled_finding(places, len(gaps), "sequences", target)
        labelled = ~gaps
        targets = _of_sequence(np.nan_to_num(column.values, nan=0.0), target, order, offsets)[labelled]
        whole = bool((targets == np.floor(targets)).all())
        if column.categories is not None and reading.task != "regression":
            targets, classes = targets.astype(np.int64), column.categories
        elif column.categories is not None:
            hint = "Leave `task: regression` out."
            raise data_error("not_numeric", f'the label column "{target}" holds text', target, hint)
        elif whole or reading.task is not None:
            named = targets
            targets, classes = class_targets(targets.astype(np.int64) if whole else targets, task=reading.task)
            if whole and classes is not None:  # each named as the file writes it
                targets, classes = number_classes(column, named)
    split = None if parts is None else _of_sequence(parts, details["split_column"], order, offsets)[labelled]
    if not labelled.all():
        values = values[np.repeat(labelled, lengths)]
        offsets = np.concatenate([[0], np.cumsum(lengths[labelled])]).astype(np.int64)
    source = SequenceTable(format=table.format, id_column=name, features=tuple(features))
    dataset = make_dataset("sequences", SequenceInputs(values, offsets, source), targets, classes, split)
    return dataset, {**details, "features": features, "id_column": name, "label_column": target}


def _label_column(columns: Mapping[str, Column], ids: NDArray[Any]) -> str | None:
    named = [column for column in columns if column.lower() in LABEL_COLUMNS]
    if len(named) != 1:
        return None
    pairs = np.unique(np.stack([ids, np.asarray(columns[named[0]].values)], axis=1).astype(np.float64), axis=0)
    return named[0] if len(pairs) == len(np.unique(ids)) else None


def _gaps(column: Column) -> NDArray[np.bool_]:
    """(rows,) whether a value is missing or infinite."""
    values = np.asarray(column.values)
    missing: NDArray[np.bool_] = values < 0 if column.categories is not None else ~np.isfinite(values)
    return missing


def _of_sequence(
    values: NDArray[Any], column: str, order: NDArray[np.int64], offsets: NDArray[np.int64]
) -> NDArray[Any]:
    """Return the value that all rows of a sequence share, (sequences,)."""
    ordered = values[order]
    firsts = ordered[offsets[:-1]]
    differs = ordered != np.repeat(firsts, np.diff(offsets))
    if differs.any():
        row = int(order[np.flatnonzero(differs)[0]]) + 1
        raise data_error(
            "mixed_labels", f'"{column}" changes within a sequence', f"row {row}", "Give one value for each sequence."
        )
    return firsts

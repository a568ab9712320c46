"""Sequences in long form: a CSV with an id column, one row a step, and one label in all rows of an id."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from trainkit.data.dataset import Dataset, SequenceInputs, TableInputs, class_targets, make_dataset
from trainkit.data.errors import refuse
from trainkit.data.table import read_table

ID_COLUMNS = ("sequence_id", "sequence", "id", "series", "series_id")


def read_long_csv(path: Path, *, target: str | None) -> tuple[Dataset, dict[str, Any]]:
    """(dataset, details): rows in the file's order within each id. Raises DataError naming the column or the id."""
    table, details = read_table(path, target=target)
    assert isinstance(table.inputs, TableInputs)
    columns = table.inputs.columns
    name = next((column for column in columns if column.lower() in ID_COLUMNS), None)
    if name is None:
        raise refuse("missing_column", "no column tells the sequences apart", path.name, f"Name it {ID_COLUMNS[0]}.")
    ids = np.asarray(columns[name].values)
    if (ids < 0).any() if columns[name].categories is not None else np.isnan(ids).any():
        raise refuse("missing_values", f'the column "{name}" has gaps', name)
    _, first, group = np.unique(ids, return_index=True, return_inverse=True)
    rank = np.argsort(np.argsort(first))[group]  # sequences in order of appearance
    order = np.argsort(rank, kind="stable")
    lengths = np.bincount(rank)
    features = [column for column in columns if column not in (name, target)]
    for feature in features:
        if columns[feature].categories is not None or np.isnan(columns[feature].values).any():
            hint = "Steps hold numbers without gaps."
            raise refuse("not_numeric", f'the column "{feature}" is not all numbers', feature, hint)
    if not features:
        raise refuse("no_features", "no column of measurements is left", path.name)
    values = np.stack([columns[feature].values for feature in features], axis=1)[order].astype(np.float32)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    targets, classes = None, None
    if target is not None:
        column = columns[target]
        own = np.asarray(column.values)[order]
        starts = own[offsets[:-1]]
        differs = own != np.repeat(starts, lengths)
        if differs.any():
            row = int(order[np.flatnonzero(differs)[0]]) + 2
            raise refuse(
                "mixed_labels", f'"{target}" differs within one sequence', f"row {row}", "One label a sequence."
            )
        if column.categories is not None:
            targets, classes = starts.astype(np.int64), column.categories
        elif (starts == np.floor(starts)).all():
            targets, classes = class_targets(starts.astype(np.int64))
        else:
            targets = starts
    dataset = make_dataset("sequences", SequenceInputs(values, offsets), targets, classes, None)
    return dataset, {**details, "features": features, "id_column": name}

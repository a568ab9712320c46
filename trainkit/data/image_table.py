"""Images described by a table: an archive or folder with image files and one CSV, TSV, Parquet or JSON Lines file."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainkit.data.dataset import (
    Column,
    Dataset,
    ImageInputs,
    TableInputs,
    class_targets,
    make_dataset,
    number_classes,
)
from trainkit.data.errors import DataError, DataProblem, data_error
from trainkit.data.image_loading import MAX_UNREADABLE_SHARE, Progress, load_images
from trainkit.data.pixels import PixelFile
from trainkit.data.table.reader import LABEL_COLUMNS, TABLE_SUFFIXES, read_columns
from trainkit.data.unlabelled import unlabelled_finding
from trainkit.spec.facts import FEW_VALUES
from trainkit.spec.read_options import DEFAULT_READ_OPTIONS, ReadOptions


def read_image_table(
    path: Path,
    *,
    target: str | None = None,
    size: tuple[int, int] | None = None,
    reading: ReadOptions = DEFAULT_READ_OPTIONS,
    store: Path | None = None,
    progress: Progress | None = None,
) -> tuple[Dataset, dict[str, Any]]:
    """Return (dataset, details): one sample for each row of the table, in order.

    The column of file names is detected by its values. `target` names the label column; by default it is the column
    named label, class, target, category or y, or the only other one. A `split` column gives the parts. `size` and
    `store` are as in `read_images`. The other columns are features beside the image, `ImageInputs.columns`.
    Raises DataError naming the file, the row or the column.
    """
    every = None if store is None else store.with_suffix(".every")
    try:
        found = load_images(path, size=size, tables=TABLE_SUFFIXES, store=every, progress=progress)
    finally:
        if every is not None:
            every.unlink(missing_ok=True)  # stays readable while it is memory-mapped
    where, data = only_table(found.tables, path.name)
    with tempfile.TemporaryDirectory() as folder:
        alone = Path(folder) / PurePosixPath(where).name
        alone.write_bytes(data)
        table = read_columns(alone, target, reading)
    columns, split, details = table.columns, table.split, table.details
    name, places = best_file_column({one: _texts(column) for one, column in columns.items()}, found.names, where)
    label = _label_column([column for column in columns if column != name], target, where)
    kept, bad, unlabelled = _usable(columns[name], places, columns[label])
    details["column_findings"] += unlabelled_finding(unlabelled, len(places), "rows", label)
    height, width, channels = found.pixels.shape[1:]
    pixels = PixelFile((height, width), channels, store).fill_from(found.pixels, places[kept])
    image_details = found.details()
    targets, classes = _targets(columns[label], kept)
    features = {one: column.take(kept) for one, column in columns.items() if one not in (name, label)}
    inputs = ImageInputs(pixels, TableInputs(features, table.format) if features else None)
    parts = None if split is None else split[kept]
    dataset = make_dataset("image_table", inputs, targets, classes, parts, target=label)
    return dataset, {
        **details,
        **image_details,
        "unreadable": [*image_details["unreadable"], *details["unreadable"], *bad],
        "file_column": name,
        "label_column": label,
        "names": [found.names[place] for place in places[kept].tolist()],
        "unlabelled": len(found.names) - len(set(places[kept].tolist())),
    }


def only_table(tables: Mapping[str, bytes], where: str) -> tuple[str, bytes]:
    """Return (name, bytes) of the one table beside images. Raises DataError for none and for several."""
    if len(tables) != 1:
        listed = ", ".join(list(tables)[:5]) or "none"
        raise data_error("many_tables", f"exactly one table must label the images; found {listed}", where)
    ((name, data),) = tables.items()
    return name, data


def texts_of(cells: Sequence[Any]) -> list[str]:
    """Return the cells of a request's column as file names: the number 7.0 is "7", gaps are empty."""
    whole = [
        int(cell) if isinstance(cell, int) or (isinstance(cell, float) and cell.is_integer()) else "" for cell in cells
    ]
    return [cell if isinstance(cell, str) else str(number) for cell, number in zip(cells, whole, strict=True)]


def _texts(column: Column) -> list[str]:
    """Return the values as file names: the number 7.0 is "7", gaps are empty."""
    if column.categories is not None:
        return ["" if code < 0 else column.categories[code] for code in column.values.tolist()]
    return [str(int(value)) if np.isfinite(value) and value == int(value) else "" for value in column.values.tolist()]


def best_file_column(
    texts_by_column: Mapping[str, Sequence[str]], names: Sequence[str], where: str
) -> tuple[str, NDArray[np.int64]]:
    """Return (the column that names images most often, position of each row's image or -1).

    A file may be named by any tail of its path, with or without the suffix; an ambiguous tail matches no file.
    """
    known: dict[str, int] = {}
    for position, name in enumerate(names):
        parts = PurePosixPath(name).parts
        for start in range(len(parts)):
            tail = PurePosixPath(*parts[start:])
            for key in {str(tail), str(tail.with_suffix(""))}:
                known[key] = position if key not in known else -1
    best, most = "", np.array([], np.int64)
    for name, column in texts_by_column.items():
        texts = (str(PurePosixPath(text.replace("\\", "/"))) for text in column)
        places = np.array([known.get(text, -1) for text in texts], np.int64)
        if (places >= 0).sum() > (most >= 0).sum():
            best, most = name, places
    if not best:
        hint = f"Add a column with names such as {names[0]}."
        raise data_error("no_file_column", "no column holds the names of the images", where, hint)
    return best, most


def _label_column(others: Sequence[str], target: str | None, where: str) -> str:
    if target is not None:
        return target
    named = [column for column in others if column.lower() in LABEL_COLUMNS]
    if len(named or others) != 1:
        hint = f"Set `target`: {', '.join(others[:30]) or 'there is only the column of file names'}."
        raise data_error("missing_target", "the label column is ambiguous", where, hint)
    return (named or list(others))[0]


def _usable(
    files: Column, places: NDArray[np.int64], labels: Column
) -> tuple[NDArray[np.int64], list[dict[str, str]], list[str]]:
    """Return (rows with an image and a label, problems of rows without an image, places of rows without a label alone).

    Raises DataError if too many rows have no image.
    """
    values = np.asarray(labels.values)
    gap = values < 0 if labels.categories is not None else np.isnan(values)
    unusable = (places < 0) | (np.zeros(len(values), bool) if labels.categories is not None else np.isinf(values))
    texts = _texts(files)
    bad = [
        {
            "where": f"row {row + 1}",
            "reason": f"no readable image {texts[row]!r}" if places[row] < 0 else "the label is infinite",
        }
        for row in np.flatnonzero(unusable).tolist()
    ]
    unlabelled = [f"row {row + 1}" for row in np.flatnonzero(~unusable & gap).tolist()]
    if bad and len(bad) >= MAX_UNREADABLE_SHARE * len(places):
        hint = "Correct the names, add the images, or remove the rows."
        raise DataError([DataProblem("bad_row", item["reason"], item["where"], hint) for item in bad[:100]])
    return np.flatnonzero(~unusable & ~gap), bad, unlabelled


def _targets(labels: Column, kept: NDArray[np.int64]) -> tuple[NDArray[Any], tuple[str, ...] | None]:
    """Return targets and class names: text and few whole numbers are classes, other numbers a regression target."""
    values = np.asarray(labels.values)[kept]
    if labels.categories is not None:
        return class_targets(np.array([labels.categories[code] for code in values.tolist()]))
    if (values == np.floor(values)).all() and len(np.unique(values)) <= FEW_VALUES:
        return number_classes(labels, values)
    return values, None

"""What a client sends to a model of images and columns: images, each with a row of its table."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainkit.data.errors import InputError, InputProblem, data_error
from trainkit.data.image_loading import load_images
from trainkit.data.image_table import best_file_column, only_table, texts_of
from trainkit.data.table.reader import TABLE_SUFFIXES
from trainkit.data.table.request_rows import TableRows, read_request, records_of
from trainkit.data.table.table_format import TableFormat

FIELDS = ("image", "columns")
MOST_PROBLEMS = 20


@dataclass(frozen=True, slots=True)
class ImageRows:
    """n images with the row of each."""

    images: Sequence[Any] | NDArray[np.uint8]
    """PIL images or pixel arrays of any size; or (n, H, W, C), as intake reads them."""
    rows: TableRows

    @property
    def count(self) -> int:
        """Number of samples."""
        return self.rows.count

    def number(self, row: int) -> int:
        """Return the number of a sample in what was sent, from 0."""
        return self.rows.number(row)

    def place(self, row: int) -> str:
        """Return how a sentence names a sample, as its row."""
        return self.rows.place(row)

    def take(self, rows: Sequence[int]) -> ImageRows:
        """Return some of the samples, which keep their numbers."""
        images = self.images[rows] if isinstance(self.images, np.ndarray) else [self.images[row] for row in rows]
        return ImageRows(images, self.rows.take(rows))

    def without(self, names: Collection[str]) -> ImageRows:
        """Return the same without some columns."""
        return ImageRows(self.images, self.rows.without(names))


def image_rows(x: Any, features: Sequence[str], *, strict: bool = False) -> ImageRows:
    """Return the samples of a Python caller or a JSON document: one or many objects `{"image": ..., "columns": {...}}`.

    `columns` is an object of column name to value, or a list of values in the order of `features`. `strict` as in
    `records_of`. Raises InputError.
    """
    if isinstance(x, ImageRows):
        return x
    samples = [x] if isinstance(x, Mapping) else list(x)
    hint = f'Send {{"image": ..., "columns": {{...}}}}, with the columns {", ".join(list(features)[:30])}.'
    problems = []
    for row, sample in enumerate(samples):
        if not isinstance(sample, Mapping):
            message = f"row {row}: the model reads an image and the columns of its table"
            problems.append(InputProblem("not_a_sample", message, row, hint=hint))
            continue
        for name in (name for name in FIELDS if sample.get(name) is None):
            problems.append(InputProblem("missing", f"row {row}: there is no `{name}`", row, name, hint))
        for name in (str(name) for name in sample if name not in FIELDS):
            problems.append(InputProblem("unknown_field", f"row {row}: there is no field {name!r}", row, name, hint))
    if problems:
        raise InputError(problems[:MOST_PROBLEMS])
    rows = [sample["columns"] for sample in samples]
    return ImageRows([sample["image"] for sample in samples], records_of(rows, features, strict=strict))


def read_image_archive(
    path: Path, table_format: TableFormat, features: Sequence[str], *, size: tuple[int, int]
) -> ImageRows:
    """Read an archive of images and one table, in the order of its rows: the table as that of the training file.

    Images are brought to `size` (H, W). Raises InputError for rows without an image and images without a row, DataError
    for an archive that is none of these.
    """
    found = load_images(path, size=size, tables=TABLE_SUFFIXES)
    where, data = only_table(found.tables, path.name)
    rows = read_request(table_format, data, "application/octet-stream", features)
    texts = {name: texts_of(cells) for name, cells in rows.columns.items()}
    name, places = best_file_column(texts, found.names, PurePosixPath(where).name)
    unnamed = sorted(set(range(len(found.names))) - set(places.tolist()))
    problems = [
        InputProblem("missing_image", f"{rows.place(row)}: no readable image {texts[name][row]!r}", row, name)
        for row, place in enumerate(places.tolist())
        if place < 0
    ] + [
        InputProblem("image_without_row", f"the table has no row for the image {found.names[place]}", hint="Remove it.")
        for place in unnamed
    ]
    if problems:
        raise InputError(problems[:MOST_PROBLEMS])
    if not rows.count:
        raise data_error("no_rows", "the table has no rows", where)
    return ImageRows(found.pixels[places], rows)

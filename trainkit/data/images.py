"""Images in class folders: a folder, zip or tar with one folder for each class, optionally below train/val/test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainkit.data.dataset import PART_NAMES, Dataset, ImageInputs, make_dataset
from trainkit.data.errors import data_error
from trainkit.data.image_loading import Progress, load_images
from trainkit.data.table.reader import TABLE_SUFFIXES


def read_images(
    path: Path, *, size: tuple[int, int] | None = None, store: Path | None = None, progress: Progress | None = None
) -> tuple[Dataset, dict[str, Any]]:
    """Return (dataset, details for the report). Raises DataError naming the bad entries.

    All images get one size: `size` (H, W), or the most common one. They are grey (1 channel) if all files are, else RGB,
    with transparency on white. The pixels are written to `store` (a .npy file) or to an unnamed temporary file.
    """
    found = load_images(path, size=size, store=store, progress=progress)
    parts, classes, labels = _labels([tuple(name.split("/")[:-1]) for name in found.names], found.names)
    tables = [name for name in found.others if name.lower().endswith(TABLE_SUFFIXES)]
    details = {**found.details(), "unused_tables": tables}
    return make_dataset("images", ImageInputs(found.pixels), labels, classes, parts), details


def _labels(
    folders: list[tuple[str, ...]], names: list[str]
) -> tuple[NDArray[np.int8] | None, tuple[str, ...], NDArray[np.int64]]:
    """Return (parts, sorted class names, class indices) from the folders of the images."""
    depth = 0
    # skip single root folders, unless the folder is the only class
    while all(len(f) > depth + 1 for f in folders) and len({f[depth] for f in folders}) == 1:
        depth += 1
    below = [f[depth:] for f in folders]
    loose = [name for name, f in zip(names, below, strict=True) if not f]
    if loose:
        hint = "Put each image into the folder of its class."
        raise data_error("no_class_folder", f"{len(loose)} images are not in a class folder", loose[0], hint)
    parts = None
    if all(f[0].lower() in PART_NAMES for f in below):
        bare = [name for name, f in zip(names, below, strict=True) if len(f) < 2]
        if bare:
            hint = "Inside train, validation and test, put each image into the folder of its class."
            raise data_error("no_class_folder", f"{len(bare)} images are not in a class folder", bare[0], hint)
        parts = np.array([PART_NAMES[f[0].lower()] for f in below], np.int8)
        below = [f[1:] for f in below]
    labels = ["/".join(f) for f in below]
    classes = tuple(sorted(set(labels)))
    place = {name: index for index, name in enumerate(classes)}
    return parts, classes, np.array([place[name] for name in labels], np.int64)

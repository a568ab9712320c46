"""Class-folder images: a folder, zip or tar, one folder of images a class, perhaps with train/val/test above them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainkit.data.dataset import PART_NAMES, Dataset, ImageInputs, make_dataset
from trainkit.data.decoding import to_pixels
from trainkit.data.errors import refuse
from trainkit.data.image_loading import Progress, gather

__all__ = ["read_images", "to_pixels"]


def read_images(
    path: Path, *, size: tuple[int, int] | None = None, store: Path | None = None, progress: Progress | None = None
) -> tuple[Dataset, dict[str, Any]]:
    """(dataset, details for the report). Raises DataError naming the entries that stand in the way.

    All images get one size, `size` (H, W) or the commonest; all are grey (1 channel) when every one of them is, else RGB.
    Transparency is laid on white. The pixels lie in `store` (a .npy file), or in a file without a name.
    """
    found = gather(path, size=size, store=store, progress=progress)
    parts, classes, labels = _labels([tuple(name.split("/")[:-1]) for name in found.names], found.names)
    return make_dataset("images", ImageInputs(found.pixels), labels, classes, parts), found.details()


def _labels(
    folders: list[tuple[str, ...]], names: list[str]
) -> tuple[NDArray[np.int8] | None, tuple[str, ...], NDArray[np.int64]]:
    """(parts, class names in sorted order, class indices) from the folders the images lie in."""
    depth = 0
    # a single root folder above everything says nothing, unless it is the only class
    while all(len(f) > depth + 1 for f in folders) and len({f[depth] for f in folders}) == 1:
        depth += 1
    below = [f[depth:] for f in folders]
    loose = [name for name, f in zip(names, below, strict=True) if not f]
    if loose:
        hint = "Put every image into the folder of its class."
        raise refuse("no_class_folder", f"{len(loose)} images lie in no class folder", loose[0], hint)
    parts = None
    if all(f[0].lower() in PART_NAMES for f in below):
        bare = [name for name, f in zip(names, below, strict=True) if len(f) < 2]
        if bare:
            hint = "Inside train, validation and test, put every image into the folder of its class."
            raise refuse("no_class_folder", f"{len(bare)} images lie in no class folder", bare[0], hint)
        parts = np.array([PART_NAMES[f[0].lower()] for f in below], np.int8)
        below = [f[1:] for f in below]
    labels = ["/".join(f) for f in below]
    classes = tuple(sorted(set(labels)))
    place = {name: index for index, name in enumerate(classes)}
    return parts, classes, np.array([place[name] for name in labels], np.int64)

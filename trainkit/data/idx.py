"""IDX files of MNIST, gzipped or not, in a folder or an archive; train-* and t10k-* are the parts."""

from __future__ import annotations

import gzip
import io
import re
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainkit.data.archive import entries, read_bounded
from trainkit.data.dataset import Dataset, ImageInputs, make_dataset
from trainkit.data.errors import data_error
from trainkit.data.limits import check_expansion
from trainkit.data.reasons import damage_reason

IMAGES, LABELS = 3, 1
"""Dimensions of the two kinds of files."""
MOST_BYTES = 16 * 2**30


def looks_like_idx(name: str) -> bool:
    """Return whether a file name is one of MNIST's."""
    return re.search(r"idx[13]-ubyte", name.lower()) is not None


def read_idx(path: Path) -> tuple[Dataset, dict[str, Any]]:
    """Return (dataset, details for the report). Raises DataError naming the file."""
    images: dict[str, NDArray[np.uint8]] = {}
    labels: dict[str, NDArray[np.uint8]] = {}
    unpacked = 0
    for entry in entries(path):
        name = entry.name.rsplit("/", 1)[-1]
        if looks_like_idx(name):
            array = parse_idx(entry.data, entry.name)
            unpacked += array.nbytes
            check_expansion(unpacked, entry.name, "the files")
            part = "test" if re.search("t10k|test", name.lower()) else "train"
            kind = images if array.ndim == IMAGES else labels
            if part in kind:
                raise data_error(
                    "duplicate_entry", f"there is a second file of the {part} part", entry.name, "Keep one of them."
                )
            kind[part] = array
    if not images:
        raise data_error("no_idx", "no IDX image file was found", path.name, "Zip the four MNIST files together.")
    for part in images:
        if part not in labels or len(labels[part]) != len(images[part]):
            found = len(labels[part]) if part in labels else 0
            raise data_error("unequal_lengths", f"{len(images[part])} images but {found} labels", part)
        if not images[part].size:
            raise data_error("empty", "the file holds no images", part)
    order = [part for part in ("train", "test") if part in images]
    if len({images[part].shape[1:] for part in order}) > 1:
        sizes = " and ".join(f"{images[part].shape[2]} x {images[part].shape[1]}" for part in order)
        raise data_error("unequal_shapes", f"training and test images differ in size: {sizes}", path.name)
    pixels = np.concatenate([images[part] for part in order])[..., None]
    y = np.concatenate([labels[part] for part in order]).astype(np.int64)
    split = np.concatenate([np.full(len(images[part]), 0 if part == "train" else 2, np.int8) for part in order])
    # only labels that occur: EMNIST counts letters from 1
    labels_found, y = np.unique(y, return_inverse=True)
    classes = tuple(map(str, labels_found.tolist()))
    parts = split if len(order) > 1 else None
    return make_dataset("idx", ImageInputs(pixels), y, classes, parts), {"files": order}


def parse_idx(data: bytes, where: str) -> NDArray[np.uint8]:
    """Return the uint8 array of an IDX file: magic 0x0000 08 ndim, big-endian sizes, bytes."""
    if data[:2] == b"\x1f\x8b":
        try:
            data = read_bounded(gzip.GzipFile(fileobj=io.BytesIO(data)), where, len(data))
        except (OSError, EOFError, zlib.error) as error:
            raise data_error(
                "damaged_gzip", f"not readable: {damage_reason(error)}", where, "Download the file again."
            ) from None
    if len(data) < 4 or data[:3] != b"\x00\x00\x08" or data[3] not in (LABELS, IMAGES):
        raise data_error("not_idx", "the file has no header of an IDX file of bytes", where)
    dimensions = data[3]
    offset = 4 + 4 * dimensions
    if len(data) < offset:
        raise data_error("truncated", "the header is cut off", where)
    shape = struct.unpack(f">{dimensions}I", data[4:offset])
    size = int(np.prod([int(side) for side in shape], dtype=object))
    if size > MOST_BYTES or len(data) - offset != size:
        raise data_error("truncated", f"the header announces {size} bytes, but {len(data) - offset} follow", where)
    return np.frombuffer(data, np.uint8, offset=offset).reshape(shape)

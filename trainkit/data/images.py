"""Class-folder images: a folder, zip or tar, one folder of images a class, perhaps with train/val/test above them."""

from __future__ import annotations

import io
import re
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from trainkit.data.archive import Entry, entries
from trainkit.data.dataset import PART_NAMES, Dataset, ImageInputs, make_dataset
from trainkit.data.errors import DataError, DataProblem, refuse

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"})
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
MOST_PIXELS = 64 * 2**20
MOST_BAD = 0.05
"""A smaller share of unreadable images is a warning; this much makes the dataset invalid."""
Progress = Callable[[int], None]


@dataclass(slots=True)
class Gathered:
    """What the archive's entries came to. With a `size` (H, W) each image is brought to it as it comes."""

    size: tuple[int, int] | None = None
    images: list[NDArray[np.uint8]] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    modes: Counter[str] = field(default_factory=Counter)
    shapes: Counter[tuple[int, int]] = field(default_factory=Counter)
    """Sizes (H, W) of the files, with how often each occurs."""
    unreadable: list[dict[str, str]] = field(default_factory=list)
    others: list[str] = field(default_factory=list)

    def take(self, entry: Entry) -> None:
        """Decode an image; remember the names of what is none, or is damaged."""
        if PurePosixPath(entry.name).suffix.lower() not in SUFFIXES:
            self.others.append(entry.name)
            return
        try:
            image, mode = decode(entry.data)
        except ValueError as error:
            self.unreadable.append({"where": entry.name, "reason": str(error)})
            return
        native = (image.shape[0], image.shape[1])
        self.shapes[native] += 1
        self.images.append(image if self.size is None else _fit(image, self.size, image.shape[2]))
        self.modes[mode] += 1
        self.names.append(entry.name)


def read_images(
    path: Path, *, size: tuple[int, int] | None = None, progress: Progress | None = None
) -> tuple[Dataset, dict[str, Any]]:
    """(dataset, details for the report). Raises DataError naming the entries that stand in the way.

    All images get one size, `size` (H, W) or the commonest; all are grey (1 channel) when every one of them is, else RGB.
    Transparency is laid on white.
    """
    found = Gathered(size)
    for entry in entries(path):
        found.take(entry)
        if progress is not None:
            progress(len(found.images))
    refuse_too_many_bad(found)
    parts, classes, labels = _labels([PurePosixPath(name).parts[:-1] for name in found.names], found.names)
    pixels, details = stack(found)
    return make_dataset("images", ImageInputs(pixels), labels, classes, parts), details


def stack(found: Gathered) -> tuple[NDArray[np.uint8], dict[str, Any]]:
    """(pixels (n, H, W, C) of one size and number of channels, details for the report)."""
    size = found.size or found.shapes.most_common(1)[0][0]
    channels = max(image.shape[2] for image in found.images)
    pixels = np.empty((len(found.images), *size, channels), np.uint8)
    for index, image in enumerate(found.images):
        pixels[index] = _fit(image, size, channels)
        found.images[index] = pixels[index]  # lets go of the original: both together may not fit into memory
    return pixels, {
        "shapes": {f"{width}x{height}": count for (height, width), count in found.shapes.most_common(20)},
        "modes": dict(found.modes),
        "size": f"{size[1]}x{size[0]}",
        "resized": found.shapes.total() - found.shapes[size],
        "unreadable": found.unreadable,
        "other_files": found.others[:100],
    }


def decode(data: bytes) -> tuple[NDArray[np.uint8], str]:
    """(pixels (H, W, 1 or 3), the file's own mode). Raises ValueError with the reason."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                width, height = image.size
                if width * height > MOST_PIXELS:
                    raise ValueError(f"{width} x {height} pixels are more than {MOST_PIXELS}")
                mode = image.mode
                return to_pixels(image), mode
    except MemoryError:
        raise  # the dataset is too large, not this file damaged
    except Exception as error:
        # Pillow's decoders raise almost anything on damaged files: struct.error, TypeError, ZeroDivisionError ...
        reason = str(error).replace(_object_name(error), "the file") or type(error).__name__
        raise ValueError(f"not readable as an image: {reason}") from None


def _object_name(error: Exception) -> str:
    """Pillow puts the in-memory file's repr into its message, which tells nobody anything."""
    found = re.search(r"<_io\.BytesIO object at 0x[0-9a-f]+>", str(error))
    return found[0] if found else "\0"


def to_pixels(image: Image.Image) -> NDArray[np.uint8]:
    """(H, W, 1) for grey modes, else (H, W, 3): upright by its EXIF tag, transparency laid on white, 16 bits cut to 8.

    Floating-point pixels are taken for 0..1, 0..255 or 0..65535, by their largest value.
    """
    image = ImageOps.exif_transpose(image)
    if image.mode in ("I", "I;16", "I;16B", "I;16L", "F"):
        values = np.nan_to_num(np.asarray(image, np.float64))
        most = values.max(initial=0)
        top = 65535.0 if image.mode != "F" or most > 255 else 255.0 if most > 1 else 1.0
        return np.clip(np.rint(values * (255.0 / top)), 0, 255).astype(np.uint8)[..., None]
    grey = image.mode in ("1", "L", "LA", "La")
    if image.mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        colour = np.asarray(Image.alpha_composite(white, rgba).convert("RGB"), np.uint8)
        return colour[..., :1] if grey else colour
    if grey:
        return np.asarray(image.convert("L"), np.uint8)[..., None]
    return np.asarray(image.convert("RGB"), np.uint8)


def _fit(image: NDArray[np.uint8], size: tuple[int, ...], channels: int) -> NDArray[np.uint8]:
    if image.shape[2] < channels:
        image = np.repeat(image, channels, axis=2)
    if image.shape[:2] == size:
        return image
    picture = Image.fromarray(image[..., 0] if channels == 1 else image)
    resized = np.asarray(picture.resize((size[1], size[0]), Image.Resampling.BILINEAR), np.uint8)
    return resized.reshape(*size, channels)


def refuse_too_many_bad(found: Gathered) -> None:
    """Raises DataError when there are no images, or when too many of them cannot be read."""
    bad, total = len(found.unreadable), len(found.unreadable) + len(found.images)
    if total == 0:
        shown = ", ".join(found.others[:5])
        hint = "Zip one folder of PNG, JPEG, WebP, BMP, GIF or TIFF files a class."
        raise refuse("no_images", f"no image files were found{f' (only {shown} ...)' if shown else ''}", "", hint)
    if not found.images or (bad and bad >= MOST_BAD * total):
        hint = "Repair or remove them."
        raise DataError(
            [DataProblem("unreadable_image", item["reason"], item["where"], hint) for item in found.unreadable[:100]]
        )


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

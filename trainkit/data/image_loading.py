"""Loading of all images of an archive into one file of pixels, decoded on all cores with little memory."""

from __future__ import annotations

import unicodedata
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainkit.data import process_pool
from trainkit.data.archive import File, files, random_access, suffix
from trainkit.data.decoding import MOST_FILE_BYTES, SUFFIXES, decode, header, resize_to
from trainkit.data.errors import DataError, DataProblem, data_error
from trainkit.data.limits import check_expansion
from trainkit.data.pixels import PixelFile

MAX_UNREADABLE_SHARE = 0.05
"""Share of unreadable images that makes the dataset invalid; fewer are a warning."""
TASK_IMAGES, TASK_BYTES = 64, 4 * 2**20
"""Images and bytes in one task of a worker process."""
SAMPLED_IMAGES = 64
PIXELS_EXPAND = 5
"""Pixels may be this many times what the limit of other data is: drawings and screenshots compress well."""
Progress = Callable[[int], None]
Task = tuple[int, list[bytes] | None, int]
"""(position of the first image, the files' bytes or None where the worker reads them itself, number of images)."""
DecodeResult = tuple[str, str, int, int, int]
"""(reason why the image cannot be read or "", mode, H, W, channels)."""


@dataclass(slots=True)
class LoadedImages:
    """The images and other files of an archive. All images have `size` (H, W) if given, else the most common size."""

    size: tuple[int, int] | None = None
    pixels: NDArray[np.uint8] = field(default_factory=lambda: np.empty((0, 0, 0, 1), np.uint8))
    names: list[str] = field(default_factory=list)
    """Names of the readable images, in the order of `pixels` and of the archive."""
    modes: Counter[str] = field(default_factory=Counter)
    shapes: Counter[tuple[int, int]] = field(default_factory=Counter)
    """Sizes (H, W) of the files, with how often each occurs."""
    unreadable: list[dict[str, str]] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    tables: dict[str, bytes] = field(default_factory=dict)

    def details(self) -> dict[str, Any]:
        """Return the details for the report."""
        height, width = self.pixels.shape[1:3]
        return {
            "shapes": {f"{w}x{h}": count for (h, w), count in self.shapes.most_common(20)},
            "modes": dict(self.modes),
            "size": f"{width}x{height}",
            "resized": self.shapes.total() - self.shapes[height, width],
            "unreadable": self.unreadable,
            "other_files": self.others[:100],
            "case_clashes": case_clashes(self.names),
            "names": self.names,
        }


def load_images(
    path: Path,
    *,
    size: tuple[int, int] | None = None,
    tables: Sequence[str] = (),
    store: Path | None = None,
    progress: Progress | None = None,
) -> LoadedImages:
    """Decode all images of a folder, zip or tar into `store` (a .npy file, or an unnamed temporary file).

    Files whose names end in one of `tables` are kept as bytes. Size and channels are guessed from a few headers; if the
    guess is wrong, all images are decoded a second time. Raises DataError.
    """
    source = _ImageSource(path, tuple(tables))
    guess = _guess_shape(source.sample())
    height, width, channels = (*(size or guess[:2]), guess[2])
    for _ in range(2):
        file = PixelFile((height, width), channels, store)
        _check_pixels(len(source.images or ()), file, path.name)
        file.expect(len(source.images or ()))
        found, outcomes = _decode_all(source, file, path.name, progress)
        shapes = Counter((o[2], o[3]) for o in outcomes if not o[0])
        if not shapes:
            break
        actual = (*(size or shapes.most_common(1)[0][0]), max(o[4] for o in outcomes if not o[0]))
        if actual == (height, width, channels):
            break
        height, width, channels = actual
    found.size = size
    _check_unreadable(found)
    return found


class _ImageSource:
    """The images of an archive, which can be read several times."""

    def __init__(self, path: Path, tables: tuple[str, ...]) -> None:
        self._path, self._tables = path, tables
        self._listed = list(files(path)) if random_access(path) else None
        self.images: list[File] | None = None
        if self._listed is not None:
            self.images = [file for file in self._listed if is_image(file.name)]

    def sample(self) -> Iterator[bytes]:
        """Yield a few images, spread over the archive if it allows random access, else the first."""
        if self.images is None:
            yield from (file.read() for file in islice(filter(_has_allowed_size, files(self._path)), SAMPLED_IMAGES))
            return
        for file in self.images[:: max(1, len(self.images) // SAMPLED_IMAGES)]:
            if _has_allowed_size(file):
                try:
                    yield file.read()
                except DataError as error:
                    _damage_reason(error)

    def tasks(self, found: LoadedImages, names: list[str]) -> Iterator[Task]:
        """Yield batches of images; appends their names to `names` and the other files to `found`."""
        if self.images is not None and self._listed is not None:
            self._sort_out(found, (file for file in self._listed if not is_image(file.name)))
            names += [file.name for file in self.images]
            yield from _ranges([file.size for file in self.images])
            return
        batch: list[bytes] = []
        held = 0
        for file in files(self._path):
            if not is_image(file.name):
                self._sort_out(found, [file])
                continue
            names.append(file.name)
            batch.append(file.read() if _has_allowed_size(file) else b"")
            held += len(batch[-1])
            if len(batch) >= TASK_IMAGES or held >= TASK_BYTES:
                yield len(names) - len(batch), batch, len(batch)
                batch, held = [], 0
        if batch:
            yield len(names) - len(batch), batch, len(batch)

    def _sort_out(self, found: LoadedImages, others: Iterable[File]) -> None:
        for file in others:
            if self._tables and file.name.lower().endswith(self._tables):
                found.tables[file.name] = file.read()
            else:
                found.others.append(file.name)


def case_clashes(names: Sequence[str]) -> list[tuple[str, str]]:
    """Return pairs of folders or files whose names differ only in case or in the encoding of accents."""
    found: list[tuple[str, str]] = []
    known: dict[str, str] = {}
    for name in chain(dict.fromkeys(name.rpartition("/")[0] for name in names), names):
        first = known.setdefault(unicodedata.normalize("NFC", name).casefold(), name)
        # files of clashing folders clash too: report the folders only
        if first != name and (not found or "/" not in name or first.rpartition("/")[0] == name.rpartition("/")[0]):
            found.append((first, name))
    return found[:100]


def is_image(name: str) -> bool:
    """Return whether the suffix of the name is that of an image."""
    return suffix(name) in SUFFIXES


def _has_allowed_size(file: File) -> bool:
    return is_image(file.name) and file.size <= MOST_FILE_BYTES


def _ranges(sizes: Sequence[int]) -> Iterator[Task]:
    start = held = 0
    for position, size in enumerate(sizes):
        held += size
        if position + 1 - start >= TASK_IMAGES or held >= TASK_BYTES:
            yield start, None, position + 1 - start
            start, held = position + 1, 0
    if start < len(sizes):
        yield start, None, len(sizes) - start


def _guess_shape(sample: Iterable[bytes]) -> tuple[int, int, int]:
    """Return the most common (H, W), and the largest number of channels, of the sampled images."""
    seen = []
    for data in sample:
        try:
            seen.append(header(data))
        except ValueError:
            continue
    shapes = Counter(shape[:2] for shape in seen)
    return (*shapes.most_common(1)[0][0], max(shape[2] for shape in seen)) if seen else (1, 1, 1)


class _Decoder:
    """The work of a worker process: decode images, resize them, write their pixels."""

    def __init__(self, images: Sequence[File] | None, store: PixelFile) -> None:
        self._images, self._store = images, store
        self._quiet = False

    def __call__(self, task: Task) -> list[DecodeResult]:
        if not self._quiet:
            warnings.simplefilter("ignore")
            self._quiet = True
        start, datas, count = task
        outcomes: list[DecodeResult] = []
        for first in range(start, start + count, self._store.rows_a_block):
            last = min(first + self._store.rows_a_block, start + count)
            rows = np.zeros((last - first, *self._store.shape), np.uint8)
            for position in range(first, last):
                data = None if datas is None else datas[position - start]
                outcomes.append(self._one(position, data, rows[position - first]))
            self._store.write(first, rows)
        return outcomes

    def _one(self, position: int, data: bytes | None, row: NDArray[np.uint8]) -> DecodeResult:
        try:
            if data is None:
                assert self._images is not None
                file = self._images[position]
                data = file.read() if _has_allowed_size(file) else b""
            image, mode = decode(data)
        except DataError as error:
            return (_damage_reason(error), "", 0, 0, 0)
        except ValueError as error:
            return (str(error), "", 0, 0, 0)
        height, width, channels = image.shape
        row[:] = resize_to(image, row.shape[:2], row.shape[2])
        return ("", mode, height, width, channels)


def _damage_reason(error: DataError) -> str:
    """Return the reason why an entry cannot be read. Raises the error if it concerns the whole archive."""
    if error.problems[0].code != "damaged_entry":
        raise error
    return error.problems[0].message


def _check_pixels(count: int, store: PixelFile, where: str) -> None:
    """Raise DataError for images whose pixels are far larger than their files."""
    height, width, channels = store.shape
    what = f"{count:,} images of {width:,} x {height:,} x {channels}"
    check_expansion(count * store.row, where, what, PIXELS_EXPAND)


def _decode_all(
    source: _ImageSource, store: PixelFile, where: str, progress: Progress | None
) -> tuple[LoadedImages, list[DecodeResult]]:
    found, names = LoadedImages(), list[str]()
    done: dict[int, list[DecodeResult]] = {}
    again: list[Task] = []
    decoder = _Decoder(source.images, store)
    counted = 0
    for task, result in process_pool.run(decoder, source.tasks(found, names)):
        if isinstance(result, process_pool.LostTask):
            again += _one_by_one(task)
            continue
        done[task[0]] = result
        counted += len(result)
        _check_pixels(counted, store, where)
        if progress is not None:
            progress(counted)
    # decode each image of a failed batch alone, to name the bad one and read the others
    for task, result in process_pool.run(decoder, again):
        lost = isinstance(result, process_pool.LostTask)
        done[task[0]] = [(f"not readable as an image: {result.reason}", "", 0, 0, 0)] if lost else result
    outcomes = list(chain.from_iterable(done[start] for start in sorted(done)))
    kept = []
    for position, (name, (reason, mode, height, width, _)) in enumerate(zip(names, outcomes, strict=True)):
        if reason:
            found.unreadable.append({"where": name, "reason": reason})
            continue
        kept.append(position)
        found.names.append(name)
        found.modes[mode] += 1
        found.shapes[height, width] += 1
    if kept:
        found.pixels = store.finish(kept)
    return found, outcomes


def _one_by_one(task: Task) -> list[Task]:
    start, datas, count = task
    return [(start + i, None if datas is None else [datas[i]], 1) for i in range(count)]


def _check_unreadable(found: LoadedImages) -> None:
    """Raise DataError if there are no images, or if too many of them cannot be read."""
    bad, total = len(found.unreadable), len(found.unreadable) + len(found.names)
    if total == 0:
        shown = ", ".join(found.others[:5])
        hint = "Zip one folder of PNG, JPEG, WebP, BMP, GIF or TIFF files for each class."
        raise data_error("no_images", f"no image files were found{f' (only {shown} ...)' if shown else ''}", "", hint)
    if not found.names or (bad and bad >= MAX_UNREADABLE_SHARE * total):
        hint = "Repair or remove these files."
        raise DataError(
            [DataProblem("unreadable_image", item["reason"], item["where"], hint) for item in found.unreadable[:100]]
        )

"""From a file or folder to a dataset: kind detected, read, reported, prepared."""

from __future__ import annotations

import gzip
import tempfile
from pathlib import Path, PurePosixPath
from typing import Any

from trainkit.data.archive import UNREADABLE, bounded, damaged, entries, is_archive, is_gzip
from trainkit.data.arrays import read_arrays
from trainkit.data.dataset import Dataset
from trainkit.data.detect import detect
from trainkit.data.errors import DataError, refuse
from trainkit.data.idx import read_idx
from trainkit.data.image_loading import Progress
from trainkit.data.image_table import read_image_table
from trainkit.data.images import read_images
from trainkit.data.report import report
from trainkit.data.sequences import read_long_csv
from trainkit.data.table import TABLE_SUFFIXES, read_table
from trainkit.data.weights import is_weights, read_weights
from trainkit.spec.facts import DatasetFacts
from trainkit.spec.read_options import NOTHING_SAID, Reading

MOST_SIDE = 8192


def load_dataset(
    path: str | Path, *, kind: str | None = None, target: str | None = None, reading: Reading = NOTHING_SAID
) -> Dataset:
    """The dataset in a file or folder; `kind` left out is detected, `target` names a table's column to predict.

    `reading` overrides what is otherwise found out: delimiter, encoding, header, and the one size images are brought to.
    Raises DataError with every reason when it cannot be used.
    """
    return read(Path(path), kind=kind, target=target, reading=reading)[0]


def prepare(
    path: str | Path,
    folder: str | Path,
    *,
    kind: str | None = None,
    target: str | None = None,
    reading: Reading = NOTHING_SAID,
    progress: Progress | None = None,
) -> tuple[DatasetFacts, dict[str, Any]]:
    """Read `path` as `load_dataset` does, write the prepared form to `folder`; returns (facts, report).

    Weights (safetensors) have no prepared form: the folder stays empty. Raises DataError.
    """
    if kind == "weights" or (kind is None and Path(path).is_file() and is_weights(Path(path))):
        Path(folder).mkdir(parents=True, exist_ok=True)
        return read_weights(Path(path))
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    # beside the folder, so that the finished file is moved there and not copied
    store = folder.with_name(folder.name + ".pixels.npy")
    try:
        dataset, reason, details = read(
            Path(path), kind=kind, target=target, reading=reading, store=store, progress=progress
        )
        made = report(dataset, reason, details)
        dataset.save(folder, ready={"pixels": store} if store.exists() else {})
    finally:
        store.unlink(missing_ok=True)
    return dataset.facts, made


def read(
    path: Path,
    *,
    kind: str | None = None,
    target: str | None = None,
    reading: Reading = NOTHING_SAID,
    store: Path | None = None,
    progress: Progress | None = None,
) -> tuple[Dataset, str, dict[str, Any]]:
    """(dataset, why it is of its kind, details for the report). Pixels of images are written to `store`, if given."""
    if not path.exists():
        raise refuse("not_found", "there is no such file", str(path))
    if (path / "meta.json").exists():
        return Dataset.load(path), "a prepared dataset", {}
    if path.is_file() and is_gzip(path) and not is_archive(path):
        with tempfile.TemporaryDirectory() as folder:
            alone = _unpacked(path, Path(folder))
            return read(alone, kind=kind, target=target, reading=reading, store=store, progress=progress)
    size = reading.size
    if size is not None and max(size) > MOST_SIDE:
        raise refuse(
            "bad_size", f"images of {size[1]} x {size[0]} pixels", "image_size", f"At most {MOST_SIDE} a side."
        )
    reason = "said at upload"
    if kind is None and reading.encoding is not None and path.is_file() and not is_archive(path):
        kind, reason = "table", "an encoding of text was said"
    elif kind is None:
        kind, reason = detect(path)
    if kind == "images":
        return _with_reason(read_images(path, size=size, store=store, progress=progress), reason)
    if kind == "image_table":
        made = read_image_table(path, target=target, size=size, reading=reading, store=store, progress=progress)
        return _with_reason(made, reason)
    if kind == "idx":
        return _with_reason(read_idx(path), reason)
    if kind == "arrays":
        return _with_reason(read_arrays(path), reason)
    if kind == "table":
        return _with_reason(_table(path, target, reading), reason)
    if kind == "sequences":
        if path.is_dir() or is_archive(path) or _is_npy(path):
            return _with_reason(read_arrays(path, sequences=True), reason)
        return _with_reason(read_long_csv(path, target=target, reading=reading), reason)
    raise refuse("unknown_kind", f"datasets of kind {kind!r} cannot be read", "kind")


def _unpacked(path: Path, folder: Path) -> Path:
    """The one file in a .gz, such as table.csv.gz."""
    alone = folder / path.stem
    try:
        with gzip.open(path) as file:
            alone.write_bytes(bounded(file, path.name, path.stat().st_size))
    except UNREADABLE as error:
        if isinstance(error, DataError):
            raise
        raise damaged(path, error) from None
    if is_gzip(alone):
        raise refuse("damaged_archive", "a gzip file within a gzip file", path.name, "Compress it once.")
    return alone


def _is_npy(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(6) == b"\x93NUMPY"


def _table(path: Path, target: str | None, reading: Reading) -> tuple[Dataset, dict[str, Any]]:
    """A table as it is, or the only one in an archive."""
    if path.is_file() and not is_archive(path):
        return read_table(path, target=target, reading=reading)
    files = list(entries(path))
    tables = [entry for entry in files if entry.name.lower().endswith(TABLE_SUFFIXES)] or files
    if len(tables) != 1:
        hint = "Upload each table as a dataset of its own."
        raise refuse("many_files", f"one table is needed, there are {len(tables)} files", path.name, hint)
    with tempfile.TemporaryDirectory() as folder:
        alone = Path(folder) / PurePosixPath(tables[0].name).name
        alone.write_bytes(tables[0].data)
        return read_table(alone, target=target, reading=reading)


def _with_reason(read: tuple[Dataset, dict[str, Any]], reason: str) -> tuple[Dataset, str, dict[str, Any]]:
    dataset, details = read
    return dataset, reason, details

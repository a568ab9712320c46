"""Loading of a dataset from a file or folder: detection of its kind, reading, report, prepared form."""

from __future__ import annotations

import gzip
import tempfile
from pathlib import Path, PurePosixPath
from typing import Any

from trainkit.data.archive import (
    UNREADABLE,
    chunks_bounded,
    damaged_archive,
    entries,
    is_archive,
    is_gzip,
    names,
    suffix,
)
from trainkit.data.arrays import read_arrays
from trainkit.data.dataset import Dataset
from trainkit.data.decoding import SUFFIXES
from trainkit.data.errors import DataError, data_error
from trainkit.data.file_types import office_type, refuse_other_types, wrong_type
from trainkit.data.idx import looks_like_idx, read_idx
from trainkit.data.image_loading import Progress
from trainkit.data.image_table import read_image_table
from trainkit.data.images import read_images
from trainkit.data.limits import limited_to_source
from trainkit.data.report import report
from trainkit.data.sequences import read_long_csv
from trainkit.data.table.excel import is_workbook
from trainkit.data.table.json_rows import JSON_ARRAY
from trainkit.data.table.reader import TABLE_SUFFIXES, read_table
from trainkit.data.weights import is_weights, read_weights
from trainkit.spec.facts import DatasetFacts
from trainkit.spec.read_options import DEFAULT_READ_OPTIONS, ReadOptions

MOST_SIDE = 8192


def load_dataset(
    path: str | Path, *, kind: str | None = None, target: str | None = None, reading: ReadOptions = DEFAULT_READ_OPTIONS
) -> Dataset:
    """Load the dataset in a file or folder. Without `kind` it is detected; `target` names the column to predict of a table.

    `reading` overrides what is otherwise detected: delimiter, encoding, header, the size of images, and of arrays the
    place of the channels and whether y holds classes.
    Raises DataError with all problems of a dataset that cannot be used.
    """
    return read(Path(path), kind=kind, target=target, reading=reading)[0]


def prepare(
    path: str | Path,
    folder: str | Path,
    *,
    kind: str | None = None,
    target: str | None = None,
    reading: ReadOptions = DEFAULT_READ_OPTIONS,
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
    # beside the folder, so that the finished file is moved and not copied
    store = folder.with_name(folder.name + ".pixels.npy")
    try:
        dataset, reason, details = read(
            Path(path), kind=kind, target=target, reading=reading, store=store, progress=progress
        )
        result = report(dataset, reason, details)
        dataset.save(folder, ready={"pixels": store} if store.exists() else {})
    finally:
        store.unlink(missing_ok=True)
    return dataset.facts, result


def read(
    path: Path,
    *,
    kind: str | None = None,
    target: str | None = None,
    reading: ReadOptions = DEFAULT_READ_OPTIONS,
    store: Path | None = None,
    progress: Progress | None = None,
) -> tuple[Dataset, str, dict[str, Any]]:
    """Return (dataset, reason for its kind, details for the report). Pixels of images are written to `store`, if given.

    What reading may take is limited (`trainkit.data.limits`).
    """
    with limited_to_source(path.stat().st_size if path.is_file() else None):
        return _read(path, kind, target, reading, store, progress)


def _read(
    path: Path,
    kind: str | None,
    target: str | None,
    reading: ReadOptions,
    store: Path | None,
    progress: Progress | None,
) -> tuple[Dataset, str, dict[str, Any]]:
    if not path.exists():
        raise data_error("not_found", "the file does not exist", path.name)
    if (path / "meta.json").exists():
        return Dataset.load(path), "a prepared dataset", {}
    if path.is_file() and is_gzip(path) and not is_archive(path):
        with tempfile.TemporaryDirectory() as folder:
            alone = _unpacked(path, Path(folder))
            return _read(alone, kind, target, reading, store, progress)
    size = reading.size
    if size is not None and max(size) > MOST_SIDE:
        raise data_error(
            "bad_size",
            f"an image size of {size[1]} x {size[0]} pixels is too large",
            "image_size",
            f"At most {MOST_SIDE} on a side.",
        )
    reason = "given at upload"
    if kind is None and reading.encoding is not None and path.is_file() and not is_archive(path):
        kind, reason = "table", "an encoding of text was given"
    elif kind is None:
        kind, reason = detect_kind(path)
    _refuse_options_of_arrays(kind, reading)
    if kind == "images":
        return _with_reason(read_images(path, size=size, store=store, progress=progress), reason)
    if kind == "image_table":
        result = read_image_table(path, target=target, size=size, reading=reading, store=store, progress=progress)
        return _with_reason(result, reason)
    if kind == "idx":
        return _with_reason(read_idx(path), reason)
    if kind == "arrays":
        return _with_reason(read_arrays(path, reading=reading), reason)
    if kind == "table":
        return _with_reason(_table(path, target, reading), reason)
    if kind == "sequences":
        if path.is_dir() or _is_npy(path) or (is_archive(path) and not is_workbook(path)):
            return _with_reason(read_arrays(path, sequences=True, reading=reading), reason)
        return _with_reason(read_long_csv(path, target=target, reading=reading), reason)
    raise data_error("unknown_kind", f"the kind {kind!r} is unknown", "kind")


def _refuse_options_of_arrays(kind: str, reading: ReadOptions) -> None:
    if kind in ("arrays", "sequences"):
        return
    if reading.channels is not None:
        raise data_error("not_arrays", f"`channels` is for arrays; this is a dataset of kind {kind}", "channels")
    if reading.task is not None:
        hint = "Set `task` in the job spec instead."
        raise data_error("not_arrays", f"`task` is for arrays and sequences; this is of kind {kind}", "task", hint)


def _unpacked(path: Path, folder: Path) -> Path:
    """Unpack the single file of a .gz, such as table.csv.gz."""
    alone = folder / path.stem
    try:
        with gzip.open(path) as file, alone.open("wb") as target:
            for chunk in chunks_bounded(file, path.name, path.stat().st_size):
                target.write(chunk)
    except UNREADABLE as error:
        if isinstance(error, DataError):
            raise
        raise damaged_archive(path, error) from None
    if is_gzip(alone):
        raise data_error(
            "damaged_archive", "the gzip file holds another gzip file", path.name, "Compress the file once."
        )
    return alone


def _is_npy(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(6) == b"\x93NUMPY"


def _table(path: Path, target: str | None, reading: ReadOptions) -> tuple[Dataset, dict[str, Any]]:
    """Read a table file, or the only table in an archive."""
    if path.is_file() and (is_workbook(path) or not is_archive(path)):
        return read_table(path, target=target, reading=reading)
    if office := path.is_file() and office_type(names(path)):
        raise wrong_type(office, path.name)
    files = list(entries(path))
    tables = [entry for entry in files if entry.name.lower().endswith(TABLE_SUFFIXES)] or files
    if len(tables) != 1:
        hint = "Upload each table as a separate dataset."
        raise data_error(
            "many_files", f"the archive must hold one table, but holds {len(tables)} files", path.name, hint
        )
    with tempfile.TemporaryDirectory() as folder:
        alone = Path(folder) / PurePosixPath(tables[0].name).name
        alone.write_bytes(tables[0].data)
        return read_table(alone, target=target, reading=reading)


def _with_reason(read: tuple[Dataset, dict[str, Any]], reason: str) -> tuple[Dataset, str, dict[str, Any]]:
    dataset, details = read
    return dataset, reason, details


def detect_kind(path: Path) -> tuple[str, str]:
    """Return (kind, reason), detected from the bytes and not the name. Raises DataError for unknown data."""
    if is_workbook(path):
        return "table", "an Excel workbook"
    if path.is_dir() or is_archive(path):
        return _kind_of_archive(names(path), path)
    with path.open("rb") as file:
        start = file.read(4096)
    if not start:
        raise data_error("empty", "the file is empty", path.name)
    if start.startswith(b"\x93NUMPY"):
        return "arrays", "a NumPy array"
    if start.startswith(b"PAR1"):
        return "table", "a Parquet file"
    refuse_other_types(start, path.name)
    text = start.removeprefix(b"\xef\xbb\xbf").decode("latin-1").lstrip()
    if text.startswith("{"):
        return "table", "JSON Lines"
    if JSON_ARRAY.match(text):
        return "table", "a JSON list of objects"
    if start.startswith((b"\x00\x00\x08\x01", b"\x00\x00\x08\x03")):
        hint = "Zip the image file together with its label file."
        raise data_error(
            "lone_idx", "a single IDX file holds images without labels, or labels without images", path.name, hint
        )
    if start.startswith((b"PK", b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"Rar!", b"7z\xbc\xaf", b"\x28\xb5\x2f\xfd")):
        hint = "Make the archive again as zip or tar.gz, and check that the upload was complete."
        raise data_error(
            "damaged_archive", "the file begins like an archive but cannot be read as one", path.name, hint
        )
    if b"\x00" in start and not start.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise data_error(
            "unknown_kind",
            "the file holds binary data of an unknown kind",
            path.name,
            "See the dataset kinds in the documentation.",
        )
    return "table", "text"


def _kind_of_archive(listed: list[str], path: Path) -> tuple[str, str]:
    files = [name for name in listed if not name.startswith("__MACOSX") and not name.endswith(".DS_Store")]
    if not files:
        raise data_error("empty", "the archive holds no files", path.name)
    if office := office_type(files):
        raise wrong_type(office, path.name)
    lower = [name.lower() for name in files]
    if any(looks_like_idx(name.rsplit("/", 1)[-1]) for name in lower):
        return "idx", "MNIST IDX files"
    if all(name.endswith(".npy") for name in lower):
        bare = {PurePosixPath(name).stem for name in lower}
        if {"values", "offsets"} <= bare:
            return "sequences", "arrays `values` and `offsets`"
        if "lengths" in bare:
            return "sequences", "padded arrays with `lengths`"
        return "arrays", "NumPy arrays"
    tables = [name for name in files if name.lower().endswith(TABLE_SUFFIXES)]
    images = sum(suffix(name) in SUFFIXES for name in lower)
    if images and len(tables) == 1 and not _in_folders(lower):
        return "image_table", f"{images} image files and the table {tables[0]}"
    if images:
        return "images", f"{images} image files in folders"
    if len(tables) == 1:
        return "table", f"one table, {tables[0]}"
    hint = "Upload class folders of images, MNIST IDX files, NPZ arrays, or one table."
    raise data_error(
        "unknown_kind", f"the kind of these files is unknown ({', '.join(files[:5])} ...)", path.name, hint
    )


def _in_folders(lower: list[str]) -> bool:
    """Return whether the images are in two or more folders."""
    folders = {name.rpartition("/")[0] for name in lower if suffix(name) in SUFFIXES}
    return len(folders) > 1

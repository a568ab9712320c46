"""What kind of data is this? Decided from the bytes, not the name, and said with the reason."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from trainkit.data.archive import is_archive, names
from trainkit.data.errors import refuse
from trainkit.data.idx import looks_like_idx
from trainkit.data.images import SUFFIXES

TABLE_SUFFIXES = (".csv", ".tsv", ".parquet", ".jsonl", ".ndjson")


def detect(path: Path) -> tuple[str, str]:
    """(kind, reason). Raises DataError when nothing fits."""
    if path.is_dir() or is_archive(path):
        return _of_names(names(path), path)
    with path.open("rb") as file:
        start = file.read(4096)
    if not start:
        raise refuse("empty", "the file is empty", path.name)
    if start.startswith(b"\x93NUMPY"):
        return "arrays", "a NumPy array"
    if start.startswith(b"PAR1"):
        return "table", "a Parquet file"
    if start.lstrip().startswith(b"{"):
        return "table", "JSON Lines"
    if start.startswith((b"PK", b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"Rar!", b"7z\xbc\xaf", b"\x28\xb5\x2f\xfd")):
        hint = "Make the archive again as zip or tar.gz, and check that the upload was complete."
        raise refuse("damaged_archive", "it begins like an archive but cannot be read as one", path.name, hint)
    if b"\x00" in start and not start.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise refuse("unknown_kind", "binary data of no known kind", path.name, "See the dataset kinds in the README.")
    return "table", "text"


def _of_names(listed: list[str], path: Path) -> tuple[str, str]:
    files = [name for name in listed if not name.startswith("__MACOSX") and not name.endswith(".DS_Store")]
    if not files:
        raise refuse("empty", "the archive holds no files", path.name)
    lower = [name.lower() for name in files]
    if any(looks_like_idx(name.rsplit("/", 1)[-1]) for name in lower):
        return "idx", "MNIST IDX files"
    if all(name.endswith(".npy") for name in lower):
        if {"values.npy", "offsets.npy"} <= set(lower):
            return "sequences", "arrays `values` and `offsets`"
        return "arrays", "NumPy arrays"
    images = sum(PurePosixPath(name).suffix in SUFFIXES for name in lower)
    if images:
        return "images", f"{images} image files in folders"
    if len(files) == 1 and lower[0].endswith(TABLE_SUFFIXES):
        return "table", f"one table, {files[0]}"
    hint = "Class folders of images, MNIST IDX files, NPZ arrays, or one table."
    raise refuse("unknown_kind", f"no kind fits the files ({', '.join(files[:5])} ...)", path.name, hint)

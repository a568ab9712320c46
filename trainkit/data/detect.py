"""What kind of data is this? Decided from the bytes, not the name, and said with the reason."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from trainkit.data.archive import is_archive, names, suffix
from trainkit.data.decoding import SUFFIXES
from trainkit.data.errors import refuse
from trainkit.data.idx import looks_like_idx
from trainkit.data.table import JSON_ARRAY, TABLE_SUFFIXES


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
    if JSON_ARRAY.match(start):
        return "table", "a JSON list of objects"
    if start.startswith((b"\x00\x00\x08\x01", b"\x00\x00\x08\x03")):
        hint = "Zip the image file together with its label file."
        raise refuse("lone_idx", "one IDX file alone holds images without labels, or the reverse", path.name, hint)
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
    hint = "Class folders of images, MNIST IDX files, NPZ arrays, or one table."
    raise refuse("unknown_kind", f"no kind fits the files ({', '.join(files[:5])} ...)", path.name, hint)


def _in_folders(lower: list[str]) -> bool:
    """Whether the images lie in two or more folders, as classes do."""
    folders = {name.rpartition("/")[0] for name in lower if suffix(name) in SUFFIXES}
    return len(folders) > 1

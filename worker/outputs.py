"""Files that a confined process names as its results: taken only from its scratch folder, and never through a link.

The worker may read what that process may not: a path in an event must not make it copy another job's files.
"""

from __future__ import annotations

from pathlib import Path


class OutputRefusedError(ValueError):
    """A process names a result that is not in its scratch folder, or a link."""


def output_path(scratch: Path, name: str) -> Path:
    """Return the path of a result: a file, or a folder without links in it. Raises OutputRefusedError."""
    path = Path(name)
    links = [path, *path.rglob("*")] if path.is_dir() else [path]
    if not path.resolve().is_relative_to(scratch.resolve()) or any(one.is_symlink() for one in links):
        raise OutputRefusedError(f"the process names {path.name!r} as its result, which is not in its scratch folder")
    return path

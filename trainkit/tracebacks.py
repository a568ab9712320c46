"""Tracebacks for people who may not know where the service lies: paths relative to what a reader can name."""

from __future__ import annotations

import re
import sys
import traceback
from pathlib import Path

ROOT = Path(__file__).parents[1]
FILE = re.compile(r'(File ")([^"\n]+)(")')
PATH = re.compile(r"(?<![\w./~<>-])(?:/[\w.@+-]+){2,}")
"""An absolute path in a sentence; not the address of a URL, which follows a colon and slashes, nor a relative one."""
LONGEST = 4000


def traceback_of(error: BaseException) -> str:
    """Return the end of an error's traceback, without the server's paths."""
    return without_paths("".join(traceback.format_exception(error)))[-LONGEST:]


def without_paths(text: str) -> str:
    """Return a text (a traceback, a log's end) with relative paths: `site-packages/torch/x.py`, `trainkit/fit/y.py`.

    Of any other absolute path its last part is left, such as `.../model.safetensors`.
    """
    text = FILE.sub(lambda found: found[1] + relative(found[2]) + found[3], text)
    return PATH.sub(lambda found: relative(found[0]), text)


def relative(path: str) -> str:
    """Return a path from the package or library on, or its last part."""
    if not path.startswith("/"):
        return path
    for start in ("site-packages/", "dist-packages/"):
        if start in path:
            return start + path.rpartition(start)[2]
    if path.startswith(f"{ROOT}/"):
        return path[len(str(ROOT)) + 1 :]
    for library in (sys.base_prefix, sys.prefix):
        if path.startswith(f"{library}/"):
            return path[len(library) + 1 :]
    return f".../{path.rsplit('/', 1)[-1]}"

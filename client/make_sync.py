"""Generate `trainkit_client/_sync` from `trainkit_client/_async`: python client/make_sync.py [FOLDER]."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

import unasync

PACKAGE = Path(__file__).resolve().parent / "trainkit_client"
ROOT = PACKAGE.parent.parent
KEPT = frozenset({"__init__.py", "runtime.py"})
"""Modules that are written by hand on both sides."""
NAMES = {
    "_async": "_sync",
    "aclose": "close",
    "aiter_bytes": "iter_bytes",
    "aiter_lines": "iter_lines",
    "aread": "read",
}
HEADER = "# Generated from `_async` by client/make_sync.py: change that file, and run it.\n"


def generate(target: Path) -> None:
    """Write the synchronous modules into a folder."""
    sources = sorted(path for path in (PACKAGE / "_async").glob("*.py") if path.name not in KEPT)
    classes = {name for path in sources for name in re.findall(r"\bAsync[A-Z]\w*", path.read_text())}
    ours = {name: name.removeprefix("Async") for name in classes - {"AsyncIterator", "AsyncIterable"}}
    with tempfile.TemporaryDirectory() as folder:
        rule = unasync.Rule(f"{PACKAGE}/_async/", f"{folder}/", additional_replacements={**NAMES, **ours})
        unasync.unasync_files([str(path) for path in sources], [rule])
        for path in sources:
            text = (Path(folder) / path.name).read_text()
            (target / path.name).write_text(HEADER + text)
    files = [str(target / path.name) for path in sources]
    options = ["--config", str(ROOT / "pyproject.toml")]
    subprocess.run(
        [
            sys.executable,
            "-m",
            "ruff",
            "check",
            "--fix",
            "--unsafe-fixes",
            "--quiet",
            "--select",
            "I,C416,UP028",
            *options,
            *files,
        ],
        check=True,
    )
    subprocess.run([sys.executable, "-m", "ruff", "format", "--quiet", *options, *files], check=True)


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else PACKAGE / "_sync")

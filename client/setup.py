"""Build step: the wheel carries a copy of `trainkit/spec`, so that specs can be written where no server is installed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from setuptools import setup
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist

SPEC = Path(__file__).resolve().parent.parent / "trainkit" / "spec"
COPY = Path("trainkit_client") / "_spec"
IMPORT = re.compile(r"^(\s*(?:from|import) )trainkit\.spec\b", re.MULTILINE)


def copy_spec(target: Path) -> None:
    """Write the modules of the spec below `target`, with their imports of each other adapted.

    A source distribution has the copy already; there the spec itself does not stand beside this folder.
    """
    for source in sorted(SPEC.rglob("*.py")):
        copy = target / COPY / source.relative_to(SPEC)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(IMPORT.sub(r"\1trainkit_client._spec", source.read_text(encoding="utf-8")), encoding="utf-8")


class BuildWithSpec(build_py):
    """Builds the package and adds the copy; an editable installation uses `trainkit.spec` itself."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            copy_spec(Path(self.build_lib))


class SdistWithSpec(sdist):
    """Adds the copy to a source distribution."""

    def make_release_tree(self, base_dir: str, files: Any) -> None:
        super().make_release_tree(base_dir, files)
        copy_spec(Path(base_dir))


setup(cmdclass={"build_py": BuildWithSpec, "sdist": SdistWithSpec})

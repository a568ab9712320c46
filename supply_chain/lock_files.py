"""Read the lock files: exact versions with the hashes of their files, and which package asks for which."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[1]
LOCK_FILES = ("requirements.lock", "requirements-api.lock", "requirements-worker.lock")
PINNED = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[^\]]*\])?==([^\s;\\]+)(?:\s*;\s*([^\\]+))?")
HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")
PROJECT = "trainkit"


@dataclass(slots=True)
class LockedPackage:
    """A package with the version and the files that the lock files allow."""

    name: str
    version: str
    hashes: set[str] = field(default_factory=set)
    """SHA-256 of each of its files, one for every platform."""
    required_by: set[str] = field(default_factory=set)
    lock_files: set[str] = field(default_factory=set)
    marker: str = ""
    """On which systems it is installed; empty: on all."""

    @property
    def purl(self) -> str:
        """The package URL, the name that databases of vulnerabilities use."""
        return f"pkg:pypi/{self.name}@{self.version}"


def normalized(name: str) -> str:
    """Return the name as package indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def locked_packages(root: Path = ROOT) -> list[LockedPackage]:
    """Return the packages of all lock files by name. Raises ValueError for a line without a version or a hash."""
    found: dict[tuple[str, str], LockedPackage] = {}
    for file in LOCK_FILES:
        _read(root / file, found)
    unhashed = [f"{one.name} {one.version}" for one in found.values() if not one.hashes]
    if unhashed:
        raise ValueError(f"without a hash: {', '.join(unhashed)}")
    return [found[key] for key in sorted(found)]


def _read(file: Path, found: dict[tuple[str, str], LockedPackage]) -> None:
    package: LockedPackage | None = None
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        text = line.strip()
        if match := PINNED.match(line):
            name = normalized(match[1])
            package = found.setdefault((name, match[2]), LockedPackage(name, match[2]))
            package.lock_files.add(file.name)
            package.marker = (match[3] or "").strip()
        elif package is not None and text.startswith("#"):
            package.required_by |= _parents(text)
        elif text and not text.startswith(("#", "--hash")):
            raise ValueError(f"{file.name}:{number} pins no version: {text[:80]}")
        if package is not None:
            package.hashes |= set(HASH.findall(line))


def _parents(comment: str) -> set[str]:
    """Names in `# via a` and in the lines that follow `# via`, `#   a`; a requirements file is the project itself."""
    text = comment.lstrip("# ").removeprefix("via").strip()
    if not text:
        return set()
    return {PROJECT} if "(" in text or text.startswith("-r") else {normalized(text.split("[")[0])}

"""What datasets and models may be called, and how a reference names one: `id`, `name`, `name:version`, `name@alias`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated

from pydantic import AfterValidator, Field

NAME_CHARACTERS = r"^[^\x00-\x1f\x7f/\\@]+$"
ALIAS = r"^[A-Za-z][A-Za-z0-9_.-]{0,63}$"
MAX_NAME = 200
MAX_REFERENCE = MAX_NAME + 65
"""Characters of a name, `@` and the longest alias."""
ID = re.compile(r"(?:ds|mdl|job|exp)_[0-9a-z]{26}")
_WITH_VERSION = re.compile(r"(?P<name>.+):(?P<version>[0-9]+)", re.DOTALL)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_FORBIDDEN = re.compile(r"[\x00-\x1f\x7f/\\@]+")
MAX_VERSION_DIGITS = 9


@dataclass(frozen=True, slots=True)
class Reference:
    """A reference by name. Without version and alias it is about the newest version."""

    name: str
    version: int | None = None
    alias: str | None = None


def parse_reference(text: str) -> Reference:
    """Split `name`, `name:version` or `name@alias`. No name holds `@` or ends in a colon and digits."""
    name, at, alias = text.rpartition("@")
    if at:
        return Reference(name, alias=alias)
    match = _WITH_VERSION.fullmatch(text)
    if match is not None and len(match["version"]) <= MAX_VERSION_DIGITS:
        return Reference(match["name"], version=int(match["version"]))
    return Reference(text)


def is_storable(text: str) -> bool:
    """Whether databases can hold the text: no control characters, no halves of a character."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return not _CONTROL.search(text)


def check_name(name: str) -> str:
    """Return the name. Raises ValueError, with what to do, for one that a reference could not name."""
    if ID.fullmatch(name):
        raise ValueError(f"{name!r} has the form of an id, which always means the thing with that id: choose another")
    if _FORBIDDEN.search(name):
        raise ValueError(f"{name!r} holds a control character or one of / \\ @: leave it out")
    if _WITH_VERSION.fullmatch(name):
        raise ValueError(
            f"{name!r} ends like a version, which the service counts itself: leave out the colon or digits"
        )
    if name != name.strip() or name in ("", ".", ".."):
        raise ValueError(f"{name!r} cannot be part of an address: give a name without spaces around it")
    return name


def as_name(text: str) -> str:
    """Return the nearest text that is a name: a file's or a job's name may hold anything. '' where nothing is left."""
    name = _FORBIDDEN.sub("-", text).strip()[:MAX_NAME].strip()
    if (match := _WITH_VERSION.fullmatch(name)) is not None:
        name = f"{match['name']}-{match['version']}"
    if ID.fullmatch(name):
        name = name.replace("_", "-", 1)
    return "" if name in (".", "..") else name


Name = Annotated[str, Field(min_length=1, max_length=MAX_NAME, pattern=NAME_CHARACTERS), AfterValidator(check_name)]
"""A name that a client gives."""

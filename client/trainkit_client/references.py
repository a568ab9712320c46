"""How a thing may be named: its id, a beginning of it, its name, or `@last` for the newest."""

from __future__ import annotations

import re
from enum import Enum

ID_BODY = 26
"""Characters of an id after its prefix."""
LAST = "@last"


class ReferenceForm(Enum):
    """What a reference looks like."""

    ID = "id"
    BEGINNING = "beginning of an id"
    NAME = "name"
    LAST = "last"


def reference_form(reference: str, prefix: str) -> ReferenceForm:
    """Return what a reference looks like, where ids begin with `prefix`."""
    if reference == LAST:
        return ReferenceForm.LAST
    body = reference.removeprefix(f"{prefix}_")
    if body == reference or not re.fullmatch(r"[0-9a-zA-Z]*", body):
        return ReferenceForm.NAME
    return ReferenceForm.ID if len(body) >= ID_BODY else ReferenceForm.BEGINNING


def id_of(reference: object) -> str:
    """Return the text of a reference, or the id of a handle."""
    identity = getattr(reference, "id", reference)
    if not isinstance(identity, str) or not identity:
        raise TypeError(f"Expected a name, an id or an object of this package; got {reference!r}.")
    return identity

"""What an unknown address was meant to be: the nearest route, with the ids that were given."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import SequenceMatcher

MAX_SEGMENTS, MAX_LENGTH = 10, 100
"""Of an address that is looked at: comparing takes time with its length."""
LIKENESS = 0.6
"""Least likeness of each segment, as for names of fields."""
VERSION = "v1"


def nearest_path(path: str, templates: Iterable[str]) -> str | None:
    """Return the address that is most like the path; None when nothing is close.

    Args:
        path: The address that has no route.
        templates: Addresses of the routes, such as `/v1/jobs/{job_id}/stop`.
    """
    given = path.strip("/").split("/")
    if len(given) > MAX_SEGMENTS or max(map(len, given)) > MAX_LENGTH:
        return None
    known = [template.strip("/").split("/") for template in templates]
    # as it stands, without the version, or below another folder
    for segments in (given, [VERSION, *given], given[1:]):
        likeness, found = max(
            ((_likeness(segments, names), names) for names in known), default=(0.0, []), key=lambda one: one[0]
        )
        if likeness:
            filled = (segment if "{" in name else name for segment, name in zip(segments, found, strict=True))
            return "/" + "/".join(filled)
    return None


def _likeness(segments: list[str], names: list[str]) -> float:
    """Return how like two addresses are, from 0 to 1; 0 where a segment is not close."""
    if len(segments) != len(names):
        return 0.0
    total = 0.0
    for segment, name in zip(segments, names, strict=True):
        if "{" in name:
            # an id, or an id with an action such as `{dataset_id}:reread`
            suffix = name.rpartition("}")[2]
            if not segment or not segment.endswith(suffix):
                return 0.0
            # a route that names more of the address is nearer than one that takes anything
            total += 0.5
            continue
        ratio = 1.0 if segment == name else SequenceMatcher(None, segment.lower(), name).ratio()
        if ratio < LIKENESS:
            return 0.0
        total += ratio
    return total / len(names)

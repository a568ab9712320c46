"""What every route refuses: media types that it neither takes nor answers with, query parameters that it does not know."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from fastapi import Request, params
from fastapi.dependencies.utils import get_flat_params
from fastapi.routing import APIRoute

from service.errors import MEDIA_TYPE as PROBLEM
from service.errors import HttpProblem
from service.listing.filters import KeyedFilter
from service.listing.query import ListOf
from service.request_body import YAML_TYPES
from trainkit.spec.synonyms import nearest

JSON, FORM, MULTIPART = "application/json", "application/x-www-form-urlencoded", "multipart/form-data"
ANY = "application/octet-stream"
TOLERATED = frozenset({*YAML_TYPES[1:], FORM})
"""For documents: other names of YAML, and what curl calls every body that it is not told the type of."""
CHECKED = frozenset({JSON, FORM, MULTIPART, *YAML_TYPES, "application/offset+octet-stream"})
"""Media types of bodies that are told from others by the head. A route that takes files looks at their bytes as well."""


async def check_request(request: Request) -> None:
    """A dependency of all routes. Raises a 422 problem with every unknown query parameter."""
    route = request.scope.get("route")
    if not isinstance(route, APIRoute):
        return
    media = _media_types(route)
    _check_accept(request, media.answered)
    _check_content_type(request, media.taken)
    known, listing = _query_names(route)
    errors = [
        {
            "pointer": f"query/{name}",
            "code": "unknown_parameter",
            "message": f'unknown query parameter "{name}"',
            "hint": _hint(name, known, listing),
        }
        for name in dict.fromkeys(request.query_params)
        if name not in known and not (listing is not None and listing.accepts(name))
    ]
    if errors:
        detail = "; ".join(str(error["message"]) for error in errors[:3])
        raise HttpProblem(422, "invalid_request", f"{detail[:1].upper()}{detail[1:]}.", errors=errors)


MEDIA_RANGE = re.compile(r"[\w!#$&^.+*-]+/[\w!#$&^.+*-]+", re.ASCII)


def _check_accept(request: Request, answered: frozenset[str]) -> None:
    """Raise a 406 problem where `Accept` allows none of the media types; none are given where they are not known."""
    if answered and not accepts(request.headers.get("accept"), answered):
        detail = f"The answer is {_either(answered)}, and Accept is {request.headers['accept'][:80]!r}."
        raise HttpProblem(406, "not_acceptable", detail)


def accepts(accept: str | None, answered: Iterable[str]) -> bool:
    """Whether the header allows one of the media types; it does when it is left out. Weights above 0 are alike.

    `application/problem+json` allows all: generated clients ask for it alone, where only problems are JSON. A header that
    names no media type at all is as none.
    """
    if accept is None or not MEDIA_RANGE.search(accept):
        return True
    for part in accept.split(","):
        kind, *parameters = (piece.strip().lower() for piece in part.split(";"))
        if any(re.fullmatch(r"q\s*=\s*0(\.0*)?", one) for one in parameters):
            continue
        if kind in ("*/*", PROBLEM) or any(_matches(kind, one) for one in answered):
            return True
    return False


def _matches(pattern: str, media_type: str) -> bool:
    if media_type == JSON and pattern.endswith("+json"):
        return True
    main, _, rest = pattern.partition("/")
    return pattern == media_type or (rest == "*" and media_type.startswith(f"{main}/"))


def _check_content_type(request: Request, taken: frozenset[str]) -> None:
    """Raise a 415 problem for a body of another media type; what comes without one is read as the route does."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if not taken or not kind or kind in taken or (JSON in taken and kind.endswith("+json")) or not has_body(request):
        return
    named = taken - TOLERATED
    detail = f"A body of type {kind[:80]!r} is not taken here. Send {_either(named)}, and name it in Content-Type."
    raise HttpProblem(415, "unsupported_media_type", detail, headers={"Accept": ", ".join(sorted(named))})


def has_body(request: Request) -> bool:
    """Whether the head announces a body."""
    return "transfer-encoding" in request.headers or request.headers.get("content-length", "0").strip("0 ") != ""


def _either(media_types: Iterable[str]) -> str:
    return " or ".join(sorted(media_types))


@dataclass(frozen=True, slots=True)
class MediaTypes:
    """What a route takes and answers with; empty: anything, or what its own code tells."""

    taken: frozenset[str]
    answered: frozenset[str]


def _media_types(route: APIRoute) -> MediaTypes:
    """What the route declares, worked out once."""
    if route.endpoint not in _MEDIA_TYPES:
        taken = {*(route.openapi_extra or {}).get("requestBody", {}).get("content", {})}
        if route.body_field is not None:
            taken.add(MULTIPART if isinstance(route.body_field.field_info, params.Form) else JSON)
        if YAML_TYPES[0] in taken:
            taken |= TOLERATED
        answered = {JSON} if route.response_model is not None else set()
        for status, response in route.responses.items():
            if str(status)[0] == "2":
                answered |= {*response.get("content", {}), *({JSON} if "model" in response else ())}
        _MEDIA_TYPES[route.endpoint] = MediaTypes(
            frozenset() if taken - CHECKED else frozenset(taken),
            frozenset() if ANY in answered else frozenset(answered),
        )
    return _MEDIA_TYPES[route.endpoint]


def _hint(name: str, known: frozenset[str], listing: ListOf | None) -> str:
    if (meant := SYNONYMS.get(name.lower())) in known:
        return f'Did you mean "{meant}"?'
    prefix, dot, key = name.partition(".")
    families = [one.name for one in listing.filters if isinstance(one, KeyedFilter)] if listing is not None else []
    if dot and (near := difflib.get_close_matches(prefix, families, 1, 0.6)):
        return f'Did you mean "{near[0]}.{key}"?'
    return nearest(name, known) or (f"Known: {', '.join(sorted(known))}." if known else "Leave it out.")


def _query_names(route: APIRoute) -> tuple[frozenset[str], ListOf | None]:
    """Names of the query parameters of a route and of its dependencies, and the list that it answers with."""
    if route.endpoint not in _NAMES:
        fields = [field for field in get_flat_params(route.dependant) if isinstance(field.field_info, params.Query)]
        lists = [getattr(one.call, "listing", None) for one in route.dependant.dependencies]
        listing = next((one for one in lists if isinstance(one, ListOf)), None)
        _NAMES[route.endpoint] = frozenset(field.alias for field in fields), listing
    return _NAMES[route.endpoint]


_MEDIA_TYPES: dict[Callable[..., Any], MediaTypes] = {}
_NAMES: dict[Callable[..., Any], tuple[frozenset[str], ListOf | None]] = {}
"""Endpoint -> what it takes, worked out once."""
SYNONYMS = {
    **dict.fromkeys(("status", "states", "statuses"), "state"),
    **dict.fromkeys(("sort_by", "order", "order_by", "ordering", "orderby"), "sort"),
    **dict.fromkeys(("page_size", "per_page", "size", "max_results", "count", "top"), "limit"),
    **dict.fromkeys(("offset", "page", "cursor", "starting_after", "page_token"), "after"),
    **dict.fromkeys(("q", "search", "query", "contains"), "name"),
    **dict.fromkeys(("since", "created_since"), "created_after"),
    **dict.fromkeys(("until",), "created_before"),
    **dict.fromkeys(("select", "include", "columns"), "fields"),
}
"""What other services call these parameters."""

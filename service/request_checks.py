"""What every route refuses: query parameters that it does not know."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from fastapi import Request, params
from fastapi.dependencies.utils import get_flat_params
from fastapi.routing import APIRoute

from service.errors import HttpProblem
from service.listing.query import ListOf
from trainkit.spec.synonyms import nearest


async def check_request(request: Request) -> None:
    """A dependency of all routes. Raises a 422 problem with every unknown query parameter."""
    route = request.scope.get("route")
    if not isinstance(route, APIRoute):
        return
    if _is_json_only(route) and not accepts_json(request.headers.get("accept")):
        detail = f"The answer is application/json, and Accept is {request.headers['accept'][:80]!r}."
        raise HttpProblem(406, "not_acceptable", detail)
    known, listing = _query_names(route)
    errors = [
        {
            "pointer": f"query/{name}",
            "code": "unknown_parameter",
            "message": f'unknown query parameter "{name}"',
            "hint": _hint(name, known),
        }
        for name in dict.fromkeys(request.query_params)
        if name not in known and not (listing is not None and listing.accepts(name))
    ]
    if errors:
        detail = "; ".join(str(error["message"]) for error in errors[:3])
        raise HttpProblem(422, "invalid_request", f"{detail[:1].upper()}{detail[1:]}.", errors=errors)


def accepts_json(accept: str | None) -> bool:
    """Whether the header allows JSON; it does when it is left out. Weights above 0 are alike."""
    if accept is None or not accept.strip():
        return True
    for part in accept.split(","):
        kind, *parameters = (piece.strip().lower() for piece in part.split(";"))
        refused = any(re.fullmatch(r"q\s*=\s*0(\.0*)?", one) for one in parameters)
        if not refused and (kind in ("*/*", "application/*", "application/json") or kind.endswith("+json")):
            return True
    return False


def _is_json_only(route: APIRoute) -> bool:
    """Whether the route only reads, and answers in JSON alone."""
    contents = route.responses.get(200, {}).get("content", {})
    return route.methods == {"GET"} and route.response_model is not None and not set(contents) - {"application/json"}


def _hint(name: str, known: frozenset[str]) -> str:
    if (meant := SYNONYMS.get(name.lower())) in known:
        return f'Did you mean "{meant}"?'
    return nearest(name, known) or (f"Known: {', '.join(sorted(known))}." if known else "Leave it out.")


def _query_names(route: APIRoute) -> tuple[frozenset[str], ListOf | None]:
    """Names of the query parameters of a route and of its dependencies, and the list that it answers with."""
    if route.endpoint not in _NAMES:
        fields = [field for field in get_flat_params(route.dependant) if isinstance(field.field_info, params.Query)]
        lists = [getattr(one.call, "listing", None) for one in route.dependant.dependencies]
        listing = next((one for one in lists if isinstance(one, ListOf)), None)
        _NAMES[route.endpoint] = frozenset(field.alias for field in fields), listing
    return _NAMES[route.endpoint]


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

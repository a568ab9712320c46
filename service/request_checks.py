"""What every route refuses: query parameters that it does not know."""

from __future__ import annotations

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

"""What every route refuses: query parameters that it does not know."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import Request, params
from fastapi.dependencies.utils import get_flat_params
from fastapi.routing import APIRoute

from service.errors import HttpProblem
from service.pagination import LABEL, label_filter
from trainkit.spec.synonyms import nearest


async def check_request(request: Request) -> None:
    """A dependency of all routes. Raises a 422 problem with every unknown query parameter."""
    route = request.scope.get("route")
    if not isinstance(route, APIRoute):
        return
    known, labels = _query_names(route)
    errors = [
        {
            "pointer": f"query/{name}",
            "code": "unknown_parameter",
            "message": f'unknown query parameter "{name}"',
            "hint": nearest(name, known) or (f"Known: {', '.join(sorted(known))}." if known else "Leave it out."),
        }
        for name in dict.fromkeys(request.query_params)
        if name not in known and not (labels and name.startswith(LABEL))
    ]
    if errors:
        detail = "; ".join(str(error["message"]) for error in errors[:3])
        raise HttpProblem(422, "invalid_request", f"{detail[:1].upper()}{detail[1:]}.", errors=errors)


def _query_names(route: APIRoute) -> tuple[frozenset[str], bool]:
    """Names of the query parameters of a route and of its dependencies, and whether it selects by labels."""
    if route.endpoint not in _NAMES:
        fields = [field for field in get_flat_params(route.dependant) if isinstance(field.field_info, params.Query)]
        labels = any(one.call is label_filter for one in route.dependant.dependencies)
        _NAMES[route.endpoint] = frozenset(field.alias for field in fields), labels
    return _NAMES[route.endpoint]


_NAMES: dict[Callable[..., Any], tuple[frozenset[str], bool]] = {}
"""Endpoint -> what it takes, worked out once."""

"""Deprecation of operations, parameters and fields: with dates, in the document and in every answer (RFC 9745, RFC 8594).

@router.get("/v1/old")
@deprecated(Deprecation(since=date(2027, 1, 1), sunset=date(2027, 7, 1), use="GET /v1/new"))
def get_old(...)

old_name: Annotated[str | None, Query(**deprecated_field(Deprecation(...)))] = None
"""

from __future__ import annotations

from calendar import timegm
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta
from email.utils import formatdate
from typing import Any, TypeVar
from urllib.parse import parse_qsl

from fastapi import params
from fastapi.dependencies.utils import get_flat_params
from fastapi.routing import APIRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api_docs.routes import DOCS_PATH
from service.proxy_headers import root_path_of

LEAST = timedelta(days=180)
"""Between the announcement and the end: clients are programs of other teams."""
ATTRIBUTE, EXTENSION = "__deprecation__", "x-deprecation"
Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Deprecation:
    """Since when something should not be used, when it ends, and what to use. Raises ValueError for a short notice."""

    since: date
    sunset: date
    use: str

    def __post_init__(self) -> None:
        if self.sunset - self.since < LEAST:
            raise ValueError(f"The sunset {self.sunset} must be {LEAST.days} days or more after {self.since}.")

    @property
    def sentence(self) -> str:
        """What the document says."""
        return f"Deprecated since {self.since.isoformat()}, ends on {self.sunset.isoformat()}. Use {self.use}."

    def as_json(self) -> dict[str, str]:
        """The extension of the document."""
        return {"since": self.since.isoformat(), "sunset": self.sunset.isoformat(), "use": self.use}


def deprecated(deprecation: Deprecation) -> Callable[[Function], Function]:
    """Mark the function of a route; the decorator stands below that of the route."""

    def mark(function: Function) -> Function:
        setattr(function, ATTRIBUTE, deprecation)
        return function

    return mark


def deprecated_field(deprecation: Deprecation) -> dict[str, Any]:
    """Return the arguments of `Query`, `Header` or `Field` that mark a parameter or a field."""
    return {
        "deprecated": True,
        "description": deprecation.sentence,
        "json_schema_extra": {EXTENSION: deprecation.as_json()},
    }


def of_operation(route: object) -> Deprecation | None:
    """Return the deprecation of a route."""
    return getattr(getattr(route, "endpoint", None), ATTRIBUTE, None)


def of_request(route: object, query: bytes) -> list[Deprecation]:
    """Return what a request uses that is deprecated: the operation itself, and parameters of its query."""
    found = [whole] if (whole := of_operation(route)) is not None else []
    if query and isinstance(route, APIRoute) and (marked := _marked(route)):
        given = {name for name, _ in parse_qsl(query.decode("latin-1"), keep_blank_values=True)}
        found += [deprecation for name, deprecation in marked.items() if name in given]
    return found


def _marked(route: APIRoute) -> dict[str, Deprecation]:
    """Deprecated parameters of a route's query, worked out once."""
    if route.endpoint not in _MARKED:
        marked = {}
        for field in get_flat_params(route.dependant):
            extra = field.field_info.json_schema_extra
            if isinstance(field.field_info, params.Query) and isinstance(extra, dict) and EXTENSION in extra:
                about: Any = extra[EXTENSION]
                since, sunset = date.fromisoformat(about["since"]), date.fromisoformat(about["sunset"])
                marked[field.alias] = Deprecation(since, sunset, about["use"])
        _MARKED[route.endpoint] = marked
    return _MARKED[route.endpoint]


_MARKED: dict[Callable[..., Any], dict[str, Deprecation]] = {}


def headers_of(found: list[Deprecation], root_path: str) -> list[tuple[bytes, bytes]]:
    """Return the headers of an answer: the earliest of each date, and where the documentation is."""
    since, sunset = min(one.since for one in found), min(one.sunset for one in found)
    return [
        (b"deprecation", f"@{_seconds(since)}".encode()),
        (b"sunset", formatdate(_seconds(sunset), usegmt=True).encode()),
        (b"link", f'<{root_path}{DOCS_PATH}>; rel="deprecation"; type="text/html"'.encode()),
    ]


def _seconds(day: date) -> int:
    return timegm(day.timetuple())


class DeprecationHeaders:
    """Adds the headers to every answer of what is deprecated, errors too."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                found = of_request(scope.get("route"), scope["query_string"])
                if found:
                    added = headers_of(found, root_path_of(scope))
                    message = {**message, "headers": [*message["headers"], *added]}
            await send(message)

        await self.app(scope, receive, send_marked)

"""Cross-origin requests: which pages of other origins may read answers. None without `TRAINKIT_CORS_ORIGINS`.

Keys travel in a header, never in a cookie: no answer allows credentials, and origins are named exactly.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Collection

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp

from service.errors import MEDIA_TYPE, HttpProblem

ORIGIN = re.compile(r"https?://([a-z0-9]([a-z0-9.-]*[a-z0-9])?|\[[0-9a-f:.]+\])(:[1-9][0-9]{0,4})?", re.ASCII)
DEFAULT_PORTS = (("http:", ":80"), ("https:", ":443"))
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
REQUEST_HEADERS = (
    *("Authorization", "Cache-Control", "Content-Digest", "Content-Type", "Idempotency-Key"),
    *("If-Match", "If-Modified-Since", "If-None-Match", "If-Range", "Last-Event-ID", "Prefer", "Range"),
    *("Traceparent", "Tracestate", "Trainkit-Project", "X-HTTP-Method-Override", "X-Request-Id"),
    *("Tus-Resumable", "Upload-Checksum", "Upload-Defer-Length", "Upload-Length", "Upload-Metadata", "Upload-Offset"),
)
"""What a page may send."""
RESPONSE_HEADERS = (
    *("Accept-Ranges", "Allow", "Content-Disposition", "Content-Range", "Deprecation", "ETag", "Idempotency-Replayed"),
    *(
        "Last-Modified",
        "Link",
        "Location",
        "Preference-Applied",
        "RateLimit",
        "RateLimit-Policy",
        "Repr-Digest",
        "Retry-After",
        "Sunset",
    ),
    *("Trainkit-Dataset", "Trainkit-Model", "Trainkit-Next", "WWW-Authenticate", "X-Request-Id"),
    *("Tus-Checksum-Algorithm", "Tus-Extension", "Tus-Max-Size", "Tus-Resumable", "Tus-Version"),
    *("Upload-Defer-Length", "Upload-Expires", "Upload-Length", "Upload-Metadata", "Upload-Offset"),
)
"""What a page may read beside the body."""
PREFLIGHT_SECONDS = 600


class CrossOrigin(CORSMiddleware):
    """Answers preflights, which have no key, and lets the named origins read answers, errors and streams too."""

    def __init__(self, app: ASGIApp, origins: Collection[str]) -> None:
        super().__init__(
            app,
            allow_origins=origins,
            allow_methods=METHODS,
            allow_headers=REQUEST_HEADERS,
            expose_headers=RESPONSE_HEADERS,
            max_age=PREFLIGHT_SECONDS,
        )

    def preflight_response(self, request_headers: Headers) -> Response:
        response = super().preflight_response(request_headers)
        if response.status_code != 400:
            return Response(status_code=204, headers=_preflight(response))
        reason = bytes(response.body).decode().removeprefix("Disallowed CORS ")
        detail = f"The service does not allow the {reason} of this cross-origin request."
        problem, request_id = HttpProblem(403, "cross_origin_refused", detail), uuid.uuid4().hex[:16]
        headers = {**_preflight(response), "X-Request-Id": request_id}
        return JSONResponse(problem.body(request_id), 403, headers=headers, media_type=MEDIA_TYPE)


def _preflight(response: Response) -> dict[str, str]:
    return {name: value for name, value in response.headers.items() if not name.startswith("content-")}


def checked_origin(name: str) -> str:
    """Return an origin as browsers send it. Raises ValueError for what no browser sends, or what stands for many."""
    origin = name.lower()
    wrong = ORIGIN.fullmatch(origin) is None or any(
        origin.startswith(scheme) and origin.endswith(port) for scheme, port in DEFAULT_PORTS
    )
    if wrong:
        hint = "It takes exact origins such as https://app.example.com or http://localhost:5173, without * and path."
        raise ValueError(f"TRAINKIT_CORS_ORIGINS holds {name!r}. {hint}")
    return origin


def headers_for(origin: str | None, origins: Collection[str]) -> dict[str, str]:
    """Return the headers of an answer that never reaches the application."""
    if not origins:
        return {}
    if origin is None or origin not in origins:
        return {"Vary": "Origin"}
    return {
        "Access-Control-Allow-Origin": origin,
        "Access-Control-Expose-Headers": ", ".join(RESPONSE_HEADERS),
        "Vary": "Origin",
    }

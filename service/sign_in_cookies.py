"""Cookies of the sign-in, and what keeps another site's page from using them."""

from __future__ import annotations

from http.cookies import CookieError, SimpleCookie
from urllib.parse import urlsplit

from starlette.responses import Response
from starlette.types import Scope

from service.errors import HttpProblem

SESSION_COOKIE, PENDING_COOKIE = "__Host-trainkit-session", "__Host-trainkit-sign-in"
"""With this prefix a browser takes them only over TLS (or on localhost), and from this very host."""
ID_TOKEN_COOKIE = "__Secure-trainkit-id-token"
"""The provider's proof of who signed in, which it asks for to end its own session. Sent to the sign-out alone."""
MAX_ID_TOKEN = 3500
"""Browsers drop cookies beyond 4096 bytes."""
PENDING_SECONDS = 600
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


def set_cookie(response: Response, name: str, value: str, seconds: int, path: str = "/") -> None:
    """Set a cookie that no script reads and that another site's page does not send but by a link."""
    response.set_cookie(name, value, max_age=seconds, path=path, secure=True, httponly=True, samesite="lax")


def clear_cookie(response: Response, name: str, path: str = "/") -> None:
    """Make the browser forget a cookie."""
    response.delete_cookie(name, path=path, secure=True, httponly=True, samesite="lax")


def session_token(scope: Scope) -> str | None:
    """Return the token of the browser's session."""
    for name, value in scope["headers"]:
        if name == b"cookie" and SESSION_COOKIE.encode() in value:
            try:
                cookie = SimpleCookie(value.decode("latin-1")).get(SESSION_COOKIE)
            except CookieError:
                return None
            return cookie.value if cookie is not None else None
    return None


def check_same_origin(scope: Scope) -> None:
    """Raise a 403 problem for a write that another site's page may have made: a browser sends the cookie with it.

    As Go's `CrossOriginProtection`: `Sec-Fetch-Site` where the browser sends it, else `Origin` has to name this host. A
    request with neither is no browser's, and a program has no reason to come with a cookie.
    """
    if scope["method"] in SAFE_METHODS:
        return
    headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
    site = headers.get(b"sec-fetch-site")
    same = site == "same-origin" if site is not None else _host_of(headers.get(b"origin", "")) == headers.get(b"host")
    if not same:
        detail = "A signed-in browser may write only from a page of this service. Programs send an API key instead."
        raise HttpProblem(403, "cross_origin_refused", detail)


def _host_of(origin: str) -> str:
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return ""

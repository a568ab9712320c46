"""HTTP of the sign-in of browsers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, TypeVar

from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import RedirectResponse

from service.audit.trail import signing_in
from service.auth import BEARER, Authenticated
from service.context import Context, Service
from service.errors import HttpProblem
from service.load_shedding import leave_work
from service.oidc import sign_in
from service.oidc.provider import Provider, ProviderUnavailable
from service.oidc.sign_in import RETURN_TO, PendingSignIn, SignedIn
from service.principal import Principal
from service.proxy_headers import root_path_of
from service.request_checks import check_request
from service.request_sessions import SessionRoute
from service.sign_in_cookies import (
    ID_TOKEN_COOKIE,
    MAX_ID_TOKEN,
    PENDING_COOKIE,
    PENDING_SECONDS,
    SESSION_COOKIE,
    clear_cookie,
    set_cookie,
)
from service.users import service as users
from service.users.tables import User

router = APIRouter(prefix="/v1/auth", tags=["sign-in"], route_class=SessionRoute)
AFTER_SIGN_IN = "/docs"
AtProvider = Annotated[bool, Query(description="Also end the session at the sign-in provider: the answer is 303.")]
T = TypeVar("T")
MOST_AT_ONCE = 8
"""Requests that wait for the provider at once: they must not take all threads from those who need none."""
_waiting = CapacityLimiter(MOST_AT_ONCE)
REDIRECT: dict[int | str, dict[str, Any]] = {302: {"description": "Go on at `Location`.", "content": {}}}
ReturnTo = Annotated[
    str, Query(pattern=f"^{RETURN_TO.pattern}$", description="Path of this service to come back to; default: /docs.")
]


async def provider_of(request: Request) -> Provider:
    """The sign-in provider. Raises a 404 problem where none is set."""
    provider: Provider | None = request.app.state.oidc_provider
    if provider is None:
        detail = "This installation has no sign-in: use an API key. The operator sets TRAINKIT_OIDC_ISSUER to have one."
        raise HttpProblem(404, "sign_in_off", detail)
    return provider


SignInProvider = Annotated[Provider, Depends(provider_of)]


@router.get(
    "/login",
    status_code=302,
    response_class=Response,
    responses=REDIRECT,
    dependencies=[Depends(check_request)],
    summary="Sign in with a browser: go to the provider",
)
async def begin_sign_in(request: Request, provider: SignInProvider, return_to: ReturnTo = AFTER_SIGN_IN) -> Response:
    """Sends the browser to the sign-in provider, which sends it back to `/v1/auth/callback`."""
    pending = PendingSignIn.begin(return_to)
    try:
        metadata = await _ask_provider(provider.metadata)
    except ProviderUnavailable:
        raise sign_in.unavailable() from None
    url = sign_in.authorization_url(provider.config, metadata, pending, _redirect_uri(request))
    request.state.keep_location = True  # the provider may be another path of this very host
    response = RedirectResponse(url, 302)
    set_cookie(response, PENDING_COOKIE, pending.cookie(), PENDING_SECONDS)
    return response


@router.get(
    "/callback",
    status_code=302,
    response_class=Response,
    responses=REDIRECT,
    summary="Finish a sign-in: where the provider sends the browser",
)
async def finish_sign_in(request: Request, context: Service, provider: SignInProvider) -> Response:
    """Checks `state`, exchanges `code`, and signs the browser in with a cookie. Providers may send more parameters."""

    def exchange() -> SignedIn:
        cookie = request.cookies.get(PENDING_COOKIE)
        return sign_in.finish(provider, cookie, dict(request.query_params), _redirect_uri(request))

    found = await _ask_provider(exchange)
    before = request.cookies.get(SESSION_COOKIE)
    user = await to_thread.run_sync(users.record, context.sessions, found.claims, provider.config.group_roles)
    request.state.principal = Principal(f"user:{user.id}", user_id=user.id)  # who it is, for the log and the audit log
    if user.disabled_at is not None:
        raise users.user_disabled(user)
    token = await to_thread.run_sync(_begin_session, context, user, provider.config.session_seconds, before)
    response, seconds = RedirectResponse(found.return_to, 302), int(provider.config.session_seconds)
    set_cookie(response, SESSION_COOKIE, token, seconds)
    if len(found.id_token) <= MAX_ID_TOKEN:
        set_cookie(response, ID_TOKEN_COOKIE, found.id_token, seconds, _sign_out_path(request))
    clear_cookie(response, PENDING_COOKIE)
    return response


@router.post(
    "/logout",
    status_code=204,
    responses={303: {"description": "Signed out here; go on at the provider, which is at `Location`.", "content": {}}},
    dependencies=[Depends(BEARER), Depends(check_request)],
    summary="Sign this browser out",
)
async def sign_out(request: Request, who: Authenticated, context: Service, at_provider: AtProvider = False) -> Response:
    """Ends the browser's session here. A key or token has none to end. With `at_provider=true` the answer sends the browser
    on to the provider, which ends its own session and sends it back to /docs: for a form of a page, as in
    `<form method="post" action="/v1/auth/logout?at_provider=true">`.
    """
    response = Response(status_code=204)
    provider: Provider | None = request.app.state.oidc_provider
    if at_provider:
        request.state.keep_location = True
        after = f"{_base_url(request)}{AFTER_SIGN_IN}"
        id_token = request.cookies.get(ID_TOKEN_COOKIE)
        response = RedirectResponse(await _end_at_provider(provider, id_token, after) or after, 303)
    token = request.cookies.get(SESSION_COOKIE)
    if token is not None:
        await to_thread.run_sync(_end_session, context, token)
    clear_cookie(response, SESSION_COOKIE)
    clear_cookie(response, ID_TOKEN_COOKIE, _sign_out_path(request))
    return response


async def _end_at_provider(provider: Provider | None, id_token: str | None, return_to: str) -> str | None:
    """Return where the provider ends its session; None where it does not say, or does not answer."""
    if provider is None:
        return None
    try:
        metadata = await _ask_provider(provider.metadata)
    except (ProviderUnavailable, HttpProblem):
        return None
    return sign_in.logout_url(provider.config, metadata, id_token, return_to)


def _end_session(context: Context, token: str) -> None:
    with context.sessions.begin() as session:
        users.end_session(session, token)


def _begin_session(context: Context, user: User, seconds: float, before: str | None) -> str:
    """Create a session in place of the browser's earlier one; returns its token."""
    with signing_in(user.id), context.sessions.begin() as session:
        if before is not None:
            users.end_session(session, before)
        return users.begin_session(session, user, seconds)


async def _ask_provider(ask: Callable[[], T]) -> T:
    """Run what waits for the provider in a thread. Raises a 503 problem where too many wait already."""
    leave_work()
    if _waiting.available_tokens < 1:
        raise sign_in.unavailable()
    return await to_thread.run_sync(ask, limiter=_waiting)


def _redirect_uri(request: Request) -> str:
    """Return the address of the callback as the browser knows it."""
    return f"{_base_url(request)}/v1/auth/callback"


def _base_url(request: Request) -> str:
    return f"{request.url.scheme}://{request.url.netloc}{root_path_of(request.scope)}"


def _sign_out_path(request: Request) -> str:
    return f"{root_path_of(request.scope)}/v1/auth/logout"

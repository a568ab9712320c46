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
from service.oidc.sign_in import RETURN_TO, PendingSignIn
from service.principal import Principal
from service.proxy_headers import root_path_of
from service.request_checks import check_request
from service.request_sessions import SessionRoute, WriteSession
from service.sign_in_cookies import PENDING_COOKIE, PENDING_SECONDS, SESSION_COOKIE, clear_cookie, set_cookie
from service.users import service as users
from service.users.service import Claims
from service.users.tables import User

router = APIRouter(prefix="/v1/auth", tags=["sign-in"], route_class=SessionRoute)
AFTER_SIGN_IN = "/docs"
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

    def exchange() -> tuple[Claims, str]:
        cookie = request.cookies.get(PENDING_COOKIE)
        return sign_in.finish(provider, cookie, dict(request.query_params), _redirect_uri(request))

    claims, return_to = await _ask_provider(exchange)
    before = request.cookies.get(SESSION_COOKIE)
    user = await to_thread.run_sync(users.record, context.sessions, claims, provider.config.group_roles)
    request.state.principal = Principal(f"user:{user.id}", user_id=user.id)  # who it is, for the log and the audit log
    if user.disabled_at is not None:
        raise users.user_disabled(user)
    token = await to_thread.run_sync(_begin_session, context, user, provider.config.session_seconds, before)
    response = RedirectResponse(return_to, 302)
    set_cookie(response, SESSION_COOKIE, token, int(provider.config.session_seconds))
    clear_cookie(response, PENDING_COOKIE)
    return response


@router.post(
    "/logout", status_code=204, dependencies=[Depends(BEARER), Depends(check_request)], summary="Sign this browser out"
)
def sign_out(request: Request, who: Authenticated, session: WriteSession, response: Response) -> None:
    """Ends the browser's session here; the provider's own goes on. A key or token has none to end."""
    token = request.cookies.get(SESSION_COOKIE)
    if token is not None:
        users.end_session(session, token)
    clear_cookie(response, SESSION_COOKIE)


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
    return f"{request.url.scheme}://{request.url.netloc}{root_path_of(request.scope)}/v1/auth/callback"

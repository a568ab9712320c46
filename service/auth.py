"""Deny by default: one ASGI middleware before everything; no route, mount or 404 is reached without a key."""

from __future__ import annotations

import hmac
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Annotated, Literal, NamedTuple
from urllib.parse import unquote_plus

from anyio import CapacityLimiter, to_thread
from fastapi import Depends, Request
from fastapi.security import HTTPBearer
from sqlalchemy.orm import Session, sessionmaker
from starlette.types import ASGIApp, Receive, Scope, Send

from service.database import reading
from service.errors import DATABASE_AWAY, BodyProblem, HttpProblem, answer, database_away
from service.http_server.connections import address_of
from service.keys.service import FORM, ExpiredKeyError, authenticate, hash_of, touch
from service.oidc import sign_in
from service.oidc.provider import Provider, ProviderUnavailable
from service.oidc.tokens import TokenExpired, TokenRefused, completed, key_id_of, looks_like_jwt, verify
from service.principal import Identity, Principal, ProjectAccess
from service.problem_types import PROBLEM_TYPES
from service.projects import repository as projects
from service.projects.service import no_project, unknown_project
from service.roles import OPERATOR, Role, includes
from service.sign_in_cookies import check_same_origin, session_token
from service.stream_tickets import service as stream_tickets
from service.users import service as users
from service.users.service import Claims
from service.users.tables import User
from service.wrong_keys import WrongKeys

OPEN_PATHS = frozenset(
    {"/", "/healthz", "/readyz", "/ui", "/docs", "/llms.txt", "/llms-full.txt", "/v1/auth/login", "/v1/auth/callback"}
)
OPEN_FOLDERS = ("/ui/", "/docs/")
METRICS_PATH = "/metrics"
STREAM = "/stream"
PROJECT_HEADER = b"trainkit-project"
"""Also the name of a query parameter that stands for it, for links and `EventSource`, which send no header."""
TOKEN_THREADS = 8
"""Requests at once whose token may have to wait for the sign-in provider."""
KEEP_SECONDS = 2.0
"""How long a checked key is believed without asking the database again: revoking takes effect within this time."""
TOUCH_SECONDS = 60.0
KEPT_KEYS = 1000


class Credential(NamedTuple):
    """What a request shows of who it is from."""

    kind: Literal["bearer", "session"]
    secret: str

    @property
    def encoded(self) -> bytes:
        """The secret as it came."""
        return self.secret.encode("latin-1")


class CheckedCredential(NamedTuple):
    """Whose a credential was when the database was asked."""

    identity: Identity
    check_at: float
    """When the next request asks again; monotonic seconds."""
    valid_until: float
    """When every request asks again."""


class Authentication:
    """Finds out who asks, and lets only the open paths pass without.

    An API key or a token of the sign-in provider in `Authorization`, else the cookie of a signed-in browser.
    `metrics_token` opens `/metrics` and nothing else, and needs no database to be checked. `open_paths` are those that the
    operator has opened.
    """

    def __init__(
        self,
        app: ASGIApp,
        sessions: sessionmaker[Session],
        metrics_token: str | None = None,
        max_key_days: int = 0,
        open_paths: Collection[str] = (),
        max_wrong_keys: int = 0,
        provider: Provider | None = None,
    ) -> None:
        self.app, self.sessions, self._provider = app, sessions, provider
        self._open_paths = frozenset(open_paths)
        self._metrics_token, self._max_key_days = (metrics_token or "").encode(), max_key_days
        self._known: dict[Credential, CheckedCredential] = {}
        self._touched: dict[str, float] = {}
        self._wrong_keys = WrongKeys(sessions, max_wrong_keys)
        self._token_threads = CapacityLimiter(TOKEN_THREADS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        scope.setdefault("state", {})
        if not is_open(scope["path"]) and scope["path"] not in self._open_paths:
            try:
                identity = await self._identity(scope)
                scope["state"]["identity"] = identity
                scope["state"]["principal"] = await self._principal(identity, scope)
            except DATABASE_AWAY:
                await answer(database_away(), scope)(scope, receive, send)
                return
            except HttpProblem as problem:
                await answer(problem, scope)(scope, receive, send)
                return
        await self.app(scope, receive, send)

    async def _identity(self, scope: Scope) -> Identity:
        """Return who asks. Raises a 401 problem, 429 after too many wrong keys, and others of signed-in users."""
        header = next((value for name, value in scope["headers"] if name == b"authorization"), None)
        if scope["path"].endswith(STREAM):
            scope["query_string"], tickets = stream_tickets.without_ticket(scope["query_string"])
            if header is None and tickets:
                return await self._ticket_holder(scope, tickets)
        if header is not None:
            scheme, _, secret = header.decode("latin-1").partition(" ")
            if scheme.lower() != "bearer":
                raise unauthorized("key_malformed")
            credential = Credential("bearer", secret.strip())
        elif self._provider is not None and (token := session_token(scope)) is not None:
            check_same_origin(scope)
            credential = Credential("session", token)
        else:
            raise unauthorized("key_missing")
        for_metrics = scope["path"] == METRICS_PATH
        if for_metrics and self._metrics_token and hmac.compare_digest(credential.encoded, self._metrics_token):
            return SCRAPER
        known, now = self._known.get(credential), time.monotonic()
        if known is not None and now < known.check_at:
            return known.identity
        if known is not None and now < known.valid_until:
            # one checks it anew early, others go on: else all requests of a busy key would ask the database at once
            self._known[credential] = known._replace(check_at=known.valid_until)
        try:
            identity = await self._ask(credential, scope.get("client"))
        except HttpProblem as problem:
            if problem.status == 401:
                self._known.pop(credential, None)
            elif known is not None and time.monotonic() < known.valid_until:
                return known.identity
            raise
        except DATABASE_AWAY:
            # a scrape must tell that the database is away; meanwhile nobody can revoke its key
            if known is not None and (for_metrics or time.monotonic() < known.valid_until):
                return known.identity
            raise
        if len(self._known) >= KEPT_KEYS:
            self._known.clear()
            self._touched.clear()
        self._known[credential] = CheckedCredential(identity, now + KEEP_SECONDS / 2, now + KEEP_SECONDS)
        return identity

    async def _ticket_holder(self, scope: Scope, tickets: list[str]) -> Identity:
        """Return who asks by a stream ticket. Raises a 401 problem, or 429 after too many wrong keys and tickets."""
        identity, address = None, address_of(scope.get("client"))
        self._wrong_keys.check_address(address)
        if len(tickets) == 1 and scope["method"] in ("GET", "HEAD"):
            identity = await to_thread.run_sync(self._redeem, tickets[0], scope["path"])
        if identity is None:
            self._wrong_keys.count(address)
            raise unauthorized("ticket_invalid")
        return identity

    def _redeem(self, ticket: str, path: str) -> Identity | None:
        with reading(self.sessions) as session:
            return stream_tickets.redeem(session, ticket, path, self._max_key_days)

    async def _ask(self, credential: Credential, client: tuple[str, int] | None) -> Identity:
        kind, secret = credential
        if kind == "bearer" and self._provider is not None and looks_like_jwt(secret):
            return await self._ask_token(self._provider, secret)
        if kind == "bearer" and FORM.fullmatch(secret) is None:
            raise unauthorized("key_malformed")
        await self._wrong_keys.check(
            address_of(client), users.hash_token(secret) if kind == "session" else hash_of(secret)
        )
        try:
            if kind == "session":
                return await to_thread.run_sync(self._ask_session, secret)
            return await to_thread.run_sync(self._ask_key, secret, client[0] if client else None)
        except HttpProblem as problem:
            if problem.status == 401:
                self._wrong_keys.count(address_of(client))
            raise

    def _ask_key(self, key: str, address: str | None) -> Identity:
        # a wrong key only reads: guessing must not keep writers waiting
        try:
            with reading(self.sessions) as session:
                identity = authenticate(session, key, self._max_key_days)
        except ExpiredKeyError:
            raise unauthorized("key_expired") from None
        if identity is None or identity.key_id is None:
            raise unauthorized("key_invalid")
        if self._is_due(identity.key_id):
            with self.sessions.begin() as session:
                touch(session, identity.key_id, address)
        return identity

    def _ask_session(self, token: str) -> Identity:
        with reading(self.sessions) as session:
            user = users.session_user(session, token)
            if user is None:
                raise HttpProblem(401, "session_ended", "You are signed out. Sign in again at /v1/auth/login.")
            identity = users.identity_of(session, user)
        return self._seen(identity, user)

    async def _ask_token(self, provider: Provider, token: str) -> Identity:
        # whoever waits for the provider must not keep waiting who comes with a key, or with a token that can be checked
        limiter = None if provider.knows_key(key_id_of(token)) else self._token_threads
        claims, user = await to_thread.run_sync(self._verify, provider, token, limiter=limiter)
        if user is None:
            user = await to_thread.run_sync(self._record, provider, token, claims, limiter=self._token_threads)
        return await to_thread.run_sync(self._identity_of, user)

    def _verify(self, provider: Provider, token: str) -> tuple[Claims, User | None]:
        """What the token says, and whose it is; None where it says something new."""
        with _token_problems():
            claims = verify(provider, token, provider.config.audience)
        with reading(self.sessions) as session:
            return claims, users.is_current(session, claims)

    def _record(self, provider: Provider, token: str, claims: Claims) -> User:
        with _token_problems():
            claims = completed(provider, claims, token)
        return users.record(self.sessions, claims, provider.config.group_roles)

    def _identity_of(self, user: User) -> Identity:
        with reading(self.sessions) as session:
            identity = users.identity_of(session, user)
        return self._seen(identity, user)

    def _seen(self, identity: Identity, user: User) -> Identity:
        if user.disabled_at is not None:
            raise users.user_disabled(user)
        if self._is_due(user.id):
            with self.sessions.begin() as session:
                users.touch(session, user.id)
        return identity

    def _is_due(self, identifier: str) -> bool:
        """Whether the time of its last use is to be written again."""
        now = time.monotonic()
        if now - self._touched.get(identifier, -TOUCH_SECONDS) < TOUCH_SECONDS:
            return False
        self._touched[identifier] = now
        return True

    async def _principal(self, identity: Identity, scope: Scope) -> Principal:
        """Return the identity in the project of `Trainkit-Project`, or in its only one.

        Raises a 404 problem for one that it may not see, and 422 for several.
        """
        name = _chosen_project(scope)
        if name is None:
            return identity.alone()
        project = identity.find(name)
        if project is None and identity.operator:
            project = await to_thread.run_sync(self._find_project, name)
        if project is None:
            raise unknown_project(name)
        return identity.within(project)

    def _find_project(self, name: str) -> ProjectAccess | None:
        """Where the operator has no role: the project of that name or id."""
        with reading(self.sessions) as session:
            project = projects.named(session, name) or projects.find(session, name)
            return None if project is None else ProjectAccess(project.id, project.name, None)


SCRAPER = Identity("metrics-token", operator=True)
"""Whoever has the token: only ever let through to `/metrics`."""


@contextmanager
def _token_problems() -> Iterator[None]:
    try:
        yield
    except TokenExpired:
        raise unauthorized("key_expired") from None
    except TokenRefused as error:
        raise unauthorized("key_invalid", f"The token is not valid here: {error}.") from None
    except ProviderUnavailable:
        raise sign_in.unavailable() from None


def _chosen_project(scope: Scope) -> str | None:
    """Return the project that a request names, and take the parameter out of its query.

    By a parameter only what is read can be chosen. It gives nobody access: the identity is asked for the project as with
    the header. Raises a 422 problem where header and parameters name different ones.
    """
    names = [value.decode("latin-1").strip() for name, value in scope["headers"] if name == PROJECT_HEADER]
    if scope["method"] in ("GET", "HEAD"):
        kept = []
        for item in scope["query_string"].split(b"&"):
            name, _, value = item.partition(b"=")
            if name.lower() == PROJECT_HEADER:
                names.append(unquote_plus(value.decode("latin-1")).strip())
            else:
                kept.append(item)
        scope["query_string"] = b"&".join(kept)
    if len(set(names)) > 1:
        shown = ", ".join(repr(name[:80]) for name in dict.fromkeys(names))
        raise HttpProblem(
            422, "invalid_request", f"Trainkit-Project names several projects: {shown}. Name one of them."
        )
    return names[0] if names else None


def is_open(path: str) -> bool:
    """Whether a path needs no key: health, and static files of the dashboard and the documentation, which hold no data."""
    return path in OPEN_PATHS or (path.startswith(OPEN_FOLDERS) and ".." not in path)


def unauthorized(
    code: Literal["key_missing", "key_malformed", "key_invalid", "key_expired", "ticket_invalid"],
    detail: str | None = None,
) -> HttpProblem:
    """401, with what is wrong with the key and the way to do it right (RFC 6750)."""
    about = PROBLEM_TYPES[code]
    challenge = 'Bearer realm="trainkit"'
    if code != "key_missing":
        challenge += f', error="invalid_token", error_description="{about.title}"'
    detail = detail or f"{about.meaning} {about.hint}"
    return HttpProblem(401, code, detail, headers={"WWW-Authenticate": challenge})


class Needs:
    """Dependency of every route: the role that the caller must have in the project; None lets everybody who is known pass.

    `or_operator` lets the operator pass as well, who then needs no role there. `or_person` lets every member pass who has
    signed in, for what is their own: the operation has to check whose it is. A key is not enough for that: whoever
    steals one could make others that outlive it.
    """

    def __init__(self, role: Role | None, *, or_operator: bool = False, or_person: bool = False) -> None:
        self.role, self.or_operator, self.or_person = role, or_operator, or_person

    async def __call__(self, request: Request) -> Principal:
        principal: Principal = request.state.principal
        if (problem := self.problem(principal)) is not None:
            raise problem
        return principal

    @property
    def roles(self) -> tuple[Role, ...]:
        """The roles of which one is needed; none for whoever is known."""
        return (*(() if self.role is None else (self.role,)), *((OPERATOR,) if self.or_operator else ()))

    def problem(self, principal: Principal) -> HttpProblem | None:
        """403 without the role, 409 for writes to an archived project."""
        if self.role is None or (principal.operator and (self.or_operator or self.role == OPERATOR)):
            return None
        if self.role == OPERATOR:
            hint = "`trainkit key create --role operator` creates such a key."
            return _forbidden(self.role, f"This needs the role operator, which is the platform's. {hint}")
        if principal.choices:
            return no_project(principal)
        if self.or_person and principal.is_person and principal.role is not None:
            return None
        if not includes(principal.role, self.role):
            held = f"yours in this project is {principal.role}" if principal.role else "you have no role in a project"
            detail = f"This needs the role {self.role}; {held}. An admin of the project can give it."
            if principal.operator and principal.role is None:
                detail = f"This needs the role {self.role} in a project. {OPERATOR_ALONE}"
            if self.or_person:
                detail += " Keys of their own are managed by members who have signed in, without a key."
            return _forbidden(self.role, detail)
        if principal.is_archived and self.role == "developer":
            return project_archived()
        return None


OPERATOR_ALONE = (
    "The operator manages projects, users, keys and limits, and sees no jobs or data. Create a key with a role in the "
    "project (POST /v1/keys with Trainkit-Project), or become a member (POST /v1/members)."
)


def _forbidden(role: Role, detail: str) -> HttpProblem:
    challenge = f'Bearer realm="trainkit", error="insufficient_scope", scope="{role}"'
    return HttpProblem(403, "forbidden", detail, headers={"WWW-Authenticate": challenge})


def project_archived() -> HttpProblem:
    """409: the project is only read."""
    detail = "The project is archived: it can be read, and nothing in it changes. The operator can take it back to use "
    return HttpProblem(409, "project_archived", detail + '(PATCH /v1/projects/{project_id} with {"archived": false}).')


def check_role(scope: Scope) -> None:
    """Check the key against the route that was matched, before its body is read. Raises a 403 problem for body parsers.

    FastAPI reads a body before it asks the dependencies, so that anybody's would be parsed.
    """
    principal = scope.get("state", {}).get("principal")
    dependant = getattr(scope.get("route"), "dependant", None)
    if principal is None or dependant is None:
        return
    for dependency in dependant.dependencies:
        if isinstance(dependency.call, Needs) and (problem := dependency.call.problem(principal)) is not None:
            raise BodyProblem(problem)


BEARER = HTTPBearer(auto_error=False, scheme_name="key", description="`trainkit key create` creates a key.")
"""Only tells OpenAPI about the header: the middleware has checked it long before."""
Reader = Annotated[Principal, Depends(Needs("viewer"))]
Writer = Annotated[Principal, Depends(Needs("developer"))]
Admin = Annotated[Principal, Depends(Needs("admin"))]
Manager = Annotated[Principal, Depends(Needs("admin", or_operator=True))]
"""Who manages a project: its admins, and the operator."""
ManagerOrPerson = Annotated[Principal, Depends(Needs("admin", or_operator=True, or_person=True))]
"""The same, and members who have signed in, for what is their own."""
Operator = Annotated[Principal, Depends(Needs("operator"))]
Authenticated = Annotated[Principal, Depends(Needs(None))]
"""Whoever is known, with whatever role."""


async def identity_of(request: Request) -> Identity:
    """The identity of a request, with all projects that it may enter."""
    identity: Identity = request.state.identity
    return identity


CurrentIdentity = Annotated[Identity, Depends(identity_of)]
"""Beside one of the others, which decides whether the request passes."""

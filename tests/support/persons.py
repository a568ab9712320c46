"""Persons who have signed in, by the cookie of a browser or by a token, at a provider that is played in the process."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from fastapi.testclient import TestClient
from joserfc import jwk, jwt

from service.roles import Role
from service.settings import Settings
from service.sign_in_cookies import SESSION_COOKIE
from service.users import service as users
from service.users.service import Claims, GroupRoles
from tests.support.api import Served

ISSUER, CLIENT_ID = "https://login.example", "trainkit"
ROLES: dict[str, Any] = {f"{role}s": {"default": role} for role in ("viewer", "developer", "admin")}
ROLES |= {"strangers": {"another": "admin"}, "operators": "operator"}
GROUP_ROLES = GroupRoles(
    {name: given for name, given in ROLES.items() if name != "operators"}, frozenset({"operators"})
)
GROUPS: dict[Role, str] = {
    "viewer": "viewers",
    "developer": "developers",
    "admin": "admins",
    "operator": "operators",
}


def with_sign_in(settings: Settings, groups: str) -> Settings:
    """The same with a sign-in; `groups` is the mapping of them as JSON."""
    return replace(settings, oidc_issuer=ISSUER, oidc_client_id=CLIENT_ID, oidc_roles=groups)


@dataclass
class Persons:
    """Makes what persons show of themselves: headers of a request."""

    service: Served
    key: jwk.RSAKey = field(default_factory=lambda: jwk.RSAKey.generate_key(2048, {"kid": "one"}))

    def request(self, method: str, url: str, **options: Any) -> Mapping[str, Any]:
        """What the provider answers."""
        if url.endswith("/jwks"):
            return {"keys": [{**self.key.as_dict(private=False), "kid": "one"}]}
        endpoints = {name: f"{ISSUER}/{name}" for name in ("authorization_endpoint", "token_endpoint")}
        return {"issuer": ISSUER, "jwks_uri": f"{ISSUER}/jwks", **endpoints}

    def token(self, subject: str, *groups: str, key: jwk.RSAKey | None = None, **changes: Any) -> dict[str, str]:
        """A bearer token of the provider."""
        now = int(time.time())
        claims = {"iss": ISSUER, "aud": CLIENT_ID, "sub": subject, "iat": now, "exp": now + 600, "groups": list(groups)}
        encoded = jwt.encode({"alg": "RS256", "kid": "one"}, {**claims, **changes}, key or self.key)
        return {"Authorization": f"Bearer {encoded}"}

    def session(self, subject: str, *groups: str, seconds: float = 600.0) -> dict[str, str]:
        """The cookie of a browser that has signed in, on a page of the service."""
        claims = Claims(ISSUER, subject, subject, None, frozenset(groups), datetime.now(UTC))
        user = users.record(self.service.sessions, claims, GROUP_ROLES)
        with self.service.sessions.begin() as session:
            return cookie(users.begin_session(session, user, seconds))

    def client(self, headers: dict[str, str]) -> TestClient:
        """A client that shows them."""
        return TestClient(self.service.app, headers=headers, raise_server_exceptions=False)


def cookie(token: str) -> dict[str, str]:
    """Headers of a browser with that session."""
    return {"Cookie": f"{SESSION_COOKIE}={token}", "Sec-Fetch-Site": "same-origin"}

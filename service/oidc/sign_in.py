"""Sign-in of a browser: authorization code with PKCE, state and nonce (OpenID Connect Core 3.1, RFC 7636, RFC 9700).

What has to be remembered until the browser comes back is in a cookie of its own and not in the database: it is bound to
the browser that began, and nobody can fill a table with sign-ins that never end. It needs no signature: whoever writes
it can only begin a sign-in of their own, for the provider binds the code to the challenge and the token to the nonce.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from urllib.parse import urlencode, urlsplit, urlunsplit

from service.errors import HttpProblem
from service.oidc import tokens
from service.oidc.config import OidcConfig
from service.oidc.provider import Metadata, Provider, ProviderRefused, ProviderUnavailable
from service.users.service import Claims

RETURN_TO = re.compile(r"/([\x21-\x2e\x30-\x5b\x5d-\x7e][\x21-\x5b\x5d-\x7e]{0,500})?")
"""A path of this service, never another host: `//evil.example` and `/\\evil.example` are such."""
MAX_CODE = 2048


@dataclass(frozen=True, slots=True)
class PendingSignIn:
    """A sign-in that has begun in a browser."""

    state: str
    nonce: str
    verifier: str
    return_to: str

    @classmethod
    def begin(cls, return_to: str) -> PendingSignIn:
        """A new one, with 256 random bits each."""
        state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
        return cls(state, nonce, verifier, return_to)

    @classmethod
    def from_cookie(cls, value: str) -> PendingSignIn | None:
        """Read the cookie; None for what this service has not written."""
        try:
            document = json.loads(base64.urlsafe_b64decode(value))
            pending = cls(**document)
        except (ValueError, TypeError, RecursionError):
            return None
        complete = all(isinstance(text, str) and text for text in document.values())
        return pending if complete and RETURN_TO.fullmatch(pending.return_to) else None

    def cookie(self) -> str:
        """The value of the cookie."""
        return base64.urlsafe_b64encode(json.dumps(asdict(self)).encode()).decode()

    @property
    def challenge(self) -> str:
        """PKCE's S256: the hash of what only this browser can show."""
        digest = hashlib.sha256(self.verifier.encode()).digest()
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def authorization_url(config: OidcConfig, metadata: Metadata, pending: PendingSignIn, redirect_uri: str) -> str:
    """Return the provider's address to send the browser to."""
    query = {
        "response_type": "code",
        "client_id": config.client_id,
        "redirect_uri": redirect_uri,
        "scope": config.scopes,
        "state": pending.state,
        "nonce": pending.nonce,
        "code_challenge": pending.challenge,
        "code_challenge_method": "S256",
    }
    return _with_query(metadata.authorization_endpoint, query)


@dataclass(frozen=True, slots=True)
class SignedIn:
    """What a finished sign-in has found out."""

    claims: Claims
    id_token: str
    return_to: str


def finish(provider: Provider, cookie: str | None, query: Mapping[str, str], redirect_uri: str) -> SignedIn:
    """Check what the browser comes back with, exchange its code, and verify what the provider then says.

    Raises a 400 problem for a sign-in that this browser has not begun or a code that the provider refuses, a 403
    problem where the provider or the person said no, a 503 problem while the provider is away.
    """
    pending = PendingSignIn.from_cookie(cookie or "")
    if pending is None:
        raise failed("this browser has not begun it, or more than ten minutes ago")
    if not hmac.compare_digest(query.get("state", "").encode(), pending.state.encode()):
        raise failed("it belongs to another one that this browser has begun")
    if query.get("iss", provider.config.issuer) != provider.config.issuer:
        raise failed("the answer is of another provider")
    if "error" in query:
        shown = re.sub(r"[^\w.-]", "", query["error"])[:100]
        detail = f"The sign-in provider said no: {shown}. Begin again at /v1/auth/login, or ask its administrators."
        raise HttpProblem(403, "sign_in_refused", detail)
    code = query.get("code", "")
    if not 0 < len(code) <= MAX_CODE:
        raise failed("the provider sent no code")
    try:
        response = provider.exchange(code, pending.verifier, redirect_uri)
        id_token = str(response.get("id_token"))
        claims = tokens.verify(provider, id_token, provider.config.client_id, pending.nonce)
        claims = tokens.completed(provider, claims, response.get("access_token"))
    except ProviderRefused as error:
        raise failed(f"the provider refuses the code ({error})") from None
    except tokens.TokenRefused as error:
        raise failed(f"the provider's token is not valid: {error}") from None
    except ProviderUnavailable:
        raise unavailable() from None
    return SignedIn(claims, id_token, pending.return_to)


def logout_url(config: OidcConfig, metadata: Metadata, id_token: str | None, return_to: str) -> str | None:
    """Return the provider's address that ends its own session (OpenID Connect RP-Initiated Logout 1.0); None for none.

    Without an ID token some providers ask the person first.
    """
    if metadata.end_session_endpoint is None:
        return None
    query = {"client_id": config.client_id, "post_logout_redirect_uri": return_to}
    return _with_query(metadata.end_session_endpoint, query | ({"id_token_hint": id_token} if id_token else {}))


def _with_query(url: str, query: Mapping[str, str]) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(query="&".join(filter(None, (parts.query, urlencode(query))))))


def failed(reason: str) -> HttpProblem:
    """400: the sign-in cannot be finished."""
    return HttpProblem(400, "sign_in_failed", f"The sign-in failed: {reason}. Begin again at /v1/auth/login.")


def unavailable() -> HttpProblem:
    """503: the provider is away."""
    detail = "The sign-in provider does not answer. API keys work meanwhile. Try again in half a minute."
    return HttpProblem(503, "sign_in_unavailable", detail, headers={"Retry-After": "30"})

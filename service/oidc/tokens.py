"""Tokens of the sign-in provider: signature, algorithm, issuer, audience, times; then what they say about a person."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from service.oidc.config import OidcConfig
from service.oidc.provider import Provider
from service.users.service import Claims

ALGORITHMS = (
    *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    *("ES256", "ES384", "ES512", "EdDSA", "Ed25519"),
)
"""Signatures of a key pair alone: `none` signs nothing, and HS256 would be checked with a public key as its secret."""
TYPES = frozenset({"jwt", "at+jwt", "application/at+jwt"})
"""Of the header `typ`, if there is one: a logout token is no token to sign in with."""
LEEWAY_SECONDS = 60
MAX_SUBJECT, MAX_NAME, MAX_EMAIL = 255, 200, 320
MAX_GROUPS = 1000
MAX_TOKEN = 16 * 1024


class TokenRefused(Exception):  # noqa: N818 - a validation result
    """A token that is not valid here; the text says what is wrong."""


class TokenExpired(TokenRefused):
    """A token whose time is over."""


def looks_like_jwt(text: str) -> bool:
    """Whether it has the form of a signed token."""
    return text.count(".") == 2 and len(text) <= MAX_TOKEN


def key_id_of(token: str) -> str | None:
    """Return the id of the key that a token says to be signed with."""
    try:
        key_id = _parts(token)[0].get("kid")
    except TokenRefused:
        return None
    return key_id if isinstance(key_id, str) else None


def verify(provider: Provider, token: str, audience: str, nonce: str | None = None) -> Claims:
    """Verify a token and return what it says. Raises TokenRefused, or ProviderUnavailable while keys are needed."""
    # 9 MB of memory, for installations with a sign-in only
    from joserfc import jwt
    from joserfc.errors import JoseError
    from joserfc.jws import JWSRegistry

    config = provider.config
    header, unverified = _parts(token)
    # asked before any key: whatever others issue costs the provider nothing
    if unverified.get("iss") != config.issuer:
        raise TokenRefused("it has another issuer")
    if header.get("alg") not in ALGORITHMS:
        raise TokenRefused("its algorithm is not allowed")
    kind = header.get("typ")
    if kind is not None and (not isinstance(kind, str) or kind.lower() not in TYPES):
        raise TokenRefused("it is a token of another kind")
    key_id = header.get("kid")
    if key_id is not None and not isinstance(key_id, str):
        raise TokenRefused("its key id is no text")
    key = provider.signing_key(key_id)
    if key is None:
        raise TokenRefused("it is signed by a key that the provider does not have")
    try:
        registry = JWSRegistry(algorithms=list(ALGORITHMS), strict_check_header=False)
        claims = jwt.decode(token, key, registry=registry).claims
    except (JoseError, ValueError, TypeError, AttributeError):
        raise TokenRefused("its signature does not fit") from None
    if "events" in claims:  # a logout token of a provider that does not say so in `typ`; or another security event
        raise TokenRefused("it is a token of another kind")
    return _claims_of(_checked(claims, config.issuer, audience, nonce, config.client_id), config)


def _parts(token: str) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Return the header and the claims, of which nothing is known to be true yet."""
    try:
        parts = [json.loads(base64.urlsafe_b64decode(part + "==")) for part in token.split(".")[:2]]
    except (ValueError, RecursionError):
        raise TokenRefused("it is no signed token") from None
    if len(parts) != 2 or not all(isinstance(part, dict) for part in parts):
        raise TokenRefused("it is no signed token")
    return parts[0], parts[1]


def _checked(
    claims: Mapping[str, Any], issuer: str, audience: str, nonce: str | None, client_id: str
) -> Mapping[str, Any]:
    from joserfc import jwt
    from joserfc.errors import ExpiredTokenError, JoseError

    options: dict[str, Any] = {
        "iss": {"essential": True, "value": issuer},
        "aud": {"essential": True, "value": audience},
        "sub": {"essential": True},
        "exp": {"essential": True},
        "iat": {"essential": True},
    }
    if nonce is not None:
        options["nonce"] = {"essential": True, "value": nonce}
        audiences = claims.get("aud")
        # OpenID Connect Core, 3.1.3.7: of several audiences `azp` says for whom it was issued
        if "azp" in claims or (isinstance(audiences, list) and len(audiences) > 1):
            options["azp"] = {"essential": True, "value": client_id}
    try:
        jwt.JWTClaimsRegistry(leeway=LEEWAY_SECONDS, **options).validate(dict(claims))
    except ExpiredTokenError:
        raise TokenExpired("it has expired") from None
    except JoseError as error:
        raise TokenRefused(f"a claim is missing or wrong ({error.description or error.error})"[:200]) from None
    return claims


def _claims_of(claims: Mapping[str, Any], config: OidcConfig) -> Claims:
    subject = claims["sub"]
    if not isinstance(subject, str) or not 0 < len(subject) <= MAX_SUBJECT:
        raise TokenRefused(f"its subject is no text of up to {MAX_SUBJECT} characters")
    try:
        issued_at = datetime.fromtimestamp(claims["iat"], UTC)
    except (ValueError, OverflowError, OSError):
        raise TokenRefused("the time of its issue is no time") from None
    return Claims(config.issuer, subject, *_about(claims, config.groups_claim), issued_at)


def _about(claims: Mapping[str, Any], groups_claim: str) -> tuple[str | None, str | None, frozenset[str] | None]:
    """(name, email, groups) as far as they are told."""
    email = _text(claims.get("email"), MAX_EMAIL)
    if email is not None and claims.get("email_verified") in (False, "false"):
        email = ""  # whoever may write any address there would be taken for its owner
    names = (_text(claims.get(name), MAX_NAME) for name in ("name", "preferred_username", "nickname"))
    name = next((name for name in names if name), None)
    return name, None if email is None else email.lower(), groups_of(claims, groups_claim)


def completed(provider: Provider, claims: Claims, access_token: Any) -> Claims:
    """Return the claims, with what the token leaves out as the provider's userinfo endpoint tells it.

    Of a code flow the ID token need not tell more than the subject (OpenID Connect Core, 5.4). Asked only where something
    is missing. Raises TokenRefused for an answer about somebody else, ProviderUnavailable.
    """
    config = provider.config
    without_groups = claims.groups is None and not config.group_roles.is_empty
    complete = claims.name is not None and claims.email is not None and not without_groups
    if complete or not isinstance(access_token, str) or not access_token.isascii() or not access_token.isprintable():
        return claims
    found = provider.userinfo(access_token)
    if found is None:
        return claims
    if found.get("sub") != claims.subject:
        raise TokenRefused("the provider's userinfo is about somebody else")
    name, email, groups = _about(found, config.groups_claim)
    return replace(
        claims,
        name=claims.name if claims.name is not None else name,
        email=claims.email if claims.email is not None else email,
        groups=claims.groups if claims.groups is not None else groups,
    )


def _text(value: Any, length: int) -> str | None:
    return value.strip()[:length].replace("\x00", "") or None if isinstance(value, str) else None


def groups_of(claims: Mapping[str, Any], name: str) -> frozenset[str] | None:
    """Return the groups: the claim of that name, else that path of names with dots (`realm_access.roles`).

    None where there is no such claim. Raises TokenRefused for more than MAX_GROUPS: some of them would be as wrong as none.
    """
    found: Any = claims
    if name in claims:
        found = claims[name]
    else:
        for part in name.split("."):
            found = found.get(part) if isinstance(found, Mapping) else None
    if isinstance(found, str):
        found = [found]
    if not isinstance(found, list):
        return None
    if len(found) > MAX_GROUPS:
        hint = "let the provider tell only those that TRAINKIT_OIDC_ROLES names"
        raise TokenRefused(f"it names {len(found)} groups, and {MAX_GROUPS} are read; {hint}")
    return frozenset(one for one in found if isinstance(one, str))

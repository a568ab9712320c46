"""Settings of the sign-in, checked when the service starts."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from service.roles import OPERATOR, PROJECT_ROLES, ProjectRole
from service.settings import Settings
from service.users.service import GroupRoles

GROUPS_EXAMPLE = '{"ml-team": {"vision": "developer"}, "platform": "operator"}'


@dataclass(frozen=True, slots=True)
class OidcConfig:
    """One provider of OpenID Connect, and what its groups may do."""

    issuer: str
    client_id: str
    client_secret: str
    audience: str
    """What bearer tokens must be issued for."""
    scopes: str
    groups_claim: str
    group_roles: GroupRoles
    session_seconds: float

    @classmethod
    def of(cls, settings: Settings) -> OidcConfig | None:
        """Return the configuration; None where no issuer is set. Raises ValueError for what cannot work."""
        if not settings.oidc_issuer:
            return None
        if not settings.oidc_client_id:
            raise ValueError("TRAINKIT_OIDC_ISSUER is set and TRAINKIT_OIDC_CLIENT_ID is not; the sign-in needs both")
        if not is_safe_url(settings.oidc_issuer):
            raise ValueError(f"TRAINKIT_OIDC_ISSUER is {settings.oidc_issuer!r}; it has to begin with https://")
        return cls(
            issuer=settings.oidc_issuer,
            client_id=settings.oidc_client_id,
            client_secret=settings.oidc_client_secret or "",
            audience=settings.oidc_audience or settings.oidc_client_id,
            scopes=settings.oidc_scopes,
            groups_claim=settings.oidc_groups_claim,
            group_roles=parse_group_roles(settings.oidc_roles),
            session_seconds=settings.session_seconds,
        )


def is_safe_url(url: Any) -> bool:
    """Whether secrets and keys may travel to that address: over TLS, or to this machine itself."""
    if not isinstance(url, str):
        return False
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        return False
    if "@" in parts.netloc or parts.fragment or not host:
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(host))


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def parse_group_roles(text: str) -> GroupRoles:
    """Read the mapping of groups to roles. Raises ValueError with the place of what is wrong."""
    if not text.strip():
        return GroupRoles()
    try:
        document = json.loads(text)
    except ValueError as error:
        raise _bad_mapping(f"is not JSON: {error}") from None
    if not isinstance(document, dict):
        raise _bad_mapping("is no object")
    projects: dict[str, Mapping[str, ProjectRole]] = {}
    operators = set()
    for group, given in document.items():
        if given == OPERATOR:
            operators.add(group)
        elif isinstance(given, dict):
            if wrong := {project: role for project, role in given.items() if role not in PROJECT_ROLES}:
                raise _bad_mapping(f"gives {group!r} {wrong!r}; a role is one of {', '.join(PROJECT_ROLES)}")
            projects[group] = given
        else:
            raise _bad_mapping(f'gives {group!r} {given!r}; write "operator", or an object of projects and roles')
    return GroupRoles(projects, frozenset(operators))


def _bad_mapping(message: str) -> ValueError:
    return ValueError(f"TRAINKIT_OIDC_ROLES {message}. Example: {GROUPS_EXAMPLE}")

"""A provider that is played in the test: it answers from a dictionary, and its clock is a number."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from joserfc import jwk, jwt

from service.oidc.config import OidcConfig
from service.oidc.provider import Provider, ProviderRefused, ProviderUnavailable
from service.settings import Settings


class PlayedProvider(Provider):
    """Answers from a dictionary; counts what is asked. Its clock is a number."""

    def __init__(self, key: jwk.RSAKey | jwk.ECKey) -> None:
        settings = replace(Settings.from_env({}), oidc_issuer="https://login", oidc_client_id="trainkit")
        config = OidcConfig.of(settings)
        assert config is not None
        self.now, self.requests, self.away = 1000.0, [], False
        self.keys = [key]
        self.answer: Callable[..., Mapping[str, Any]] | None = None
        self.userinfo_claims: dict[str, Any] | None = None
        self.tokens: list[str] = []
        super().__init__(config, clock=lambda: self.now)

    requests: list[str]

    def _request(self, method: str, url: str, token: str | None = None, **options: Any) -> Mapping[str, Any]:
        self.requests.append(url)
        if self.answer is not None:
            return self.answer(method, url, **options)
        if self.away:
            raise ProviderUnavailable("it is away")
        if url.endswith("/jwks"):
            return {"keys": [{**key.as_dict(private=False), "kid": key.kid} for key in self.keys]}
        if url.endswith("/userinfo"):
            assert token is not None
            self.tokens.append(token)
            if not self.userinfo_claims:
                raise ProviderRefused("insufficient_scope")
            return self.userinfo_claims
        endpoints = {name: f"https://login/{name}" for name in ("authorization_endpoint", "token_endpoint")}
        return {"issuer": "https://login", "jwks_uri": "https://login/jwks", **endpoints, **self._more_endpoints()}

    def _more_endpoints(self) -> dict[str, str]:
        return {} if self.userinfo_claims is None else {"userinfo_endpoint": "https://login/userinfo"}

    def token(self, key: jwk.RSAKey | jwk.ECKey, algorithm: str = "RS256", **changes: Any) -> str:
        now = int(time.time())
        payload = {"iss": "https://login", "aud": "trainkit", "sub": "ada", "iat": now, "exp": now + 60, **changes}
        return jwt.encode({"alg": algorithm, "kid": key.kid}, payload, key, algorithms=[algorithm])


def new_key(key_id: str) -> jwk.RSAKey:
    return jwk.RSAKey.generate_key(2048, {"kid": key_id})

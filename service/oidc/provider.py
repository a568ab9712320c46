"""The sign-in provider over HTTP: its metadata, its signing keys, its token endpoint.

Only addresses that the configured issuer names are asked, over TLS or on this machine, without redirects, for
TOTAL_SECONDS and MAX_BYTES at most. Keys that were read once are kept while the provider is away.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import httpx

from service.oidc.config import OidcConfig, is_safe_url

if TYPE_CHECKING:
    from joserfc.jwk import ECKey, OKPKey, RSAKey

    SigningKey = RSAKey | ECKey | OKPKey

log = logging.getLogger(__name__)
CONNECT_SECONDS, TOTAL_SECONDS = 3.0, 5.0
MAX_BYTES = 512 * 1024
KEEP_SECONDS = 3600.0
"""How long metadata and keys are believed without asking again."""
RETRY_SECONDS = 30.0
"""How often at most the provider is asked because of an unknown key, or again after it did not answer."""
MAX_KEYS = 100


class ProviderUnavailable(Exception):  # noqa: N818 - the problem's name
    """The provider does not answer, or not as OpenID Connect says."""


class ProviderRefused(Exception):  # noqa: N818 - the problem's name
    """The provider refuses a code or a client; the text is its error code."""


@dataclass(frozen=True, slots=True)
class Metadata:
    """What the provider says about itself (OpenID Connect Discovery)."""

    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    token_auth_methods: tuple[str, ...]
    userinfo_endpoint: str | None = None
    end_session_endpoint: str | None = None


class Provider:
    """One provider, for all threads of the process.

    What was read once is used on while one thread reads it anew: a provider that is slow keeps nobody else waiting.
    """

    def __init__(self, config: OidcConfig, clock: Callable[[], float] = time.monotonic) -> None:
        self.config = config
        self._clock = clock
        self._lock = threading.Lock()
        self._metadata: tuple[float, Metadata] | None = None
        self._keys: dict[str | None, SigningKey] = {}
        self._keys_until = self._retry_at = float("-inf")
        self._failure = ""

    def metadata(self) -> Metadata:
        """Return the metadata. Raises ProviderUnavailable when it was never read."""
        known = self._metadata
        if known is not None and self._clock() < known[0]:
            return known[1]
        # who knows some does not wait for another thread that asks
        if not self._lock.acquire(blocking=known is None):
            assert known is not None
            return known[1]
        try:
            return self._read_metadata()
        finally:
            self._lock.release()

    def _read_metadata(self) -> Metadata:
        known = self._metadata
        if known is not None and self._clock() < known[0]:
            return known[1]
        try:
            metadata = _metadata_of(self._get(_discovery_url(self.config.issuer)), self.config.issuer)
        except ProviderUnavailable:
            if known is None:
                raise
            self._metadata = (self._clock() + RETRY_SECONDS, known[1])
            return known[1]
        self._metadata = (self._clock() + KEEP_SECONDS, metadata)
        return metadata

    def signing_key(self, key_id: str | None) -> SigningKey | None:
        """Return the key of that id; None when the provider has none. Without an id its only key.

        An unknown id makes the keys be read anew, but only once in RETRY_SECONDS: anybody can invent ids.
        Raises ProviderUnavailable when the provider did not answer and the key may exist.
        """
        now = self._clock()
        key = self._find(key_id)
        if key is not None and now < self._keys_until:
            return key
        if not self._lock.acquire(blocking=key is None):
            return key  # another thread asks already
        try:
            now = self._clock()
            due = self._find(key_id) is None or now >= self._keys_until
            if due and now >= self._retry_at:
                self._retry_at = now + RETRY_SECONDS
                self._read_keys()
            key, failure = self._find(key_id), self._failure
        finally:
            self._lock.release()
        if key is None and failure:
            raise ProviderUnavailable(failure)
        return key

    def knows_key(self, key_id: str | None) -> bool:
        """Whether there is a key of that id without asking the provider."""
        return self._find(key_id) is not None

    def _find(self, key_id: str | None) -> SigningKey | None:
        if key_id is None:
            return next(iter(self._keys.values())) if len(self._keys) == 1 else None
        return self._keys.get(key_id)

    def _read_keys(self) -> None:
        try:
            self._keys = _keys_of(self._get(self._read_metadata().jwks_uri))
        except ProviderUnavailable as error:
            self._failure = str(error)
            log.warning("the keys of the sign-in provider cannot be read: %s", error)
        else:
            self._failure, self._keys_until = "", self._clock() + KEEP_SECONDS

    def exchange(self, code: str, verifier: str, redirect_uri: str) -> Mapping[str, Any]:
        """Exchange an authorization code for tokens. Raises ProviderRefused, or ProviderUnavailable."""
        metadata, config = self.metadata(), self.config
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": redirect_uri,
            "code_verifier": verifier,
        }
        auth = None
        if not config.client_secret:
            form["client_id"] = config.client_id
        elif "client_secret_basic" in metadata.token_auth_methods:
            # RFC 6749, 2.3.1: each part is form-encoded first
            auth = httpx.BasicAuth(quote(config.client_id, safe=""), quote(config.client_secret, safe=""))
        else:
            form |= {"client_id": config.client_id, "client_secret": config.client_secret}
        return self._request("POST", metadata.token_endpoint, data=form, auth=auth)

    def userinfo(self, access_token: str) -> Mapping[str, Any] | None:
        """Return what the provider tells the token's owner about themselves (OpenID Connect Core, 5.3).

        None where it has no such endpoint, or none for this token. Raises ProviderUnavailable.
        """
        url = self.metadata().userinfo_endpoint
        if url is None:
            return None
        try:
            return self._request("GET", url, token=access_token)
        except ProviderRefused as error:
            log.warning("the provider's userinfo endpoint refuses a token: %s", error)
            return None

    def _get(self, url: str) -> Mapping[str, Any]:
        return self._request("GET", url)

    def _request(self, method: str, url: str, token: str | None = None, **options: Any) -> Mapping[str, Any]:
        """Return the JSON object that the provider answers with."""
        if not is_safe_url(url):
            raise ProviderUnavailable(f"{url[:200]} is no https:// address")
        deadline = time.monotonic() + TOTAL_SECONDS
        body = bytearray()
        timeout = httpx.Timeout(TOTAL_SECONDS, connect=CONNECT_SECONDS)
        headers = {"Accept": "application/json", **({} if token is None else {"Authorization": f"Bearer {token}"})}
        try:
            with (
                httpx.Client(timeout=timeout, follow_redirects=False) as client,
                client.stream(method, url, headers=headers, **options) as response,
            ):
                for part in response.iter_bytes(65536):
                    body += part
                    if len(body) > MAX_BYTES or time.monotonic() > deadline:
                        raise ProviderUnavailable(f"{url} answers with too much, or too slowly")
                status = response.status_code
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ProviderUnavailable(f"{url} does not answer: {type(error).__name__}") from None
        try:
            document = json.loads(body)
        except ValueError:
            document = None
        if 400 <= status < 500 and (method == "POST" or token is not None):
            error_code = document.get("error") if isinstance(document, dict) else None
            raise ProviderRefused(str(error_code or status)[:100])
        if status != 200 or not isinstance(document, dict):
            raise ProviderUnavailable(f"{url} answers with {status} and no JSON object")
        return document


def _discovery_url(issuer: str) -> str:
    return issuer.rstrip("/") + "/.well-known/openid-configuration"


def _metadata_of(document: Mapping[str, Any], issuer: str) -> Metadata:
    if document.get("issuer") != issuer:
        shown = str(document.get("issuer"))[:200]
        raise ProviderUnavailable(f"TRAINKIT_OIDC_ISSUER is {issuer!r}, but the provider calls itself {shown!r}")
    urls = [document.get(name) for name in ("authorization_endpoint", "token_endpoint", "jwks_uri")]
    if not all(is_safe_url(url) for url in urls):
        raise ProviderUnavailable(f"the metadata of {issuer} names an address that is not https://")
    authorization, token, jwks = map(str, urls)
    methods = document.get("token_endpoint_auth_methods_supported")
    known = tuple(map(str, methods)) if isinstance(methods, list) and methods else ("client_secret_basic",)
    userinfo, end_session = (
        str(url) if is_safe_url(url := document.get(name)) else None
        for name in ("userinfo_endpoint", "end_session_endpoint")
    )
    return Metadata(authorization, token, jwks, known, userinfo, end_session)


def _keys_of(document: Mapping[str, Any]) -> dict[str | None, SigningKey]:
    """Return the public signing keys by their id; what is another kind of key is left out."""
    # 9 MB of memory, for installations with a sign-in only
    from joserfc.errors import JoseError
    from joserfc.jwk import ECKey, JWKRegistry, OKPKey, RSAKey

    found = document.get("keys")
    if not isinstance(found, list):
        raise ProviderUnavailable("the provider's keys are no JWK set")
    keys: dict[str | None, SigningKey] = {}
    for item in found[:MAX_KEYS]:
        if not isinstance(item, dict) or item.get("use", "sig") != "sig":
            continue
        key_id = item.get("kid")
        try:
            key = JWKRegistry.import_key(item)
        except (JoseError, ValueError, TypeError, KeyError):
            continue
        if isinstance(key, RSAKey | ECKey | OKPKey) and (key_id is None or isinstance(key_id, str)):
            keys[key_id] = key
    if not keys:
        raise ProviderUnavailable("the provider has no key that signatures can be checked with")
    return keys

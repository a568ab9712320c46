"""Tokens of the sign-in provider as bearer tokens of the API, signed by the provider's process or by an attacker."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
import time
from dataclasses import replace
from typing import Any

import pytest
from fastapi.testclient import TestClient
from joserfc import jwk, jwt
from sqlalchemy import func, select

from service.oidc import provider as provider_module
from service.oidc.provider import RETRY_SECONDS, Provider, ProviderUnavailable
from service.oidc.tokens import TokenExpired, TokenRefused, completed, groups_of, verify
from service.users.service import GroupRoles, record
from service.users.tables import User
from tests.support.api import Served, assert_problem
from tests.support.oidc_provider import RunningProvider
from tests.support.played_provider import PlayedProvider, new_key
from tests.support.sign_in import claims

SQLITE = pytest.mark.parametrize("migrated_url", ["sqlite"], indirect=True)
MINUTE = 60
LOGOUT_EVENT = "http://schemas.openid.net/event/backchannel-logout"


def ask(service: Served, token: str, path: str = "/v1/me", **headers: str) -> Any:
    client = TestClient(service.app, headers={"Authorization": f"Bearer {token}", **headers})
    return client.get(path)


@SQLITE
def test_a_token_of_the_provider_opens_what_its_groups_give(service: Served, provider: RunningProvider) -> None:
    answer = ask(service, provider.sign(claims(provider)))
    assert answer.status_code == 200, answer.text
    me = answer.json()
    assert (me["user"]["name"], me["project"]["name"], me["role"]) == ("Ada", "vision", "developer")
    token = provider.sign(claims(provider, aud=["other", "trainkit-api"]), typ="at+jwt")
    assert ask(service, token, "/v1/jobs").status_code == 200
    assert_problem(ask(service, token, "/v1/members"), 403, "forbidden")
    created = TestClient(service.app, headers={"Authorization": f"Bearer {token}"}).put(
        "/v1/datasets?name=d", content=b"x"
    )
    assert created.status_code == 201, "no browser sends this header by itself: it needs no origin"
    with service.sessions() as session:
        assert session.scalar(select(func.count()).select_from(User)) == 1


@SQLITE
@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "https://evil.example"},
        {"iss": None},
        {"aud": "another-service"},
        {"aud": []},
        {"aud": None},
        {"sub": None},
        {"sub": ""},
        {"sub": "x" * 256},
        {"sub": 7},
        {"exp": None},
        {"iat": None},
        {"iat": "now"},
        {"iat": 1e300},
        {"nbf": time.time() + 3600},
        {"iat": time.time() + 3600},
    ],
)
def test_a_token_with_wrong_claims_is_refused(
    service: Served, provider: RunningProvider, changes: dict[str, Any]
) -> None:
    assert_problem(ask(service, provider.sign(claims(provider, **changes))), 401, "key_invalid")


@SQLITE
def test_a_token_whose_time_is_over_is_told_so(service: Served, provider: RunningProvider) -> None:
    now = int(time.time())
    assert ask(service, provider.sign(claims(provider, iat=now - 100, exp=now - 30))).status_code == 200, "leeway"
    assert_problem(ask(service, provider.sign(claims(provider, iat=now - 200, exp=now - 90))), 401, "key_expired")


def forged(provider: RunningProvider) -> dict[str, str]:
    """Tokens with the right claims that the provider has not signed."""
    public, right = provider.public_key(), claims(provider)
    key_id = public["kid"]
    header = {"kid": key_id}

    def encoded(value: Any) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    def confused(secret: bytes) -> str:
        """HS256 with what everybody knows as its secret; the library itself would not make such a key."""
        text = f"{encoded({'alg': 'HS256', **header})}.{encoded(right)}"
        digest = hmac.new(secret, text.encode(), hashlib.sha256).digest()
        return f"{text}.{base64.urlsafe_b64encode(digest).rstrip(b'=').decode()}"

    attacker_key = jwk.RSAKey.generate_key(2048)
    brought = attacker_key.as_dict(private=False)
    signed = provider.sign(right)
    head, body, signature = signed.split(".")
    return {
        "none": f"{encoded({'alg': 'none', **header})}.{encoded(right)}.",
        "None": f"{encoded({'alg': 'None', **header})}.{encoded(right)}.",
        "no algorithm": f"{encoded(header)}.{encoded(right)}.{signature}",
        "HS256 with the public key as JSON": confused(json.dumps(public).encode()),
        "HS256 with the public key as PEM": confused(jwk.RSAKey.import_key(public).as_pem()),
        "another key under the right id": jwt.encode({"alg": "RS256", **header}, right, attacker_key),
        "another key that it brings": jwt.encode({"alg": "RS256", "jwk": brought}, right, attacker_key),
        "another key by address": jwt.encode({"alg": "RS256", "jku": "http://127.0.0.1:9/jwks"}, right, attacker_key),
        "changed claims": f"{head}.{encoded({**right, 'groups': ['platform']})}.{signature}",
        "cut signature": signed[:-8],
        "no signature": f"{head}.{body}.",
        "a logout token": provider.sign(right, typ="logout+jwt"),
        "a logout token without its type": provider.sign({**right, "events": {LOGOUT_EVENT: {}}}),
        "an unknown critical header": provider.sign(right, crit=["x"], x=1),
        "a wrong key id": jwt.encode({"alg": "RS256", "kid": "nobody's"}, right, attacker_key),
        "a key id of another type": f"{encoded({'alg': 'RS256', 'kid': 7})}.{body}.{signature}",
        "claims that are no object": f"{head}.{encoded([1])}.{signature}",
        "not base64": "a.b.c",
        "deep": f"{head}.{base64.urlsafe_b64encode(b'[' * 9000).decode()}.{signature}",
    }


@SQLITE
def test_a_token_that_the_provider_has_not_signed_is_refused(service: Served, provider: RunningProvider) -> None:
    for name, token in forged(provider).items():
        answer = ask(service, token)
        assert (answer.status_code, answer.json()["code"]) == (401, "key_invalid"), f"{name}: {answer.text}"
        assert "invalid_token" in answer.headers["www-authenticate"]


@SQLITE
def test_a_new_signing_key_is_found_and_the_old_one_forgotten(
    service: Served, provider: RunningProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = provider.sign(claims(provider))
    assert ask(service, old).status_code == 200
    provider.rotate_key()
    service.app.state.oidc_provider._retry_at = 0.0  # as after half a minute
    assert ask(service, provider.sign(claims(provider))).status_code == 200
    assert_problem(ask(service, old), 401, "key_invalid")


@SQLITE
def test_groups_count_by_the_newest_token(service: Served, provider: RunningProvider) -> None:
    now = int(time.time())
    first = provider.sign(claims(provider, iat=now - 20, groups=["leads"]))
    second = provider.sign(claims(provider, iat=now - 10, groups=[]))
    assert ask(service, first, **{"Trainkit-Project": "speech"}).json()["role"] == "viewer"
    assert ask(service, second).json()["projects"] == []
    assert ask(service, first).json()["projects"] == [], "an older token takes nothing back"
    third = provider.sign(claims(provider, iat=now, groups="ml-team"))
    assert [one["role"] for one in ask(service, third).json()["projects"]] == ["developer"]


@SQLITE
def test_a_disabled_user_s_token_opens_nothing(service: Served, provider: RunningProvider) -> None:
    token = provider.sign(claims(provider))
    user = ask(service, token).json()["user"]["id"]
    service.client.patch(f"/v1/users/{user}", json={"disabled": True})
    assert_problem(ask(service, token), 403, "user_disabled")


@pytest.mark.postgresql
def test_a_person_who_comes_twice_at_once_for_the_first_time_is_one(service: Served, provider: RunningProvider) -> None:
    config = service.app.state.oidc_provider.config
    person = verify(Provider(config), provider.sign(claims(provider)), "trainkit-api")
    found: list[str] = []
    barrier = threading.Barrier(6)

    def come() -> None:
        barrier.wait()
        found.append(record(service.sessions, person, config.group_roles).id)

    threads = [threading.Thread(target=come) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(found), len(set(found))) == (6, 1)


# the provider's keys, with a provider that is played


def test_keys_are_asked_once_an_hour_and_unknown_ones_twice_a_minute_at_most() -> None:
    key, stranger = new_key("one"), new_key("two")
    played = PlayedProvider(key)
    for _ in range(3):
        assert verify(played, played.token(key), "trainkit").subject == "ada"
    assert len(played.requests) == 2, "the metadata and the keys"
    for _ in range(5):
        with pytest.raises(TokenRefused, match="does not have"):
            verify(played, played.token(stranger), "trainkit")
    assert len(played.requests) == 2, "asked just now: whoever invents ids waits"
    played.now += RETRY_SECONDS
    played.keys = [stranger]
    assert verify(played, played.token(stranger), "trainkit").subject == "ada"
    assert len(played.requests) == 3
    played.now += 3600
    verify(played, played.token(stranger), "trainkit")
    assert len(played.requests) == 5


def test_known_keys_outlive_the_provider() -> None:
    key, other = new_key("one"), new_key("two")
    played = PlayedProvider(key)
    played.away = True
    with pytest.raises(ProviderUnavailable):
        verify(played, played.token(key), "trainkit")
    with pytest.raises(ProviderUnavailable):
        verify(played, played.token(key), "trainkit")
    assert len(played.requests) == 1, "one that is away is not asked by everybody"
    played.away = False
    played.now += RETRY_SECONDS
    assert verify(played, played.token(key), "trainkit").subject == "ada"
    played.away = True
    played.now += 7200
    assert verify(played, played.token(key), "trainkit").subject == "ada"
    with pytest.raises(ProviderUnavailable):
        verify(played, played.token(other), "trainkit")


def test_signatures_of_curves_are_checked_too_and_an_algorithm_of_another_kind_of_key_is_not() -> None:
    key = jwk.ECKey.generate_key("P-256", {"kid": "ec"})
    played = PlayedProvider(key)
    assert verify(played, played.token(key, "ES256"), "trainkit").subject == "ada"
    rsa = new_key("ec")
    with pytest.raises(TokenRefused, match="signature"):
        verify(played, played.token(rsa, "RS256"), "trainkit")
    with pytest.raises(TokenExpired):
        verify(played, played.token(key, "ES256", exp=1), "trainkit")


def test_an_id_token_is_for_this_client_and_this_sign_in() -> None:
    key = new_key("one")
    played = PlayedProvider(key)
    verify(played, played.token(key, nonce="n", aud=["trainkit", "x"], azp="trainkit"), "trainkit", nonce="n")
    for changes in ({}, {"nonce": "m"}, {"nonce": "n", "azp": "x"}, {"nonce": "n", "aud": ["trainkit", "x"]}):
        with pytest.raises(TokenRefused, match="claim"):
            verify(played, played.token(key, **changes), "trainkit", nonce="n")


def test_only_addresses_over_tls_are_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_request(*arguments: Any, **options: Any) -> Any:
        raise AssertionError("nothing may be sent")

    monkeypatch.setattr(provider_module.httpx, "Client", no_request)
    provider = Provider(PlayedProvider(new_key("one")).config)
    for url in ("http://login/jwks", "file:///etc/passwd", "https://a@b/", "ftp://login", "", "https://", "https://[/"):
        with pytest.raises(ProviderUnavailable):
            provider._request("GET", url)


@pytest.mark.parametrize(
    ("payload", "name", "groups"),
    [
        ({"groups": ["a", "b", 7]}, "groups", {"a", "b"}),
        ({"groups": "a"}, "groups", {"a"}),
        ({"realm_access": {"roles": ["a"]}}, "realm_access.roles", {"a"}),
        ({"https://example.org/groups": ["a"]}, "https://example.org/groups", {"a"}),
        ({"groups": {"a": 1}}, "groups", None),
        ({"realm_access": "x"}, "realm_access.roles", None),
        ({}, "groups", None),
        ({"groups": []}, "groups", set()),
    ],
)
def test_groups_are_found_by_name_or_by_path(payload: dict[str, Any], name: str, groups: set[str] | None) -> None:
    assert groups_of(payload, name) == groups


def test_more_groups_than_are_read_are_refused() -> None:
    with pytest.raises(TokenRefused, match="1001 groups"):
        groups_of({"groups": ["a"] * 1001}, "groups")


def test_an_address_that_is_not_verified_is_not_kept() -> None:
    key = new_key("one")
    played = PlayedProvider(key)
    for verified, email in ((True, "ada@example.org"), (None, "ada@example.org"), (False, ""), ("false", "")):
        extra = {} if verified is None else {"email_verified": verified}
        payload = verify(played, played.token(key, email="Ada@example.org", **extra), "trainkit")
        assert payload.email == email
    assert GroupRoles().of(["x"]) == {}


def test_clocks_may_differ_by_a_minute_and_no_more() -> None:
    key, now = new_key("one"), int(time.time())
    played = PlayedProvider(key)
    for off in (-50, 50):
        times = {"iat": now + off, "nbf": now + off, "exp": now + off + (0 if off < 0 else 60)}
        assert verify(played, played.token(key, **times), "trainkit").subject == "ada", off
    for changes in ({"iat": now + 90}, {"nbf": now + 90}):
        with pytest.raises(TokenRefused, match="claim"):
            verify(played, played.token(key, **changes), "trainkit")
    with pytest.raises(TokenExpired):
        verify(played, played.token(key, exp=now - 90), "trainkit")


def test_a_provider_that_hangs_keeps_nobody_waiting_who_has_a_known_key() -> None:
    """One thread asks and hangs; what was read before goes on to be used, as old as it is."""
    key = new_key("one")
    played = PlayedProvider(key)
    verify(played, played.token(key), "trainkit")
    played.now += 7200
    requested, go_on = threading.Event(), threading.Event()

    def hang(method: str, url: str, **options: Any) -> Any:
        requested.set()
        assert go_on.wait(60)
        raise ProviderUnavailable("it hung")

    played.answer = hang
    waiting = threading.Thread(target=verify, args=(played, played.token(key), "trainkit"))
    waiting.start()
    try:
        assert requested.wait(60)
        assert verify(played, played.token(key), "trainkit").subject == "ada"
        assert played.metadata().jwks_uri == "https://login/jwks"
        assert waiting.is_alive()
    finally:
        go_on.set()
        waiting.join()
    assert verify(played, played.token(key), "trainkit").subject == "ada"


def test_what_a_token_leaves_out_is_asked_of_userinfo() -> None:
    key = new_key("one")
    played = PlayedProvider(key)
    config = replace(played.config, group_roles=GroupRoles({"leads": {"vision": "admin"}}))
    played.config = config
    bare = verify(played, played.token(key), "trainkit")
    assert (bare.name, bare.email, bare.groups) == (None, None, None)
    assert completed(played, bare, "access") is bare, "the provider has no such endpoint"
    played.userinfo_claims = {"sub": "ada", "name": "Ada", "email": "A@example.org", "groups": ["leads"]}
    played.now += 3600
    found = completed(played, bare, "access")
    assert (found.name, found.email, found.groups) == ("Ada", "a@example.org", {"leads"})
    assert played.tokens == ["access"]
    whole = verify(played, played.token(key, name="A", email="b@example.org", groups=[]), "trainkit")
    assert completed(played, whole, "access") is whole, "nothing is missing: nobody is asked"
    assert completed(played, replace(bare, name="A"), "access").name == "A", "the token comes first"
    assert completed(played, replace(bare, groups=frozenset()), "access").groups == frozenset()
    for token in (None, 7, "a\r\nX-Evil: 1", "\u00e9"):
        assert completed(played, bare, token) is bare
    played.userinfo_claims["sub"] = "bob"
    with pytest.raises(TokenRefused, match="somebody else"):
        completed(played, bare, "access")
    played.userinfo_claims = {}
    assert completed(played, bare, "access") is bare, "it refuses the token"
    played.away = True
    with pytest.raises(ProviderUnavailable):
        completed(played, bare, "access")


@SQLITE
def test_a_token_for_apis_keeps_the_name_and_the_address_of_before(service: Served, provider: RunningProvider) -> None:
    now = int(time.time())
    ask(service, provider.sign(claims(provider, sub="kim", name="Kim", email="kim@example.org", iat=now - 20)))
    user = ask(service, provider.sign(claims(provider, sub="kim", name=None, iat=now - 10))).json()["user"]
    assert (user["name"], user["email"]) == ("Kim", "kim@example.org")
    unverified = claims(provider, sub="kim", email="bob@example.org", email_verified=False, iat=now)
    assert ask(service, provider.sign(unverified)).json()["user"]["email"] is None

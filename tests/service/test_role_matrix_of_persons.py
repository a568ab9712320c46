"""Who may do what, for persons: every operation with the cookie of a browser and with a token of the provider."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator

import pytest
from fastapi.testclient import TestClient
from joserfc import jwk
from sqlalchemy import select, update

from service.database import db_now
from service.oidc.provider import Provider
from service.roles import ROLES
from service.settings import Settings
from service.users.tables import BrowserSession, User
from tests.support import persons as played
from tests.support.api import Served
from tests.support.persons import GROUPS, Persons, cookie, with_sign_in
from tests.support.role_matrix import (
    CLOSED,
    check_that_nothing_is_found,
    expected_roles,
    filled,
    may,
    refused_query,
    things,
)
from tests.support.tus_requests import VERSION

pytestmark = pytest.mark.parametrize("migrated_url", ["sqlite"], indirect=True)
Headers = dict[str, str]
SAFE = {"get", "head", "options"}
SIGN_OUT = "/v1/auth/logout"
KINDS = pytest.mark.parametrize("kind", ["session", "token"])


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return with_sign_in(settings, json.dumps(played.ROLES))


@pytest.fixture
def persons(service: Served, monkeypatch: pytest.MonkeyPatch) -> Persons:
    found = Persons(service)
    monkeypatch.setattr(Provider, "_request", lambda _, *arguments, **options: found.request(*arguments, **options))
    return found


def credential(persons: Persons, kind: str) -> Callable[..., Headers]:
    return persons.session if kind == "session" else persons.token


def bad_sessions(persons: Persons) -> Iterator[tuple[str, Headers, int]]:
    """Cookies that open nothing, and the status."""
    yield "no session", {"Cookie": "theme=dark"}, 401
    yield "empty", cookie(""), 401
    yield "malformed", cookie("%00\\x00"), 401
    yield "unknown", cookie("A" * 43), 401
    gone = persons.session("gone", "admins")
    assert persons.client(gone).post(SIGN_OUT).status_code == 204
    yield "signed out", gone, 401
    over, disabled = persons.session("over", "admins"), persons.session("disabled", "admins")
    with persons.service.sessions.begin() as session:
        of_over = BrowserSession.user_id == select(User.id).where(User.subject == "over").scalar_subquery()
        session.execute(update(BrowserSession).where(of_over).values(expires_at=db_now(plus=-1)))
        session.execute(update(User).where(User.subject == "disabled").values(disabled_at=db_now()))
    yield "expired", over, 401
    yield "of a disabled user", disabled, 403


def bad_tokens(persons: Persons) -> Iterator[tuple[str, Headers, int]]:
    """Tokens that open nothing, and the status."""
    now = int(time.time())
    yield "not signed", {"Authorization": "Bearer a.b.c"}, 401
    yield "another's key", persons.token("eve", "admins", key=jwk.RSAKey.generate_key(2048)), 401
    yield "expired", persons.token("eve", "admins", iat=now - 900, exp=now - 300), 401
    yield "for another service", persons.token("eve", "admins", aud="another"), 401
    yield "of another provider", persons.token("eve", "admins", iss="https://evil.example"), 401
    token = persons.token("disabled", "admins")
    assert persons.client(token).get("/v1/me").json()["role"] == "admin"
    with persons.service.sessions.begin() as session:
        session.execute(update(User).where(User.subject == "disabled").values(disabled_at=db_now()))
    yield "of a disabled user", token, 403


@KINDS
def test_no_operation_answers_to_who_is_not_known(persons: Persons, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.auth.KEEP_SECONDS", 0.0)
    bad = list(bad_sessions(persons) if kind == "session" else bad_tokens(persons))
    bare, requests = TestClient(persons.service.app, raise_server_exceptions=False), 0
    for name, headers, status in bad:
        for path, method, _ in CLOSED:
            requests += 1
            answer = bare.request(method, filled(path), headers=headers)
            assert answer.status_code == status, f"{name}: {method} {path}: {answer.status_code} {answer.text}"
            if status == 403 and method != "head":
                assert answer.json()["code"] == "user_disabled", f"{name}: {method} {path}"
    assert requests >= 6 * 80


@KINDS
def test_each_role_opens_its_operations_and_no_others(persons: Persons, kind: str) -> None:
    persons.service.client_for("another")
    for role in ROLES:
        client = persons.client(credential(persons, kind)(role, GROUPS[role]))
        for path, method, _ in CLOSED:
            if path == SIGN_OUT:
                continue
            # whoever has signed in may have keys of their own
            allowed = path.startswith("/v1/keys") or may(role, expected_roles(method, path))
            answer = client.request(method, filled(path), headers=VERSION, params=refused_query(path))
            assert (answer.status_code != 403) == allowed, f"{role}: {method} {path}: {answer.status_code}"
            assert answer.status_code != 401
        assert client.post(SIGN_OUT).status_code == 204, role


@KINDS
def test_another_project_s_things_are_not_found_by_any_operation(persons: Persons, kind: str) -> None:
    ids = things(persons.service)
    persons.service.client_for("another")
    stranger = persons.client(credential(persons, kind)("eve", "strangers"))
    assert stranger.get("/v1/me").json()["project"]["name"] == "another"
    check_that_nothing_is_found(persons.service, stranger, ids)
    for name in ("default", ids["project_id"]):
        for path, method, _ in CLOSED:
            answer = stranger.request(method, filled(path, ids), headers={**VERSION, "Trainkit-Project": name})
            assert answer.status_code == 404, f"{method} {path}: {answer.status_code} {answer.text}"


def test_another_site_s_page_writes_nothing_with_a_browser_s_session(persons: Persons) -> None:
    client = persons.client({**persons.session("ada", "admins"), "Sec-Fetch-Site": "cross-site"})
    refused = 0
    for path, method, _ in CLOSED:
        answer = client.request(method, filled(path), headers=VERSION, params=refused_query(path))
        cross = answer.status_code == 403 and method != "head" and answer.json()["code"] == "cross_origin_refused"
        assert cross == (method not in SAFE), f"{method} {path}: {answer.text}"
        refused += method not in SAFE
    assert refused >= 40

"""Without a provider nothing changes, and wrong settings stop the start."""

from __future__ import annotations

from dataclasses import replace

import pytest
from fastapi.testclient import TestClient

from service.oidc.config import OidcConfig, parse_group_roles
from service.settings import Settings
from service.sign_in_cookies import SESSION_COOKIE
from tests.support.api import Served, assert_problem

SET = replace(Settings.from_env({}), oidc_issuer="https://login.example.org", oidc_client_id="trainkit")


@pytest.fixture
def settings(migrated_url: str, tmp_path: object) -> Settings:
    return replace(Settings.from_env({"TRAINKIT_HOME": str(tmp_path)}), database_url=migrated_url)


@pytest.mark.parametrize("migrated_url", ["sqlite"], indirect=True)
def test_without_a_provider_there_is_no_sign_in(service: Served) -> None:
    client = TestClient(service.app, base_url="https://trainkit.example", follow_redirects=False)
    for path in ("/v1/auth/login", "/v1/auth/callback?code=a&state=b"):
        assert_problem(client.get(path), 404, "sign_in_off")
    client.cookies.set(SESSION_COOKIE, "x")
    assert_problem(client.get("/v1/me"), 401, "key_missing")
    assert_problem(client.get("/v1/me", headers={"Authorization": "Bearer a.b.c"}), 401, "key_malformed")
    assert service.client.post("/v1/auth/logout").status_code == 204, "a key has nothing to end"
    me = service.client.get("/v1/me").json()
    assert (me["user"], me["role"], me["operator"], me["project"]["name"]) == (None, "admin", True, "vision")
    assert me["key"]["name"] == "test"


def test_the_mapping_of_groups_gives_the_highest_role() -> None:
    roles = parse_group_roles(
        '{"a": {"vision": "viewer"}, "b": {"vision": "admin", "speech": "viewer"}, "c": "operator"}'
    )
    assert roles.of(["a", "b", "x"]) == {"vision": "admin", "speech": "viewer"}
    assert roles.of(["c"]) == {}
    assert roles.operators == {"c"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"oidc_client_id": None}, "TRAINKIT_OIDC_CLIENT_ID"),
        ({"oidc_issuer": "http://login.example.org"}, "https://"),
        ({"oidc_issuer": "https://user:password@login.example.org"}, "https://"),
        ({"oidc_roles": "{"}, "is not JSON"),
        ({"oidc_roles": "[]"}, "is no object"),
        ({"oidc_roles": '{"a": "admin"}'}, 'write "operator"'),
        ({"oidc_roles": '{"a": {"vision": "operator"}}'}, "viewer, developer, admin"),
    ],
)
def test_wrong_settings_are_told_at_the_start(changes: dict[str, str | None], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        OidcConfig.of(replace(SET, **changes))  # type: ignore[arg-type]


def test_a_provider_on_this_machine_needs_no_tls() -> None:
    for issuer in ("http://127.0.0.1:8080/realm", "http://localhost:8080", "http://[::1]:8080"):
        assert OidcConfig.of(replace(SET, oidc_issuer=issuer)) is not None
    assert OidcConfig.of(replace(SET, oidc_issuer=None)) is None

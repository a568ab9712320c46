"""API keys over HTTP: who may create which, when they end, how they are exchanged."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import update

from service.app import create_app
from service.database import db_now
from service.keys.service import create_key
from service.keys.tables import ApiKey
from service.settings import Settings
from tests.support.api import Served, assert_problem

pytestmark = pytest.mark.parametrize("migrated_url", ["sqlite"], indirect=True)


@pytest.fixture(autouse=True)
def no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask the database at every request."""
    monkeypatch.setattr("service.auth.KEEP_SECONDS", 0.0)


def create(client: TestClient, **body: Any) -> dict[str, Any]:
    answer = client.post("/v1/keys", json={"name": "ci", "role": "viewer", **body})
    assert answer.status_code == 201, answer.text
    assert answer.headers["location"] == f"/v1/keys/{answer.json()['id']}"
    key: dict[str, Any] = answer.json()
    return key


def client_of(service: Served, key: str) -> TestClient:
    return TestClient(service.app, headers={"Authorization": f"Bearer {key}"})


def test_a_key_is_created_shown_once_used_and_revoked(service: Served) -> None:
    key = create(service.client, description="nightly runs")
    secret = key.pop("key")
    assert (key["role"], key["operator"], key["description"]) == ("viewer", False, "nightly runs")
    assert (key["expires_at"], key["revoked_at"], key["last_used_at"]) == (None, None, None)
    assert service.client.get(f"/v1/keys/{key['id']}").json() == key
    client = client_of(service, secret)
    assert client.get("/v1/jobs").status_code == 200
    shown = service.client.get(f"/v1/keys/{key['id']}").json()
    assert shown["last_used_at"] is not None
    assert shown["last_used_from"] == "testclient"
    assert shown in service.client.get("/v1/keys").json()["data"]
    assert secret not in service.client.get("/v1/keys").text
    assert service.client_for("another", "admin").delete(f"/v1/keys/{key['id']}").status_code == 404
    assert service.client.delete(f"/v1/keys/{key['id']}").status_code == 204
    assert client.get("/v1/jobs").status_code == 401


def test_a_key_ends_when_it_should(service: Served) -> None:
    ahead = datetime.now(UTC) + timedelta(hours=1)
    assert create(service.client, expires_at=ahead.isoformat())["expires_at"][:19] == ahead.isoformat()[:19]
    key = create(service.client, expires_in=60)
    client = client_of(service, key["key"])
    assert client.get("/v1/jobs").status_code == 200
    with service.sessions.begin() as session:
        session.execute(update(ApiKey).where(ApiKey.id == key["id"]).values(expires_at=db_now(plus=-1)))
    assert client.get("/v1/jobs").status_code == 401


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"expires_at": "2020-01-01T00:00:00Z"}, "/expires_at"),
        ({"expires_at": "2031-01-01T00:00:00"}, "/expires_at"),
        ({"expires_at": "2031-01-01T00:00:00Z", "expires_in": 5}, ""),
        ({"expires_in": 0}, "/expires_in"),
        ({"expires_in": True}, "/expires_in"),
        ({"role": "operator"}, "/role"),
        ({"scopes": ["read"]}, "/scopes"),
        ({"name": ""}, "/name"),
    ],
)
def test_wrong_keys_are_refused_with_the_place(service: Served, body: dict[str, Any], pointer: str) -> None:
    answer = service.client.post("/v1/keys", json={"name": "ci", "role": "viewer", **body})
    document = assert_problem(answer, 422, "invalid_request")
    assert [error["pointer"] for error in document["errors"]] == [pointer], answer.text


def test_a_rotated_key_works_until_the_overlap_is_over(service: Served) -> None:
    old = create(service.client, role="developer", description="ci", expires_in=86400)
    answer = service.client.post(f"/v1/keys/{old['id']}:rotate", json={"overlap_seconds": 3600})
    new = answer.json()
    assert answer.status_code == 201, answer.text
    assert answer.headers["location"] == f"/v1/keys/{new['id']}"
    assert [new[name] for name in ("name", "role", "description")] == ["ci", "developer", "ci"]
    left = datetime.fromisoformat(new["expires_at"]) - datetime.now(UTC)
    assert timedelta(hours=23) < left <= timedelta(days=1), "as long as the old one was meant to live"
    left = datetime.fromisoformat(service.client.get(f"/v1/keys/{old['id']}").json()["expires_at"]) - datetime.now(UTC)
    assert timedelta(minutes=59) < left <= timedelta(hours=1)
    for key in (old, new):
        assert client_of(service, key["key"]).get("/v1/jobs").status_code == 200
    again = service.client.post(f"/v1/keys/{new['id']}:rotate", json={"overlap_seconds": 0})
    assert again.status_code == 201
    assert client_of(service, new["key"]).get("/v1/jobs").status_code == 401
    assert_problem(service.client.post(f"/v1/keys/{new['id']}:rotate"), 409, "key_ended")


def test_rotation_never_makes_a_key_live_longer(service: Served) -> None:
    old = create(service.client, expires_in=60)
    assert service.client.post(f"/v1/keys/{old['id']}:rotate", json={"overlap_seconds": 3600}).status_code == 201
    assert service.client.get(f"/v1/keys/{old['id']}").json()["expires_at"] == old["expires_at"]


def test_nobody_gives_more_than_he_has(service: Served) -> None:
    """A project's admin gets hold of no operator's key: not by creating one, and not by rotating one of his project."""
    admin = service.client_for("default", "admin")
    mixed = service.key("default", "admin", "operator").split("_")[1]
    assert_problem(admin.post(f"/v1/keys/{mixed}:rotate"), 403, "forbidden")
    pure = service.key("default", "operator").split("_")[1]
    for ask in (admin.get, admin.delete):
        assert_problem(ask(f"/v1/keys/{pure}"), 404, "not_found")
    assert service.client.post(f"/v1/keys/{mixed}:rotate").json()["operator"] is True
    developer = service.client_for("default", "developer")
    assert_problem(developer.post("/v1/keys", json={"name": "x", "role": "viewer"}), 403, "forbidden")


def test_the_operator_without_a_project_manages_the_keys_of_operators(service: Served) -> None:
    operator, other = service.client_for("default", "operator"), service.key("default", "operator").split("_")[1]
    listed = operator.get("/v1/keys").json()["data"]
    assert {(key["role"], key["operator"]) for key in listed} == {(None, True)}
    assert other in [key["id"] for key in listed]
    assert_problem(operator.post("/v1/keys", json={"name": "x", "role": "viewer"}), 422, "no_project")
    assert operator.delete(f"/v1/keys/{other}").status_code == 204


def test_no_key_is_older_than_the_installation_allows(service: Served, settings: Settings) -> None:
    app = create_app(Settings(**{**{n: getattr(settings, n) for n in settings.__slots__}, "max_key_days": 30}))
    with TestClient(app) as client, service.sessions.begin() as session:
        key = create_key(session, "default", "old")
        session.commit()
        client.headers["Authorization"] = f"Bearer {key}"
        created = client.post("/v1/keys", json={"name": "a", "role": "viewer"}).json()
        lifetime = datetime.fromisoformat(created["expires_at"]) - datetime.fromisoformat(created["created_at"])
        assert lifetime == timedelta(days=30)
        late = client.post("/v1/keys", json={"name": "a", "role": "viewer", "expires_in": 31 * 86400})
        assert_problem(late, 422, "invalid_request")
        assert late.json()["errors"][0]["pointer"] == "/expires_in"
        with service.sessions.begin() as other:
            aged = db_now(plus=-31 * 86400)
            other.execute(update(ApiKey).where(ApiKey.id == key.split("_")[1]).values(created_at=aged))
        assert client.get("/v1/jobs").status_code == 401
    app.state.context.engine.dispose()

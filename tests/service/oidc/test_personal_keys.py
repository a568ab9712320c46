"""Personal keys: people who have signed in manage their own; admins see and revoke all, and act in nobody's name."""

from __future__ import annotations

import time
from typing import Any

import pytest
from fastapi.testclient import TestClient

from tests.support.api import Served, assert_problem
from tests.support.oidc_provider import RunningProvider
from tests.support.sign_in import SAME_ORIGIN, claims, sign_in, sign_in_later

pytestmark = pytest.mark.parametrize("migrated_url", ["sqlite"], indirect=True)
NEW = {"name": "laptop", "role": "viewer"}


def signed_in(service: Served, provider: RunningProvider, subject: str, *groups: str, project: str = "") -> TestClient:
    provider.set_user(subject, name=subject.title(), groups=list(groups))
    client = sign_in(service, provider, subject)
    client.headers.update(SAME_ORIGIN)
    if project:
        client.headers["Trainkit-Project"] = project
    return client


def created(client: TestClient, **changes: Any) -> dict[str, Any]:
    answer = client.post("/v1/keys", json={**NEW, **changes})
    assert answer.status_code == 201, answer.text
    key: dict[str, Any] = answer.json()
    return key


def with_key(service: Served, key: str) -> TestClient:
    return TestClient(service.app, headers={"Authorization": f"Bearer {key}"})


def test_a_developer_makes_lists_rotates_and_revokes_keys(service: Served, provider: RunningProvider) -> None:
    ada, bob = signed_in(service, provider, "ada", "ml-team"), signed_in(service, provider, "bob", "ml-team")
    me = ada.get("/v1/me").json()
    key, other = created(ada, role="developer"), created(bob)
    assert (key["user"], key["role"], key["operator"]) == (me["user"]["id"], "developer", False)
    client = with_key(service, key["key"])
    shown = client.get("/v1/me").json()
    assert (shown["user"]["id"], shown["project"]["id"], shown["role"]) == (
        *(me["user"]["id"], me["project"]["id"], "developer"),
    )
    assert [one["id"] for one in ada.get("/v1/keys").json()["data"]] == [key["id"]]
    assert ada.get(f"/v1/keys?user={other['user']}").json()["data"] == []
    for method, path in (("GET", ""), ("DELETE", ""), ("POST", ":rotate")):
        assert_problem(ada.request(method, f"/v1/keys/{other['id']}{path}"), 404, "not_found")
    new = ada.post(f"/v1/keys/{key['id']}:rotate", json={"overlap_seconds": 0}).json()
    assert (new["user"], new["role"]) == (key["user"], "developer")
    assert client.get("/v1/jobs").status_code == 401
    assert with_key(service, new["key"]).get("/v1/jobs").status_code == 200
    assert ada.delete(f"/v1/keys/{new['id']}").status_code == 204
    assert with_key(service, new["key"]).get("/v1/jobs").status_code == 401
    assert with_key(service, other["key"]).get("/v1/jobs").status_code == 200


def test_a_token_of_the_provider_is_enough_and_a_key_is_not(service: Served, provider: RunningProvider) -> None:
    token = provider.sign(claims(provider, sub="ivy"))
    ivy = with_key(service, token)
    key = created(ivy, role="developer")
    client = with_key(service, key["key"])
    for answer in (
        client.get("/v1/keys"),
        client.post("/v1/keys", json=NEW),
        client.post(f"/v1/keys/{key['id']}:rotate"),
        client.delete(f"/v1/keys/{key['id']}"),
    ):
        assert "signed in" in assert_problem(answer, 403, "forbidden")["detail"]
    assert ivy.get(f"/v1/keys/{key['id']}").json()["revoked_at"] is None


def test_nobody_gets_more_than_they_have(service: Served, provider: RunningProvider) -> None:
    ada = signed_in(service, provider, "ada", "ml-team")
    assert_problem(ada.post("/v1/keys", json={**NEW, "role": "admin"}), 403, "forbidden")
    account = service.client.post("/v1/service-accounts", json={"name": "ci", "role": "admin"}).json()["id"]
    bob = signed_in(service, provider, "bob", "ml-team").get("/v1/me").json()["user"]["id"]
    for user in (account, bob, "usr_none"):
        document = assert_problem(ada.post("/v1/keys", json={**NEW, "user": user}), 422, "invalid_request")
        assert [error["pointer"] for error in document["errors"]] == ["/user"]
    assert created(ada, user=ada.get("/v1/me").json()["user"]["id"])["role"] == "viewer"
    for name, status in (("speech", 404), ("vision", 201)):
        assert ada.post("/v1/keys", json=NEW, headers={"Trainkit-Project": name}).status_code == status
    nobody = signed_in(service, provider, "zoe")
    assert_problem(nobody.post("/v1/keys", json=NEW), 403, "forbidden")
    assert_problem(nobody.get("/v1/keys"), 403, "forbidden")


def test_admins_see_and_revoke_all_and_rotate_no_other_person_s(service: Served, provider: RunningProvider) -> None:
    """Rotating shows the new secret: an admin would act in the other's name."""
    ada = signed_in(service, provider, "ada", "ml-team")
    key = created(ada)
    lead = signed_in(service, provider, "lea", "leads", project="vision")
    assert key["id"] in [one["id"] for one in lead.get("/v1/keys").json()["data"]]
    assert [one["id"] for one in lead.get(f"/v1/keys?user={key['user']}").json()["data"]] == [key["id"]]
    for admin in (lead, service.client):
        document = assert_problem(admin.post(f"/v1/keys/{key['id']}:rotate"), 403, "forbidden")
        assert "Ada" in document["detail"]
    assert with_key(service, key["key"]).get("/v1/jobs").status_code == 200
    assert lead.delete(f"/v1/keys/{key['id']}").status_code == 204
    assert_problem(with_key(service, key["key"]).get("/v1/jobs"), 401, "key_invalid")
    account = service.client.post("/v1/service-accounts", json={"name": "ci", "role": "viewer"}).json()["id"]
    machine = created(lead, user=account)
    assert lead.post(f"/v1/keys/{machine['id']}:rotate").status_code == 201


def test_who_is_gone_has_no_keys(service: Served, provider: RunningProvider) -> None:
    ada = signed_in(service, provider, "ada", "ml-team")
    client = with_key(service, created(ada, role="developer")["key"])
    user = ada.get("/v1/me").json()["user"]["id"]
    operator = service.client_for("vision", "operator")
    for disabled, status in ((True, 401), (False, 200)):
        assert operator.patch(f"/v1/users/{user}", json={"disabled": disabled}).status_code == 200
        assert client.get("/v1/jobs").status_code == status
    provider.set_user("ada", name="Ada", groups=[])
    sign_in_later(service, provider, "ada")
    assert_problem(client.get("/v1/jobs"), 401, "key_invalid")
    assert service.client.post("/v1/members", json={"user": user, "role": "viewer"}).status_code == 201
    assert client.get("/v1/me").json()["role"] == "viewer", "never more than the person"


def test_who_was_in_a_group_loses_the_keys_with_the_next_token(service: Served, provider: RunningProvider) -> None:
    now = int(time.time())
    client = with_key(service, provider.sign(claims(provider, sub="joe", iat=now - 20)))
    key = with_key(service, created(client)["key"])
    assert key.get("/v1/jobs").status_code == 200
    with_key(service, provider.sign(claims(provider, sub="joe", iat=now - 10, groups=[]))).get("/v1/me")
    assert_problem(key.get("/v1/jobs"), 401, "key_invalid")


def test_a_person_has_so_many_keys_and_no_more(
    service: Served, provider: RunningProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Requests a minute are limited by key: without a limit of keys they would bound nobody."""
    monkeypatch.setattr("service.keys.service.MAX_PERSONAL_KEYS", 2)
    ada, bob = signed_in(service, provider, "ned", "ml-team"), signed_in(service, provider, "ora", "ml-team")
    first, _ = created(ada), created(ada)
    refused = assert_problem(ada.post("/v1/keys", json=NEW), 409, "too_many_keys")
    assert refused["quota"] == {"name": "personal_keys", "limit": 2, "used": 2}
    assert "may have 2" in refused["detail"]
    created(bob)
    assert ada.delete(f"/v1/keys/{first['id']}").status_code == 204
    created(ada)

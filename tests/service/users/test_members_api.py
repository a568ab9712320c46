"""Members and service accounts of a project, and the keys that belong to them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select

from service.roles import ProjectRole
from service.users.service import Claims, GroupRoles, record
from service.users.tables import Membership, User
from tests.support.api import Served, assert_problem

SQLITE = pytest.mark.parametrize("migrated_url", ["sqlite"], indirect=True)
NOBODY = GroupRoles()


@pytest.fixture(autouse=True)
def no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask the database at every request."""
    monkeypatch.setattr("service.auth.KEEP_SECONDS", 0.0)


def person(service: Served, subject: str, *groups: str, roles: GroupRoles = NOBODY, second: int = 0) -> User:
    """Somebody who has signed in."""
    issued = datetime(2026, 1, 1, 0, 0, second, tzinfo=UTC)
    claims = Claims("https://login", subject, subject.title(), f"{subject}@example.org", frozenset(groups), issued)
    return record(service.sessions, claims, roles)


def account(client: TestClient, role: ProjectRole = "developer", name: str = "ci") -> dict[str, Any]:
    answer = client.post("/v1/service-accounts", json={"name": name, "role": role})
    assert answer.status_code == 201, answer.text
    assert client.get(answer.headers["location"]).json() == answer.json()
    created: dict[str, Any] = answer.json()
    return created


def key_of(service: Served, client: TestClient, user: str, role: ProjectRole = "developer") -> TestClient:
    answer = client.post("/v1/keys", json={"name": "ci", "role": role, "user": user})
    assert answer.status_code == 201, answer.text
    assert answer.json()["user"] == user
    return TestClient(service.app, headers={"Authorization": f"Bearer {answer.json()['key']}"})


def test_a_service_account_bounds_its_keys(service: Served) -> None:
    admin = service.client_for("default", "admin")
    ci = account(admin)
    assert (ci["kind"], ci["role"], ci["given_role"], ci["group_role"]) == ("service", "developer", "developer", None)
    client = key_of(service, admin, ci["id"])
    me = client.get("/v1/me").json()
    assert (me["user"]["name"], me["role"], me["key"]["name"]) == ("ci", "developer", "ci")
    assert client.put("/v1/datasets?name=d", content=b"x").status_code == 201
    answer = admin.post("/v1/keys", json={"name": "x", "role": "admin", "user": ci["id"]})
    assert assert_problem(answer, 422, "invalid_request")["errors"][0]["pointer"] == "/role"
    assert admin.patch(f"/v1/members/{ci['id']}", json={"role": "viewer"}).json()["role"] == "viewer"
    assert_problem(client.put("/v1/datasets?name=d", content=b"x"), 403, "forbidden")
    assert client.get("/v1/jobs").status_code == 200
    admin.patch(f"/v1/members/{ci['id']}", json={"role": "admin"})
    assert client.get("/v1/me").json()["role"] == "developer", "a key never may more than it was created with"
    assert admin.delete(f"/v1/members/{ci['id']}").status_code == 204
    assert_problem(client.get("/v1/jobs"), 401, "key_invalid")
    assert_problem(admin.get(f"/v1/members/{ci['id']}"), 404, "not_found")


def test_disabling_a_user_ends_the_keys(service: Served) -> None:
    admin, operator = service.client_for("default", "admin"), service.client_for("default", "operator")
    ci = account(admin)
    client = key_of(service, admin, ci["id"])
    assert client.get("/v1/jobs").status_code == 200
    assert_problem(admin.patch(f"/v1/users/{ci['id']}", json={"disabled": True}), 403, "forbidden")
    assert operator.patch(f"/v1/users/{ci['id']}", json={"disabled": True}).status_code == 200
    assert_problem(client.get("/v1/jobs"), 401, "key_invalid")
    assert operator.patch(f"/v1/users/{ci['id']}", json={"disabled": False}).status_code == 200
    assert client.get("/v1/jobs").status_code == 200
    assert_problem(operator.patch("/v1/users/usr_none", json={"disabled": True}), 404, "not_found")
    assert [one["name"] for one in operator.get("/v1/users").json()["data"]] == ["ci"]


@SQLITE
def test_a_key_is_created_for_a_service_account_of_the_project_only(service: Served) -> None:
    admin, other = service.client_for("default", "admin"), service.client_for("other", "admin")
    ada = person(service, "ada")
    assert admin.post("/v1/members", json={"user": ada.id, "role": "developer"}).status_code == 201
    for user in (account(other)["id"], ada.id, "usr_none"):
        answer = admin.post("/v1/keys", json={"name": "x", "role": "viewer", "user": user})
        assert assert_problem(answer, 422, "invalid_request")["errors"][0]["pointer"] == "/user"


@SQLITE
def test_a_key_that_a_user_s_key_creates_is_the_user_s(service: Served) -> None:
    """Else it would outlive the account that created it."""
    admin = service.client_for("default", "admin")
    ci = account(admin, "admin")
    client = key_of(service, admin, ci["id"], "admin")
    created = client.post("/v1/keys", json={"name": "second", "role": "viewer"}).json()
    assert created["user"] == ci["id"]
    rotated = admin.post(f"/v1/keys/{created['id']}:rotate").json()
    assert rotated["user"] == ci["id"]


def test_persons_are_added_changed_and_removed(service: Served) -> None:
    admin = service.client_for("default", "admin")
    ada, bob = person(service, "ada"), person(service, "bob")
    added = admin.post("/v1/members", json={"email": "Ada@Example.org", "role": "developer"})
    assert (added.status_code, added.json()["id"], added.json()["name"]) == (201, ada.id, "Ada")
    assert_problem(admin.post("/v1/members", json={"user": ada.id, "role": "viewer"}), 409, "already_member")
    assert admin.post("/v1/members", json={"user": bob.id, "role": "viewer"}).status_code == 201
    assert [one["name"] for one in admin.get("/v1/members").json()["data"]] == ["Ada", "Bob"]
    assert_problem(admin.post("/v1/members", json={"email": "eve@example.org", "role": "viewer"}), 404, "not_found")
    assert service.client_for("other", "admin").get("/v1/members").json()["data"] == []
    assert admin.delete(f"/v1/members/{bob.id}").status_code == 204
    assert_problem(admin.delete(f"/v1/members/{bob.id}"), 404, "not_found")
    with service.sessions() as session:
        assert session.scalars(select(Membership.user_id)).all() == [ada.id]


@SQLITE
@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"role": "viewer"}, ""),
        ({"role": "viewer", "user": "u", "email": "a@b"}, ""),
        ({"user": "u", "role": "operator"}, "/role"),
        ({"user": "u"}, "/role"),
    ],
)
def test_wrong_members_are_refused_with_the_place(service: Served, body: dict[str, Any], pointer: str) -> None:
    document = assert_problem(service.client.post("/v1/members", json=body), 422, "invalid_request")
    assert [error["pointer"] for error in document["errors"]] == [pointer]


def test_the_last_admin_stays_unless_the_operator_goes_on(service: Served) -> None:
    first = service.client_for("default", "admin")
    ada, ci = person(service, "ada"), account(first, "admin")
    admin = key_of(service, first, ci["id"], "admin")
    admin.post("/v1/members", json={"user": ada.id, "role": "viewer"})
    for refused in (
        admin.delete(f"/v1/members/{ci['id']}"),
        admin.patch(f"/v1/members/{ci['id']}", json={"role": "developer"}),
    ):
        assert "Make another member an admin first" in assert_problem(refused, 409, "last_admin")["detail"]
    assert admin.patch(f"/v1/members/{ada.id}", json={"role": "admin"}).status_code == 200
    assert admin.patch(f"/v1/members/{ci['id']}", json={"role": "viewer"}).status_code == 200
    operator = service.client_for("default", "operator")
    chosen = {"Trainkit-Project": "default"}
    assert operator.delete(f"/v1/members/{ada.id}", headers=chosen).status_code == 204
    assert_problem(operator.get("/v1/members"), 422, "no_project")
    assert_problem(operator.get("/v1/jobs", headers=chosen), 403, "forbidden")


def test_the_operator_gives_a_new_project_its_first_key(service: Served) -> None:
    operator = service.client_for("default", "operator")
    operator.post("/v1/projects", json={"name": "vision"})
    chosen = {"Trainkit-Project": "vision"}
    ci = operator.post("/v1/service-accounts", json={"name": "ci", "role": "admin"}, headers=chosen).json()
    key = operator.post("/v1/keys", json={"name": "ci", "role": "admin", "user": ci["id"]}, headers=chosen)
    assert key.status_code == 201, key.text
    client = TestClient(service.app, headers={"Authorization": f"Bearer {key.json()['key']}"})
    assert client.get("/v1/me").json()["project"]["name"] == "vision"
    assert_problem(operator.get("/v1/keys", headers={"Trainkit-Project": "nowhere"}), 404, "not_found")
    assert_problem(client.get("/v1/jobs", headers={"Trainkit-Project": "default"}), 404, "not_found")


def test_a_role_by_a_group_is_the_provider_s_to_take(service: Served) -> None:
    admin = service.client_for("default", "admin")
    roles = GroupRoles({"team": {"default": "developer"}})
    ada = person(service, "ada", "team", roles=roles)
    (shown,) = admin.get("/v1/members").json()["data"]
    assert (shown["role"], shown["given_role"], shown["group_role"]) == ("developer", None, "developer")
    assert_problem(admin.delete(f"/v1/members/{ada.id}"), 409, "role_by_group")
    changed = admin.patch(f"/v1/members/{ada.id}", json={"role": "viewer"}).json()
    assert (changed["role"], changed["given_role"]) == ("developer", "viewer"), "the higher one holds"
    changed = admin.patch(f"/v1/members/{ada.id}", json={"role": "admin"}).json()
    assert changed["role"] == "admin"
    person(service, "ada", roles=roles, second=1)
    assert admin.get(f"/v1/members/{ada.id}").json()["group_role"] is None
    person(service, "ada", "team", roles=roles, second=0)
    assert admin.get(f"/v1/members/{ada.id}").json()["group_role"] is None, "an older token changes nothing"


@SQLITE
def test_an_address_that_two_persons_have_names_nobody(service: Served) -> None:
    issued = datetime(2026, 1, 1, tzinfo=UTC)
    for subject in ("one", "two"):
        record(service.sessions, Claims("https://login", subject, "A", "a@example.org", frozenset(), issued), NOBODY)
    answer = service.client.post("/v1/members", json={"email": "a@example.org", "role": "viewer"})
    assert_problem(answer, 409, "ambiguous_email")

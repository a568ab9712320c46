"""Who may do what: every operation of the OpenAPI document with every kind of key. A new route is tested by itself."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import update

from service.database import db_now
from service.keys.tables import ApiKey
from service.roles import ROLES
from tests.support.api import Served
from tests.support.role_matrix import (
    CLOSED,
    OPEN,
    OPERATIONS,
    check_that_nothing_is_found,
    expected_roles,
    filled,
    may,
    refused_query,
    things,
)
from tests.support.tus_requests import VERSION

WITHOUT_A_KEY = {
    "none": {},
    "no scheme": {"Authorization": "tk_abcdefgh_x"},
    "another scheme": {"Authorization": "Basic dXNlcjpwYXNz"},
    "empty": {"Authorization": "Bearer "},
    "malformed": {"Authorization": "Bearer tk_"},
    "unknown": {"Authorization": f"Bearer tk_{'0' * 8}_{'0' * 40}"},
    "SQL": {"Authorization": "Bearer tk_%_' OR 1=1 --"},
    "long": {"Authorization": "Bearer " + "x" * 4000},
    "in the query": {},
}

pytestmark = pytest.mark.parametrize("migrated_url", ["sqlite"], indirect=True)


def bad_keys(service: Served) -> Iterator[tuple[str, dict[str, str]]]:
    """Headers of keys that were good once, and of those that never were."""
    yield from WITHOUT_A_KEY.items()
    for name, change in {"revoked": {"revoked_at": db_now()}, "expired": {"expires_at": db_now(plus=-1)}}.items():
        key = service.key("default", "admin")
        with service.sessions.begin() as session:
            session.execute(update(ApiKey).where(ApiKey.id == key.split("_")[1]).values(**change))
        yield name, {"Authorization": f"Bearer {key}"}


def test_the_document_names_the_roles_of_every_operation(service: Served) -> None:
    assert {path for path, _, operation in OPERATIONS if not operation.get("security")} == OPEN
    for path, method, operation in CLOSED:
        roles = operation.get("x-required-roles", [])
        assert sorted(roles) == sorted(expected_roles(method, path)), f"{method} {path}"


def test_no_operation_answers_without_a_valid_key(service: Served) -> None:
    bare, requests = TestClient(service.app, raise_server_exceptions=False), 0
    for name, headers in list(bad_keys(service)):
        key_in_query = {"key": service.key("default")} if name == "in the query" else {}
        for path, method, _ in CLOSED:
            requests += 1
            answer = bare.request(method, filled(path), headers=headers, params=key_in_query)
            assert answer.status_code == 401, f"{name}: {method} {path}: {answer.status_code}"
            assert answer.headers["www-authenticate"].startswith("Bearer")
    assert requests >= 11 * 80


def test_each_role_opens_its_operations_and_no_others(service: Served) -> None:
    for role in ROLES:
        client = service.client_for("default", role)
        for path, method, _ in CLOSED:
            allowed = may(role, expected_roles(method, path))
            answer = client.request(method, filled(path), headers=VERSION, params=refused_query(path))
            assert (answer.status_code != 403) == allowed, f"{role}: {method} {path}: {answer.status_code}"
            assert answer.status_code != 401


def test_an_archived_project_is_read_and_not_written(service: Served) -> None:
    operator = service.client
    project = operator.post("/v1/projects", json={"name": "old"}).json()
    client = service.client_for("old", "admin")
    assert operator.patch(f"/v1/projects/{project['id']}", json={"archived": True}).status_code == 200
    for path, method, _ in CLOSED:
        answer = client.request(method, filled(path), headers=VERSION, params=refused_query(path))
        refused = expected_roles(method, path) == {"developer"}
        archived = answer.status_code == 409 and (method == "head" or answer.json()["code"] == "project_archived")
        assert archived == refused, f"{method} {path}: {answer.text}"


def test_another_project_s_things_are_not_found_by_any_operation(service: Served) -> None:
    ids = things(service)
    check_that_nothing_is_found(service, service.client_for("another", "admin"), ids)

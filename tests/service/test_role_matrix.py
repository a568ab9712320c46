"""Who may do what: every operation of the OpenAPI document with every kind of key. A new route is tested by itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import update

from service.app import create_app
from service.database import db_now
from service.keys.tables import ApiKey
from service.openapi import operations
from service.roles import PROJECT_ROLES, ROLES, Role
from service.settings import Settings
from tests.support.api import Served
from tests.support.tus_requests import VERSION, begun

OPERATIONS = list(operations(create_app(Settings.from_env({})).openapi()))
CLOSED = [(path, method, operation) for path, method, operation in OPERATIONS if operation.get("security")]
OPEN = {"/healthz", "/readyz", "/v1/auth/login", "/v1/auth/callback"}
ANYBODY: frozenset[str] = frozenset()
"""Whoever has a key, with whatever role."""
MANAGER, OPERATOR = frozenset({"admin", "operator"}), frozenset({"operator"})
EXCEPTIONS: dict[tuple[str, str], frozenset[str]] = {
    ("get", "/metrics"): OPERATOR,
    ("get", "/v1/audit"): MANAGER,
    ("get", "/v1/audit/export"): MANAGER,
    ("get", "/v1/keys"): MANAGER,
    ("post", "/v1/keys"): MANAGER,
    ("get", "/v1/keys/{key_id}"): MANAGER,
    ("delete", "/v1/keys/{key_id}"): MANAGER,
    ("post", "/v1/keys/{key_id}:rotate"): MANAGER,
    ("get", "/v1/info"): ANYBODY,
    ("get", "/v1/projects"): ANYBODY,
    ("post", "/v1/projects"): OPERATOR,
    ("get", "/v1/projects/{project_id}"): ANYBODY,
    ("get", "/v1/projects/{project_id}/usage"): ANYBODY,
    ("patch", "/v1/projects/{project_id}"): MANAGER,
    ("get", "/v1/me"): ANYBODY,
    ("post", "/v1/auth/logout"): ANYBODY,
    ("get", "/v1/members"): MANAGER,
    ("post", "/v1/members"): MANAGER,
    ("get", "/v1/members/{user_id}"): MANAGER,
    ("patch", "/v1/members/{user_id}"): MANAGER,
    ("delete", "/v1/members/{user_id}"): MANAGER,
    ("post", "/v1/service-accounts"): MANAGER,
    ("get", "/v1/users"): OPERATOR,
    ("patch", "/v1/users/{user_id}"): OPERATOR,
}
"""Which role opens what is neither a read (viewer) nor a write (developer): one of those named."""
READS_BY_POST = (
    ":validate",
    ":init-report",
    ":simulate",
    "/predict",
    "/evaluate",
    "/augmentation-preview.png",
    "/stream-tickets",
)
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
BODIES: dict[str, Any] = {
    "augmentation-preview.png": {"augment": [{"kind": "noise", "std": 0.1}]},
    "predict": {"inputs": [1]},
    "evaluate": {"inputs": [1]},
    ":reread": {},
    "decisions:simulate": {},
    "{project_id}": {"settings": {}},
    "{webhook_id}": {"active": True},
    "{model}": {"notes": "x"},
    "{job_id}": {"notes": "x"},
    "{user_id}": {"role": "viewer"},
}
HEADERS: dict[str, dict[str, str]] = {
    "patch /v1/uploads/{upload_id}": {"Upload-Offset": "0", "Content-Type": "application/offset+octet-stream"},
    "post /v1/uploads/{upload_id}": {
        "X-HTTP-Method-Override": "PATCH",
        "Upload-Offset": "0",
        "Content-Type": "application/offset+octet-stream",
    },
}

pytestmark = pytest.mark.parametrize("migrated_url", ["sqlite"], indirect=True)


def expected_roles(method: str, path: str) -> frozenset[str]:
    if (method, path) in EXCEPTIONS:
        return EXCEPTIONS[method, path]
    reads = (method == "get" or path.endswith(READS_BY_POST)) and method != "delete"
    return frozenset({"viewer" if reads else "developer"})


def refused_query(path: str) -> dict[str, str]:
    """A query that the stream refuses, after the role: one that is open would not end by itself."""
    return {"state": "nonsense"} if path == "/v1/jobs/stream" else {}


def filled(path: str, ids: dict[str, str] | None = None) -> str:
    for name, value in {
        "plot": "curves",
        "name": "log.txt",
        "index": "0",
        "alias": "production",
        **(ids or {}),
    }.items():
        path = path.replace(f"{{{name}}}", value)
    return path.replace("{", "x").replace("}", "")


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


def may(role: Role, needed: frozenset[str]) -> bool:
    """Each role of a project includes the ones before it; the operator's is apart."""
    if role == "operator" or needed <= {"operator"}:
        return not needed or role in needed
    return any(one in needed for one in PROJECT_ROLES[: PROJECT_ROLES.index(role) + 1])


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
    job = service.submit()
    claimed = service.claim()
    model = service.finish(claimed)
    assert model is not None
    dataset, client = service.job(job)["dataset"]["id"], service.client
    webhook = client.post("/v1/webhooks", json={"url": "http://127.0.0.1:9/"}).json()["id"]
    plan = {"kind": "kfold", "folds": 2, "spec": {"dataset": dataset, "model": "mlp"}}
    ids = {
        "job_id": job,
        "model": model,
        "dataset": dataset,
        "upload_id": begun(client, 1000).rsplit("/", 1)[1],
        "webhook_id": webhook,
        "delivery_id": client.post(f"/v1/webhooks/{webhook}/test").json()["id"],
        "experiment_id": client.post("/v1/experiments", json=plan).json()["id"],
        "project_id": client.get("/v1/projects").json()["data"][0]["id"],  # its only one so far
        "key_id": client.get("/v1/keys").json()["data"][0]["id"],
        "user_id": client.post("/v1/service-accounts", json={"name": "ci", "role": "viewer"}).json()["id"],
    }
    before = {path: client.get(path).text for path in lists()}
    stranger, requests = service.client_for("another", "admin"), 0
    for path, method, operation in CLOSED:
        names = {parameter["name"] for parameter in operation.get("parameters", ()) if parameter["in"] == "path"}
        if not names & set(ids) or expected_roles(method, path) == OPERATOR:
            continue
        requests += 1
        headers = {**VERSION, **HEADERS.get(f"{method} {path}", {})}
        body = next((body for end, body in BODIES.items() if path.endswith(end) and method in ("post", "patch")), None)
        query = {"with": "x"} if path.endswith("/comparison") else {}
        sent: dict[str, Any] = {"content": b"abc"} if "Content-Type" in headers else {"json": body}
        answer = stranger.request(method, filled(path, ids), headers=headers, params=query, **sent)
        assert answer.status_code == 404, f"{method} {path}: {answer.status_code} {answer.text}"
    assert requests >= 45
    for path, text in before.items():
        assert client.get(path).text == text, path
        shown = stranger.get(path).text
        assert not [name for name, value in ids.items() if name != "key_id" and value in shown], path


def lists() -> list[str]:
    """Addresses of what a key with every role may list."""
    return [
        path
        for path, method, operation in CLOSED
        if method == "get"
        and not any(parameter.get("required") for parameter in operation.get("parameters", ()))
        and path.count("/") == 2
        and path not in ("/v1/catalog", "/v1/keys", "/v1/projects", "/v1/audit")
    ]

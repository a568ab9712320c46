"""Every operation of the OpenAPI document, the roles that open it, and a request of it on something of a project."""

from __future__ import annotations

from typing import Any

from fastapi.testclient import TestClient

from service.openapi import operations
from service.roles import PROJECT_ROLES, Role
from tests.support.api import Served
from tests.support.openapi_document import openapi_document
from tests.support.tus_requests import VERSION, begun

OPERATIONS = list(operations(openapi_document()))
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
BODIES: dict[str, Any] = {
    "augmentation-preview.png": {"augment": [{"kind": "noise", "std": 0.1}]},
    "predict": {"inputs": [1]},
    "evaluate": {"inputs": [1]},
    ":reread": {},
    "/notes": {"text": "a thought"},
    "decisions:simulate": {},
    "{project_id}": {"settings": {}},
    "{webhook_id}": {"active": True},
    "{mirror_id}": {"active": True},
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


def expected_roles(method: str, path: str) -> frozenset[str]:
    if (method, path) in EXCEPTIONS:
        return EXCEPTIONS[method, path]
    reads = (method == "get" or path.endswith(READS_BY_POST)) and method != "delete"
    return frozenset({"viewer" if reads else "developer"})


REQUIRED_QUERIES = {"comparison": {"with": "x"}, "drift": {"against": "x"}}
"""End of an address -> what its query must have."""


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


def may(role: Role, needed: frozenset[str]) -> bool:
    """Each role of a project includes the ones before it; the operator's is apart."""
    if role == "operator" or needed <= {"operator"}:
        return not needed or role in needed
    return any(one in needed for one in PROJECT_ROLES[: PROJECT_ROLES.index(role) + 1])


def things(service: Served) -> dict[str, str]:
    """One of everything in the project of the service's client: parameter of a path -> id."""
    job = service.submit()
    claimed = service.claim()
    model = service.finish(claimed)
    assert model is not None
    dataset, client = service.job(job)["dataset"]["id"], service.client
    webhook = client.post("/v1/webhooks", json={"url": "http://127.0.0.1:9/"}).json()["id"]
    mirror = client.post("/v1/mirrors", json={"kind": "mlflow", "url": "http://127.0.0.1:9"}).json()["id"]
    client.post(f"/v1/mirrors/{mirror}/backfill").raise_for_status()
    plan = {"kind": "kfold", "folds": 2, "spec": {"dataset": dataset, "model": "mlp"}}
    experiment = client.post("/v1/experiments", json=plan).json()["id"]
    return {
        "job_id": job,
        "model": model,
        "dataset": dataset,
        "upload_id": begun(client, 1000).rsplit("/", 1)[1],
        "webhook_id": webhook,
        "mirror_id": mirror,
        "delivery_id": client.post(f"/v1/webhooks/{webhook}/test").json()["id"],
        "experiment_id": experiment,
        "group": experiment,
        "project_id": client.get("/v1/me").json()["project"]["id"],
        "key_id": client.get("/v1/keys").json()["data"][0]["id"],
        "user_id": client.post("/v1/service-accounts", json={"name": "ci", "role": "viewer"}).json()["id"],
    }


def check_that_nothing_is_found(service: Served, stranger: TestClient, ids: dict[str, str]) -> None:
    """Send every operation on things of another project, with valid bodies: each answer is 404, and nothing changes."""
    before, requests = {path: service.client.get(path).text for path in lists()}, 0
    for path, method, operation in CLOSED:
        names = {parameter["name"] for parameter in operation.get("parameters", ()) if parameter["in"] == "path"}
        if not names & set(ids) or expected_roles(method, path) == OPERATOR:
            continue
        requests += 1
        headers = {**VERSION, **HEADERS.get(f"{method} {path}", {})}
        body = next((body for end, body in BODIES.items() if path.endswith(end) and method in ("post", "patch")), None)
        query = REQUIRED_QUERIES.get(path.rsplit("/", 1)[-1], {})
        sent: dict[str, Any] = {"content": b"abc"} if "Content-Type" in headers else {"json": body}
        answer = stranger.request(method, filled(path, ids), headers=headers, params=query, **sent)
        assert answer.status_code == 404, f"{method} {path}: {answer.status_code} {answer.text}"
    assert requests >= 45
    for path, text in before.items():
        assert service.client.get(path).text == text, path
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

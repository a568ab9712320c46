"""Deny by default: no address answers without a key, no key reaches beyond its role and its project."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute, iter_route_contexts
from fastapi.testclient import TestClient
from sqlalchemy import select, update
from starlette.types import Message, Receive, Scope, Send

from service import auth
from service.app import create_app
from service.auth import Authentication, Credential, Needs, is_open
from service.database import db_now
from service.keys.service import ExpiredKeyError, authenticate, create_key
from service.keys.tables import ApiKey
from service.principal import Identity
from service.settings import Settings
from tests.support.api import Served

SQLITE = pytest.mark.parametrize("migrated_url", ["sqlite"], indirect=True)


def operations() -> Iterator[tuple[str, str, Dependant]]:
    """(method, path, dependencies) of every route there is."""
    for context in iter_route_contexts(create_app(Settings.from_env({})).routes):
        route = context.original_route
        if isinstance(route, APIRoute):
            for method in sorted(route.methods or ()):
                yield method, context.path, route.dependant


OPERATIONS = list(operations())
CLOSED = [(method, path) for method, path, _ in OPERATIONS if not is_open(path)]


def required(dependant: Dependant) -> set[str | None]:
    found = {dependant.call.role} if isinstance(dependant.call, Needs) else set()
    return found.union(*(required(inner) for inner in dependant.dependencies))


def filled(path: str) -> str:
    return path.replace("{plot}", "curves").replace("{name}", "log.txt").replace("{", "x").replace("}", "")


def test_every_route_declares_its_role() -> None:
    assert len(OPERATIONS) > 35
    for method, path, dependant in OPERATIONS:
        declared = required(dependant)
        if is_open(path):
            assert declared == set(), path
        else:
            assert len(declared) == 1, f"{method} {path} declares {declared or 'no role'}"
        if method in ("PUT", "DELETE"):
            assert declared <= {"developer", "admin", "operator"}, f"{method} {path}"


@SQLITE
def test_nothing_answers_without_a_key(service: Served) -> None:
    bare = TestClient(service.app)
    others = [
        "/openapi.json",
        "/redoc",
        "/nowhere",
        "/v1",
        "/v1/../healthz/x",
        "/ui/../v1/jobs",
        "/metrics",
    ]
    for method, path in [*CLOSED, *(("GET", path) for path in others), ("OPTIONS", "/v1/jobs"), ("HEAD", "/v1/jobs")]:
        for headers in ({}, {"Authorization": "Basic dXNlcjpwYXNz"}, {"Authorization": "Bearer"}):
            answer = bare.request(method, filled(path), headers=headers)
            assert answer.status_code == 401, f"{method} {path}: {answer.status_code}"
            assert answer.headers["www-authenticate"].startswith("Bearer")
            assert answer.headers["content-type"] == "application/problem+json"


@SQLITE
def test_health_is_open(service: Served) -> None:
    bare = TestClient(service.app)
    assert bare.get("/healthz").json() == {"status": "ok"}
    assert bare.get("/readyz").status_code == 200


@SQLITE
def test_documentation_is_there_with_a_key(service: Served) -> None:
    for path in ("/docs", "/openapi.json"):
        assert service.client.get(path).status_code == 200


def test_another_project_s_things_are_not_there(service: Served) -> None:
    job = service.submit()
    claimed = service.claim()
    model = service.finish(claimed)
    dataset = service.job(job)["dataset"]["id"]
    stranger = service.client_for("another", "admin")
    places = {"job_id": job, "model_id": model, "dataset_id": dataset}
    bodies: dict[str, Any] = {
        "augmentation-preview.png": {"augment": [{"kind": "noise", "std": 0.1}]},
        "predict": {"inputs": [1]},
        "evaluate": {"inputs": [1]},
        ":reread": {},
        "decisions:simulate": {},
    }
    requests = 0
    for method, path in CLOSED:
        if not any(f"{{{name}}}" in path for name in places):
            continue
        requests += 1
        for name, identifier in places.items():
            path = path.replace(f"{{{name}}}", identifier)
        body = next((body for end, body in bodies.items() if path.endswith(end)), None)
        answer = stranger.request(method, filled(path), json={"name": "x"} if method == "PATCH" else body)
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found"), f"{method} {path}: {answer.text}"
    assert requests >= 25
    for path in ("/v1/jobs", "/v1/datasets", "/v1/models"):
        assert stranger.get(path).json()["data"] == []
    assert service.job(job)["state"] == "succeeded"


def test_a_job_on_another_project_s_dataset_is_refused_as_if_it_were_not_there(service: Served) -> None:
    other_dataset = service.ready_dataset()
    stranger = service.client_for("another")
    for dataset in (other_dataset, "ds_nonsense"):
        answer = stranger.post("/v1/jobs", json={"dataset": dataset, "model": {"kind": "mlp"}})
        assert (answer.status_code, answer.json()["errors"][0]["code"]) == (422, "unknown_dataset")


def test_only_the_hash_of_a_key_is_stored(service: Served) -> None:
    key = service.key("default")
    kind, identifier, secret = key.split("_")
    with service.sessions() as session:
        row = session.get_one(ApiKey, identifier)
        assert row.secret_hash == hashlib.sha256(secret.encode()).hexdigest()
    assert (kind, len(identifier), len(secret)) == ("tk", 8, 40)


def test_wrong_revoked_and_expired_keys_are_refused(service: Served) -> None:
    key = service.key("default")
    identifier = key.split("_")[1]
    with service.sessions() as session:
        assert authenticate(session, key) is not None
        for wrong in (key[:-1], key[:-1] + ("a" if key[-1] != "a" else "b"), "tk_", "", f"tk_{'0' * 8}_{'0' * 40}"):
            assert authenticate(session, wrong) is None
    for change in ({"expires_at": db_now(plus=-1)}, {"revoked_at": db_now()}):
        with service.sessions.begin() as session:
            session.execute(update(ApiKey).where(ApiKey.id == identifier).values(expires_at=None, revoked_at=None))
        with service.sessions() as session:
            assert authenticate(session, key) is not None
        with service.sessions.begin() as session:
            session.execute(update(ApiKey).where(ApiKey.id == identifier).values(**change))
        with service.sessions() as session:
            if "expires_at" in change:
                with pytest.raises(ExpiredKeyError):
                    authenticate(session, key)
                assert authenticate(session, f"{key[:-1]}{'a' if key[-1] != 'a' else 'b'}") is None
            else:
                assert authenticate(session, key) is None


def test_a_database_that_is_away_is_no_wrong_key(service: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    from sqlalchemy.exc import OperationalError

    def away(self: Authentication, key: str, address: str | None) -> None:
        raise OperationalError("SELECT", {}, Exception("gone"))

    monkeypatch.setattr(Authentication, "_ask", away)
    answer = service.client.get("/v1/jobs")
    assert (answer.status_code, answer.json()["code"], answer.headers["retry-after"]) == (
        503,
        "database_unavailable",
        "2",
    )


def test_one_request_of_a_busy_key_checks_it_early_and_a_revoked_one_ends_for_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else all requests of the moment at which it has to be checked would ask the database."""

    async def test() -> None:
        now, refused, answer = 1000.0, False, asyncio.Event()
        monkeypatch.setattr(auth, "time", SimpleNamespace(monotonic=lambda: now))
        lookups = 0

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            statuses.append(200)

        async def ask(credential: Credential, client: object) -> Identity:
            nonlocal lookups
            lookups += 1
            await answer.wait()
            if refused:
                raise auth.unauthorized("key_invalid")
            return Identity("key:1")

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                statuses.append(message["status"])

        async def request() -> None:
            headers = [(b"authorization", b"Bearer tk_1")]
            await authentication(
                {"type": "http", "method": "GET", "path": "/v1/jobs", "query_string": b"", "headers": headers},
                None,
                send,
            )  # type: ignore[arg-type]

        statuses: list[int] = []
        authentication = Authentication(app, None)  # type: ignore[arg-type]
        monkeypatch.setattr(authentication, "_ask", ask)
        answer.set()
        await request()
        answer.clear()
        now += auth.KEEP_SECONDS * 0.6
        early = asyncio.create_task(request())
        await asyncio.sleep(0)
        for _ in range(5):
            await request()
        assert (lookups, statuses) == (2, [200] * 6), "one asks, and five do not wait for it"
        refused = True
        answer.set()
        await early
        await request()
        assert (lookups, statuses[6:]) == (3, [401, 401])
        refused = False
        await request()
        now += auth.KEEP_SECONDS
        answer.clear()
        late = [asyncio.create_task(request()) for _ in range(3)]
        await asyncio.sleep(0)
        assert lookups == 7, "whatever is older than that is believed by nobody"
        answer.set()
        await asyncio.gather(*late)

    asyncio.run(asyncio.wait_for(test(), 20))


def test_guessing_keys_writes_nothing(service: Served) -> None:
    """A wrong key must not wait for, or keep waiting, whoever writes."""
    with service.sessions.begin() as session:
        create_key(session, "default", "held open")
        session.flush()
        guess = TestClient(service.app, headers={"Authorization": f"Bearer tk_{'0' * 8}_{'0' * 40}"})
        assert guess.get("/v1/jobs").status_code == 401


def test_use_is_noted_about_once_a_minute(service: Served) -> None:
    key = service.key("default")
    client = TestClient(service.app, headers={"Authorization": f"Bearer {key}"})
    client.get("/v1/jobs")
    with service.sessions() as session:
        used, now = session.execute(select(ApiKey.last_used_at, db_now()).where(ApiKey.id == key.split("_")[1])).one()
    assert now - used < timedelta(minutes=1)

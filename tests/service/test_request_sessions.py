"""The session of a request: when it ends, and that however many requests come, all of them are answered."""

from __future__ import annotations

import ast
import importlib
import inspect
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio import to_thread
from fastapi import APIRouter, FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient
from httpx import ASGITransport, AsyncClient
from sqlalchemy import Engine, event
from starlette.types import Message, Receive, Scope, Send

import service.app
import service.database
from service import errors
from service.app import create_app
from service.database import after_commit, db_time, new_id, reading, savepoint
from service.errors import HttpProblem
from service.keys.service import create_key
from service.load_shedding import LoadShedding
from service.projects.tables import Project
from service.request_body import read_document
from service.request_sessions import (
    ReadSession,
    RequestSessions,
    SessionRoute,
    WriteSession,
    read_session,
    write_session,
)
from service.settings import Settings
from tests.support.api import Served

SERVICE = Path(__file__).parents[2] / "service"
SESSION_OPENERS = {
    "artifacts/routes.py": {"_answer"},
    "audit/routes.py": {"export_audit_log"},
    "datasets/routes.py": {"_out", "_prepared_key"},
    "diagnosis/routes.py": {"_read", "investigate_job"},
    "experiments/routes.py": {"create_experiment"},
    "health/routes.py": {"get_readiness"},
    "jobs/routes.py": {"get_job.read", "list_jobs.read"},
    "logs/routes.py": {"_query", "_whole"},
    "metrics/export_routes.py": {"find_download"},
    "metrics/plot_routes.py": {"get_job_plot", "get_job_plot_svg"},
    "metrics/routes.py": {"_query"},
    "metrics/stream.py": {"opening", "follow"},
    "oidc/routes.py": {"_begin_session", "_end_session", "finish_sign_in"},
    "recommendations/routes.py": {"get_diagnosis_scorecard", "get_job_recommendation"},
    "recommendations/submit_routes.py": {"create_job.read", "create_job.submit"},
    "specs/routes.py": {"create_init_report.check"},
}
"""Functions of routes that open sessions themselves; docs/explanation/architecture.md says why."""


def functions(tree: ast.AST, prefix: str = "") -> Iterator[tuple[str, ast.AST]]:
    """Every function with its dotted name."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield prefix + node.name, node
            yield from functions(node, f"{prefix}{node.name}.")
        else:
            yield from functions(node, prefix)


def nodes_of(function: ast.AST) -> Iterator[ast.AST]:
    """A function's nodes without those of functions in it."""
    for node in ast.iter_child_nodes(function):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node
            yield from nodes_of(node)


def is_routes(file: Path) -> bool:
    return any("APIRouter(" in line for line in file.read_text().splitlines())


def test_routes_take_the_session_of_their_request() -> None:
    found: dict[str, set[str]] = {}
    for file in filter(is_routes, SERVICE.rglob("*.py")):
        for name, function in functions(ast.parse(file.read_text())):
            if any(isinstance(node, ast.Attribute) and node.attr == "sessions" for node in nodes_of(function)):
                found.setdefault(str(file.relative_to(SERVICE)), set()).add(name)
    assert found["metrics/export_routes.py"] == {"answer", "find_download"}  # `answer` hands them to the writer
    assert {**found, "metrics/export_routes.py": {"find_download"}} == SESSION_OPENERS


def test_the_architecture_page_names_every_route_with_sessions_of_its_own() -> None:
    page = (SERVICE.parent / "docs/explanation/architecture.md").read_text()
    assert [file for file in SESSION_OPENERS if f"`service/{file}`" not in page] == []


def calls(dependant: Dependant) -> Iterator[Callable[..., Any] | None]:
    """The dependencies in the order in which they are resolved."""
    for one in dependant.dependencies:
        yield from calls(one)
        yield one.call


def routes() -> Iterator[APIRoute]:
    """Every route of every module of routes."""
    for file in filter(is_routes, SERVICE.rglob("*routes.py")):
        module = importlib.import_module(".".join(file.relative_to(SERVICE.parent).with_suffix("").parts))
        for router in vars(module).values():
            if isinstance(router, APIRouter):
                yield from (route for route in router.routes if isinstance(route, APIRoute))


def test_a_route_has_one_session_in_threads_of_its_own_after_its_body() -> None:
    with_session = 0
    for route in routes():
        resolved = list(calls(route.dependant))
        sessions = [call for call in resolved if call in (read_session, write_session)]
        if not sessions:
            continue
        with_session += 1
        assert len(sessions) == 1, route.path
        assert isinstance(route, SessionRoute), route.path
        assert inspect.iscoroutinefunction(route.endpoint), f"{route.path}: FastAPI would run it in its own thread"
        assert inspect.unwrap(route.endpoint) is not route.endpoint, f"{route.path}: a session blocks the event loop"
        assert read_document not in resolved[resolved.index(sessions[0]) :], (
            f"{route.path}: a slow body holds a session"
        )
    assert with_session > 40


class Small:
    """An application with routes for the tests, and what was seen when an answer was begun to be sent."""

    def __init__(self, engine: Engine, sessions: Any, limit: int = 3) -> None:
        self.engine, self.sessions = engine, sessions
        self.sent: list[dict[str, Any]] = []
        self.called: list[dict[str, Any]] = []
        self.app = FastAPI()
        self.app.router.route_class = SessionRoute
        self.app.state.request_sessions = RequestSessions(engine, sessions, limit)
        errors.install(self.app)
        self.app.post("/{name}")(self._write())
        self.app.get("/{name}")(self._read())
        self.client = TestClient(self._watched, raise_server_exceptions=False)

    def _write(self) -> Callable[..., Any]:
        def write(name: str, session: WriteSession) -> dict[str, str]:
            after_commit(session, lambda: self.called.append(self.state(name)))
            create_key(session, name, "test")
            if name == "refused":
                raise HttpProblem(409, "wrong_state", "no")
            if name == "defect":
                raise RuntimeError(name)
            if name == "late":
                session.add(Project(id=new_id("prj"), name=name, created_at=db_time(session)))  # flushed by the commit
            return {"name": name}

        return write

    def _read(self) -> Callable[..., Any]:
        def read(name: str, session: ReadSession) -> dict[str, int]:
            before = len(names(session))
            with self.sessions.begin() as other:
                create_key(other, name, "test")
            return {"before": before, "after": len(names(session))}

        return read

    def state(self, name: str) -> dict[str, Any]:
        """Whether the project is there for others, and how many connections are in use."""
        used = self.engine.pool.checkedout()  # type: ignore[attr-defined]
        with self.sessions.begin() as session:  # on SQLite this waits for a write lock
            return {"there": name in names(session), "used": used}

    async def _watched(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def watched(message: Message) -> None:
            if message["type"] == "http.response.start":
                self.sent.append(await to_thread.run_sync(self.state, scope["path"][1:]))
            await send(message)

        await self.app(scope, receive, watched)


def names(session: Any) -> list[str]:
    return [project.name for project in session.query(Project)]


@pytest.fixture
def small(service: Served) -> Small:
    return Small(service.context.engine, service.sessions)


@pytest.mark.postgresql
def test_the_commit_comes_before_the_answer_and_callbacks_after_the_connection(small: Small) -> None:
    assert small.client.post("/fresh").json() == {"name": "fresh"}
    assert small.called == [{"there": True, "used": 0}]
    assert small.sent == [{"there": True, "used": 0}]


@pytest.mark.postgresql
def test_an_exception_rolls_back_and_forgets_the_callbacks(small: Small) -> None:
    assert small.client.post("/refused").status_code == 409
    assert small.client.post("/defect").status_code == 500
    assert small.called == []
    assert small.sent == [{"there": False, "used": 0}] * 2


@pytest.mark.postgresql
def test_a_commit_that_fails_is_answered_with_its_problem(small: Small) -> None:
    answer = small.client.post("/late")
    assert (answer.status_code, answer.json()["code"]) == (409, "changed_meanwhile")
    assert small.called == []
    assert small.sent == [{"there": False, "used": 0}]


@pytest.mark.postgresql
def test_a_read_session_sees_one_moment_and_keeps_no_writer_waiting(small: Small) -> None:
    seen = small.client.get("/meanwhile").json()
    assert seen["before"] == seen["after"]
    assert small.sent == [{"there": True, "used": 0}]


def test_a_savepoint_that_is_undone_forgets_its_callbacks(service: Served) -> None:
    calls: list[str] = []
    with service.sessions.begin() as session:
        after_commit(session, partial(calls.append, "before"))
        with suppress(HttpProblem), savepoint(session):
            after_commit(session, partial(calls.append, "inside"))
            create_key(session, "undone", "test")
            raise HttpProblem(409, "undone", "as the test wants it")
        with savepoint(session):
            after_commit(session, partial(calls.append, "kept"))
    assert calls == ["before", "kept"]
    with reading(service.sessions) as session:
        assert "undone" not in names(session)


@pytest.mark.postgresql
def test_eighty_requests_at_once_are_all_answered(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of few connections and threads, all are answered: none waits for what a waiting one holds."""
    monkeypatch.setattr(service.database, "POOL_SIZE", 2)
    monkeypatch.setattr(service.database, "MAX_CONNECTIONS", 4)
    monkeypatch.setattr(service.app, "MAX_CONNECTIONS", 4)
    monkeypatch.setattr(service.app, "OTHER_CONNECTIONS", 2)
    # on a busy machine some would wait for more than a second, and be sent away before they need a session
    monkeypatch.setattr(service.app, "LoadShedding", partial(LoadShedding, wait_seconds=120))
    app = create_app(settings)
    engine, used, most = app.state.context.engine, Counter[str](), 0

    def taken(*_: Any) -> None:
        nonlocal most
        used["now"] += 1
        most = max(most, used["now"])

    event.listen(engine, "checkout", taken)
    event.listen(engine, "checkin", lambda *_: used.subtract(["now"]))
    served = Served(app, TestClient(app), app.state.context)
    served.client = served.client_for("default")
    dataset, job = served.ready_dataset(), served.submit()
    spec = {"dataset": dataset, "model": {"kind": "mlp"}}
    header = served.client.headers["Authorization"]

    async def all_at_once() -> list[tuple[str, int]]:
        to_thread.current_default_thread_limiter().total_tokens = 3
        answers: list[tuple[str, int]] = []
        transport = ASGITransport(app, raise_app_exceptions=False)
        async with AsyncClient(
            transport=transport, base_url="http://test", headers={"Authorization": header}
        ) as client:

            async def ask(kind: str, method: str, path: str, **more: Any) -> None:
                answers.append((kind, (await client.request(method, path, **more)).status_code))

            with anyio.fail_after(120):
                async with anyio.create_task_group() as group:
                    for number in range(10):
                        same = {"Idempotency-Key": "the same"}
                        # writes and reads of injected sessions
                        group.start_soon(partial(ask, "new", "POST", "/v1/jobs", json=spec))
                        group.start_soon(partial(ask, "same", "POST", "/v1/jobs", json=spec, headers=same))
                        group.start_soon(ask, "look", "GET", f"/v1/jobs/{job}")
                        group.start_soon(ask, "list", "GET", "/v1/jobs?limit=20")
                        group.start_soon(ask, "stop", "POST", f"/v1/jobs/{job}/stop")
                        # and of sessions that others open: they wait in FastAPI's threads
                        group.start_soon(
                            partial(ask, "upload", "PUT", f"/v1/datasets?name=n{number}", content=b"%d" % number)
                        )
                        group.start_soon(ask, "poll", "GET", f"/v1/jobs/{job}/metrics")
                        group.start_soon(ask, "diagnose", "GET", f"/v1/jobs/{job}/diagnosis")
        return answers

    try:
        counted = Counter(anyio.run(all_at_once))
        assert counted == {
            ("new", 201): 10,
            ("same", 201): 10,
            ("look", 200): 10,
            ("list", 200): 10,
            ("stop", 200): 10,
            ("upload", 201): 10,
            ("poll", 200): 10,
            ("diagnose", 200): 10,
        }
        assert used["now"] == 0
        assert 1 < most <= 4
        listed = served.client.get("/v1/jobs?limit=100").json()["data"]
        assert len(listed) == 1 + 10 + 1, "the same key made one job"
    finally:
        engine.dispose()

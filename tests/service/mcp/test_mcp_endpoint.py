"""The MCP server at /mcp, by the official client: keys, roles, limits and audit are those of the API."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp_types import CallToolResult, TextContent

from service.app import create_app
from service.roles import Role
from service.settings import Settings
from tests.support.api import Served, new_key

pytestmark = pytest.mark.parametrize("migrated_url", ["sqlite"], indirect=True)
URL = "http://localhost/mcp"


def text_of(result: CallToolResult) -> str:
    return "\n".join(part.text for part in result.content if isinstance(part, TextContent))


class McpCaller:
    """An application in this event loop, and clients of its MCP server."""

    def __init__(self, app: Any) -> None:
        self.app, self.sessions = app, app.state.context.sessions

    def http(self, **headers: str) -> httpx2.AsyncClient:
        return httpx2.AsyncClient(
            transport=httpx2.ASGITransport(self.app), headers=headers, base_url="http://localhost"
        )

    @asynccontextmanager
    async def client(self, *roles: Role, mode: str = "auto", query: str = "", key: str = "") -> AsyncIterator[Client]:
        key = key or new_key(self.sessions, "default", *roles)
        async with (
            self.http(Authorization=f"Bearer {key}") as http,
            Client(streamable_http_client(f"{URL}{query}", http_client=http), mode=mode) as client,
        ):
            yield client


def run(settings: Settings, test: Callable[[McpCaller], Awaitable[None]]) -> None:
    """Run a test in one event loop with the application."""

    async def main() -> None:
        app = create_app(settings)
        async with app.router.lifespan_context(app):
            await test(McpCaller(app))

    anyio.run(main)


@pytest.mark.parametrize("mode", ["legacy", "auto"])
def test_tools_answer_in_the_name_of_their_caller(settings: Settings, service: Served, mode: str) -> None:
    dataset = service.ready_dataset(name="digits")

    async def test(caller: McpCaller) -> None:
        async with caller.client("developer", mode=mode) as client:
            listed = {tool.name for tool in (await client.list_tools()).tools}
            assert {"submit_job", "validate_spec", "get_history"} <= listed
            found = await client.call_tool("get_status", {})
            assert not found.is_error, text_of(found)
            assert found.structured_content is not None
            assert (found.structured_content["project"], found.structured_content["role"]) == ("default", "developer")
            submitted = await client.call_tool(
                "submit_job",
                {"spec": {"dataset": dataset, "model": {"kind": "mlp"}, "group": "digits"}, "why": "a baseline"},
            )
            assert not submitted.is_error, text_of(submitted)
            assert submitted.structured_content is not None
            job = submitted.structured_content["id"]
            for about in ({"dataset": dataset}, {"group": "digits"}):
                history = text_of(await client.call_tool("get_history", about))
                assert job in history
                assert "(a baseline)" in history

    run(settings, test)
    (job,) = service.client.get("/v1/jobs").json()["data"]
    events = service.client.get(f"/v1/jobs/{job['id']}/events").json()["data"]
    assert events[0]["actor"].startswith("key:")
    entries = service.client.get("/v1/audit?operation=createJob").json()["data"]
    assert [entry["actor"]["kind"] for entry in entries] == ["key"]


def test_who_may_not_write_is_offered_no_tool_that_does(settings: Settings, service: Served) -> None:
    dataset = service.ready_dataset()

    async def test(caller: McpCaller) -> None:
        spec = {"spec": {"dataset": dataset, "model": {"kind": "mlp"}}}
        for role, query in (("viewer", ""), ("developer", "?read_only=true")):
            async with caller.client(role, query=query) as client:  # type: ignore[arg-type]
                names = {tool.name for tool in (await client.list_tools()).tools}
                assert not names & {"submit_job", "register_dataset", "stop_job", "apply_recommendation"}
                assert "diagnose_job" in names
                assert (await client.call_tool("submit_job", spec)).is_error
                assert not (await client.call_tool("validate_spec", spec)).is_error

    run(settings, test)
    assert service.client.get("/v1/jobs").json()["data"] == []


def test_a_budget_holds_whatever_the_agent_does(settings: Settings, service: Served) -> None:
    dataset = service.ready_dataset()
    body = {"name": "agent", "role": "developer", "budget": {"max_jobs": 2, "max_compute_seconds": 100}}
    key = service.client.post("/v1/keys", json=body).json()["key"]

    async def test(caller: McpCaller) -> None:
        async with caller.client(key=key) as client:
            for limit in (60, 40):
                spec = f"{{dataset: {dataset}, model: {{kind: mlp}}, resources: {{max_seconds: 60}}}}"
                found = await client.call_tool("submit_job", {"spec": spec})
                assert found.structured_content is not None, text_of(found)
                assert found.structured_content["max_seconds"] == limit
            refused = await client.call_tool("submit_job", {"spec": spec})
            assert refused.is_error
            assert "budget_used_up" in text_of(refused)
            assert "2 of its 2 jobs" in text_of(refused)

    run(settings, test)


def test_mistakes_come_with_place_and_hint(settings: Settings, service: Served) -> None:
    dataset = service.ready_dataset()

    async def test(caller: McpCaller) -> None:
        async with caller.client("developer") as client:
            wrong = {"dataset": dataset, "model": {"kind": "mlpp"}, "optimizer": {"kind": "adam", "lr": -1}}
            found = await client.call_tool("submit_job", {"spec": wrong})
            assert found.is_error
            assert "at /model/kind" in text_of(found)
            assert "at /optimizer/lr" in text_of(found)
            checked = await client.call_tool("validate_spec", {"spec": wrong})
            assert checked.structured_content is not None
            assert (checked.structured_content["valid"], len(checked.structured_content["problems"])) == (False, 2)
            missing = await client.call_tool("wait_for", {"id": "job_none"})
            assert "not_found" in text_of(missing)
            local = await client.call_tool("register_dataset", {"name": "x", "path": "/etc/passwd"})
            assert local.is_error
            assert "own machine" in text_of(local)

    run(settings, test)


def test_resources_and_the_prompt(settings: Settings, service: Served) -> None:
    async def test(caller: McpCaller) -> None:
        async with caller.client("developer") as client:
            whole = await client.read_resource("trainkit://spec-schema")
            part = await client.read_resource("trainkit://spec-schema/train")
            assert len(part.contents[0].text) < len(whole.contents[0].text)  # type: ignore[union-attr]
            prompt = await client.get_prompt("improve_model", {"dataset": "digits", "jobs": "5"})
            assert "within 5 jobs" in prompt.messages[0].content.text  # type: ignore[union-attr]

    run(settings, test)


def test_the_api_goes_on_where_the_mcp_server_cannot_be_built(
    settings: Settings, service: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "trainkit_client.mcp.server", None)

    async def test(caller: McpCaller) -> None:
        headers = {"Authorization": f"Bearer {new_key(caller.sessions, 'default', 'developer')}"}
        async with caller.http(**headers) as http:
            broken = await http.post(URL, json={"jsonrpc": "2.0", "id": 1, "method": "tools/list"})
            assert (broken.status_code, broken.json()["code"]) == (500, "internal")
            assert (await http.get("http://localhost/v1/jobs")).status_code == 200

    run(settings, test)


def test_no_key_another_site_s_page_and_another_host_are_refused(settings: Settings, service: Served) -> None:
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}
    accept = {"Accept": "application/json, text/event-stream"}

    async def test(caller: McpCaller) -> None:
        key = new_key(caller.sessions, "default", "developer")
        async with caller.http(**accept) as http:
            assert (await http.post(URL, json=body)).status_code == 401
            headers = {"Authorization": f"Bearer {key}"}
            assert (await http.post(URL, json=body, headers=headers)).status_code == 200
            same = await http.post(URL, json=body, headers={**headers, "Origin": "http://localhost"})
            assert same.status_code == 200
            other = await http.post(URL, json=body, headers={**headers, "Origin": "http://evil.example"})
            assert (other.status_code, other.json()["code"]) == (403, "cross_origin_refused")
            rebound = await http.post("http://127.0.0.1/mcp", json=body, headers={**headers, "Host": "evil.example"})
            assert rebound.status_code == 421

    run(settings, test)

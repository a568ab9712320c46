"""An agent's way from an empty service to a better model, by the official MCP client: few calls and little text."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp_types import TextContent
from sklearn.datasets import load_breast_cancer, load_diabetes

from tests.support.stack import TRAINKIT, Stack

pytestmark = pytest.mark.parametrize("stack", ["sqlite"], indirect=True)
MOST_CALLS, MOST_TOKENS = 12, 20_000
CHARACTERS = 4
"""Of a token, as it is usually counted: what a model's own tokenizer makes of the text differs by some tens of percent."""


def csv_of(bunch: Any) -> str:
    """A data set of scikit-learn as a table with the column `target`; names of classes stand for their numbers."""
    text = io.StringIO()
    names = getattr(bunch, "target_names", None)
    rows = csv.writer(text)
    rows.writerow([*(str(name).replace(" ", "_") for name in bunch.feature_names), "target"])
    for values, target in zip(bunch.data, bunch.target, strict=True):
        rows.writerow([*(f"{value:g}" for value in values), target if names is None else names[target]])
    return text.getvalue()


class Agent:
    """A client that counts what its calls cost: text and structured content, whichever a model is shown."""

    def __init__(self, client: Client) -> None:
        self.client, self.calls, self.characters = client, 0, 0

    async def call(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """The structured content of a call that succeeds."""
        result = await self.client.call_tool(tool, arguments)
        text = "\n".join(part.text for part in result.content if isinstance(part, TextContent))
        assert not result.is_error, text
        assert result.structured_content is not None
        self.calls += 1
        self.characters += max(len(text), len(json.dumps(result.structured_content)))
        return result.structured_content

    @property
    def tokens(self) -> float:
        return self.characters / CHARACTERS


@asynccontextmanager
async def by_http(stack: Stack, key: str) -> AsyncIterator[Agent]:
    async with (
        httpx2.AsyncClient(headers={"Authorization": f"Bearer {key}"}, timeout=300) as http,
        Client(streamable_http_client(f"{stack.url}/mcp", http_client=http)) as client,
    ):
        yield Agent(client)


@asynccontextmanager
async def by_stdio(stack: Stack, key: str, folder: Path) -> AsyncIterator[Agent]:
    environment = {**stack.environment, "TRAINKIT_URL": stack.url, "TRAINKIT_KEY": key}
    parameters = StdioServerParameters(command=TRAINKIT, args=["mcp", "--folder", str(folder)], env=environment)
    async with Client(stdio_client(parameters)) as client:
        yield Agent(client)


def key_with_budget(stack: Stack, jobs: int) -> str:
    body = {"name": "agent", "role": "developer", "budget": {"max_jobs": jobs, "max_compute_seconds": 600}}
    with stack.client() as client:
        answer = client.post("/v1/keys", json=body)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["key"])


async def improve(agent: Agent, data: dict[str, Any], spec: dict[str, Any], *, investigate: bool = False) -> None:
    """Go from data to a better model as the prompt says; every decision follows from the answers."""
    status = await agent.call("get_status")
    assert status["can_train"]
    dataset = await agent.call("register_dataset", **data)
    assert dataset["state"] == "ready"
    assert (await agent.call("get_history", dataset=dataset["dataset"]))["tried"] == []
    spec = {"dataset": dataset["dataset"], "resources": {"max_seconds": 60}, **spec}
    checked = await agent.call("validate_spec", spec=spec)
    assert checked["valid"]
    base = await agent.call("submit_job", spec=spec, wait_seconds=240, why="a first guess")
    assert base["state"] == "succeeded"
    diagnosis = await agent.call("diagnose_job", job=base["id"], investigate=investigate, wait_seconds=240)
    assert diagnosis["recommendations"], diagnosis["verdicts"]
    better = await agent.call(
        "apply_recommendation", job=base["id"], index=diagnosis["recommendations"][0]["index"], wait_seconds=240
    )
    assert better["state"] == "succeeded"
    compared = await agent.call("compare_jobs", jobs=[base["id"], better["id"]])
    assert compared["jobs"][0]["job"] == better["id"]
    assert ", more than the noise" in compared["verdict"]
    measured = await agent.call("evaluate_model", model=better["id"])
    assert measured["samples"] > 20
    history = await agent.call("get_history", dataset=dataset["dataset"])
    assert better["id"] in history["best"]
    assert agent.calls < MOST_CALLS
    assert agent.tokens < MOST_TOKENS
    left = (await agent.client.call_tool("get_status", {})).structured_content
    assert left is not None
    jobs = 3 if investigate else 2
    assert left["budget_left"]["jobs"] == status["budget_left"]["jobs"] - jobs
    assert left["budget_left"]["compute_seconds"] < status["budget_left"]["compute_seconds"]


@pytest.mark.parametrize(
    ("name", "load", "spec"),
    [
        (
            "cancer",
            load_breast_cancer,
            {"model": {"kind": "mlp", "hidden": [16]}, "preprocess": [], "optimizer": {"kind": "sgd", "lr": 0.01}},
        ),
        (
            "diabetes",
            load_diabetes,
            {"model": {"kind": "mlp", "hidden": [32]}, "optimizer": {"kind": "sgd", "lr": 0.001}},
        ),
    ],
)
def test_an_agent_improves_a_model_of_a_table_by_http(stack: Stack, name: str, load: Any, spec: dict[str, Any]) -> None:
    table = {"name": f"mcp-{name}", "target": "target", "content": csv_of(load())}
    key = key_with_budget(stack, 3)

    async def main() -> None:
        async with by_http(stack, key) as agent:
            await improve(agent, table, {**spec, "train": {"epochs": 15}})

    anyio.run(main)


def test_an_agent_improves_a_model_of_images_on_its_own_machine(stack: Stack, data: Path) -> None:
    key = key_with_budget(stack, 3)
    spec = {
        "model": {"kind": "mlp", "hidden": [32]},
        "optimizer": {"kind": "sgd", "lr": 0.0005},
        "train": {"epochs": 5},
    }

    async def main() -> None:
        async with by_stdio(stack, key, data) as agent:
            await improve(agent, {"name": "mcp-digits", "path": "digits.zip"}, spec, investigate=True)
            refused = await agent.client.call_tool(
                "submit_job", {"spec": {"dataset": "mcp-digits", "model": {"kind": "mlp"}}}
            )
            assert refused.is_error
            outside = await agent.client.call_tool("register_dataset", {"name": "x", "path": "../secret.csv"})
            assert outside.is_error

    anyio.run(main)

"""The MCP server: its tools, resources and prompt, whatever the transport."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

from mcp.server.context import ServerMiddleware
from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ResourceError, ResourceNotFoundError, ToolError
from mcp_types import ToolAnnotations
from pydantic import Field

from trainkit_client.mcp.api import Connect
from trainkit_client.mcp.tools import Tools
from trainkit_client.version import __version__

INSTRUCTIONS = """\
trainkit trains deep networks on your data and says why a run went wrong. The way to a good model:
1. register_dataset, or get_dataset for one that is there. Read its findings: leakage makes figures worthless.
2. get_history: what was tried before.
3. validate_spec, then submit_job with wait_seconds. Begin with a small model; leave out what you have no reason to set.
4. diagnose_job, then apply_recommendation; or a spec of your own with one change, and `why`.
5. compare_jobs: a gain within the noise is none. Stop when get_history says that nothing gets better.
Choose by validation metrics; look at test metrics once, at the end. get_status shows the budget that is left: the service
enforces it. Answers are short; `cut` says what was left out."""
IMPROVE = """\
Improve the model for the dataset {dataset} within {jobs} jobs.
{goal}
1. get_status and get_history(dataset={dataset!r}): the budget that is left, and what was tried. Do not repeat it.
2. If nothing was tried, submit_job with a small model and wait. It is the baseline.
3. Then, one job at a time: diagnose_job; apply_recommendation where one is offered and was not tried, else submit_job with
   one change and why. Name `resources: {{max_seconds: ...}}` so that the budget lasts.
4. compare_jobs with the best so far. Keep a change only if it is better by more than the noise.
5. Stop after {jobs} jobs, when the budget is used up, or when the last three made nothing better by more than noise.
Choose by validation metrics. At the end report the best job, its test metrics by evaluate_model, what helped and what did
not."""
ReadOnly = ToolAnnotations(read_only_hint=True, open_world_hint=False)
Training = ToolAnnotations(read_only_hint=False, destructive_hint=False, open_world_hint=False)
Stopping = ToolAnnotations(read_only_hint=False, destructive_hint=True, idempotent_hint=True, open_world_hint=False)


def build_server(
    connect: Connect,
    *,
    read_only: bool = False,
    folder: Path | None = None,
    middleware: Sequence[ServerMiddleware[Any]] = (),
) -> MCPServer[Any]:
    """Return the server.

    Args:
        connect: Opens the API in the name of the caller.
        read_only: Leave out the tools that upload, train or stop.
        folder: Files below it may be registered by path; None: none may.
        middleware: What wraps every request of the protocol.
    """
    server: MCPServer[Any] = MCPServer(
        "trainkit",
        title="trainkit",
        instructions=INSTRUCTIONS,
        version=__version__,
        subscriptions=False,
        middleware=middleware,
        log_level="WARNING",
    )
    _add_tools(server, Tools(connect, folder), read_only=read_only)
    _add_resources(server, connect)
    if not read_only:
        _add_prompt(server)
    return server


def _add_tools(server: MCPServer[Any], tools: Tools, *, read_only: bool) -> None:
    reading: tuple[Callable[..., Any], ...] = (
        *(tools.get_status, tools.get_catalog, tools.get_dataset, tools.validate_spec, tools.wait_for),
        *(tools.compare_jobs, tools.evaluate_model, tools.get_history),
    )
    for tool in reading:
        server.add_tool(tool, annotations=ReadOnly)
    if read_only:
        server.add_tool(tools.read_diagnosis, name="diagnose_job", annotations=ReadOnly)
        return
    for tool in (tools.register_dataset, tools.submit_job, tools.submit_experiment, tools.apply_recommendation):
        server.add_tool(tool, annotations=Training)
    server.add_tool(tools.diagnose_job, annotations=Training)
    server.add_tool(tools.stop_job, annotations=Stopping)


def _add_resources(server: MCPServer[Any], connect: Connect) -> None:
    async def read(path: str) -> Any:
        try:
            async with connect() as api:
                return await api.send("GET", path)
        except ToolError as error:
            raise ResourceError(str(error)) from error

    @server.resource("trainkit://spec-schema/{section}", mime_type="application/json")
    async def spec_schema_section(section: str) -> str:
        """JSON schema of one section of a job spec, such as model or train, or of one of its definitions."""
        schema = (await read("/v1/specs/schema")).json()
        found = schema["properties"].get(section) or schema.get("$defs", {}).get(section)
        if found is None:
            names = ", ".join(sorted(schema["properties"]))
            raise ResourceNotFoundError(f"A spec has no section {section!r}. Sections: {names}; or a name of $defs.")
        return json.dumps(found, separators=(",", ":"))

    @server.resource("trainkit://spec-schema", mime_type="application/json")
    async def spec_schema() -> str:
        """JSON schema of a job spec, whole: large. trainkit://spec-schema/{section} is a part of it."""
        return str((await read("/v1/specs/schema")).text)

    @server.resource("trainkit://docs", mime_type="text/markdown")
    async def docs() -> str:
        """Contents of the documentation: every page with a line about it."""
        return str((await read("/llms.txt")).text)

    @server.resource("trainkit://docs/{+page}", mime_type="text/markdown")
    async def docs_page(page: str) -> str:
        """A page of the documentation as Markdown, e.g. trainkit://docs/how-to/investigate.md."""
        return str((await read(f"/docs/pages/{page}")).text)


def _add_prompt(server: MCPServer[Any]) -> None:
    @server.prompt(title="Improve a model within N jobs")
    def improve_model(
        dataset: Annotated[str, Field(description="Id or name of the dataset.")],
        jobs: Annotated[str, Field(description="How many jobs it may take.")] = "8",
        goal: Annotated[str, Field(description="What the model is for, and which metric counts.")] = "",
    ) -> str:
        """Improve the model for a dataset within N jobs: baseline, diagnosis, one change at a time, comparison, report."""
        return IMPROVE.format(dataset=dataset, jobs=jobs, goal=goal).replace("\n\n", "\n")

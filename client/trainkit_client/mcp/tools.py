"""The tools: what an agent needs to get from a file to a better model, each in one call with a small answer."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import anyio
import yaml
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import CallToolResult
from pydantic import Field

from trainkit_client.mcp import summaries
from trainkit_client.mcp.answers import (
    BudgetLeft,
    CatalogAnswer,
    ComparisonAnswer,
    DatasetAnswer,
    DiagnosisAnswer,
    EvaluationAnswer,
    HistoryAnswer,
    JobAnswer,
    StatusAnswer,
    ValidationAnswer,
    clip,
    first,
    result_of,
    show,
)
from trainkit_client.mcp.api import ApiRefusedError, Connect, ToolApi, address, problem_text

POLL_SECONDS = 20
"""Longest that one request waits for news."""
PAUSE_SECONDS = 0.5
"""Between two looks at what cannot be waited for."""
MAX_WAIT_SECONDS = 300
CHECK_SECONDS = 60
"""How long a tool waits for the check of a new dataset."""
MAX_CONTENT = 200_000
"""Characters of a table that comes as an argument."""
HISTORY_FIELDS = "id,name,state,metrics,spec,resolved,parent,investigation_of,notes"

Spec = Annotated[
    dict[str, Any] | str,
    Field(
        description="Job spec as an object or YAML. At least {dataset: ds_..., model: {kind: mlp}}; of a table the target"
        " as {dataset: {id: ds_..., target: column}} unless it was registered with one. get_catalog lists what else."
    ),
]
WaitSeconds = Annotated[int, Field(ge=0, le=MAX_WAIT_SECONDS, description="Wait so long for the end; 0: do not wait.")]
Why = Annotated[
    str | None, Field(max_length=500, description="Why you try this; kept as the job's note for get_history.")
]
JobId = Annotated[str, Field(description="Id of a job, job_...", min_length=1, max_length=60)]
Caller = Context[Any, Any]


class Tools:
    """The tools of one server."""

    def __init__(self, connect: Connect, folder: Path | None = None) -> None:
        """Take how to reach the API.

        Args:
            connect: Opens the API in the name of the caller.
            folder: Files below it may be uploaded by path; None: only what comes as an argument or has an address.
        """
        self._connect, self._folder = connect, folder

    async def get_status(self, context: Caller) -> Annotated[CallToolResult, StatusAnswer]:
        """Your project, role, budget that is left, the service's devices, and jobs under way."""
        async with self._connect() as api:
            me, info = await api.get("/v1/me"), await api.get("/v1/info")
            active: list[str] = []
            for state in ("running", "queued"):
                jobs = await api.get("/v1/jobs", state=state, limit=5, fields="id,name,state")
                active += [f"{job['id']} {job['name']}: {job['state']}" for job in jobs["data"]]
        return result_of(
            StatusAnswer(
                project=(me.get("project") or {}).get("name"),
                role=me.get("role"),
                can_train=me.get("role") in ("developer", "admin"),
                budget_left=summaries.budget_left(me),
                version=info["version"],
                devices=[
                    f"{one['device']}: {one['workers']} workers, {one['train_slots']} slots" for one in info["devices"]
                ],
                active_jobs=active,
            )
        )

    async def get_catalog(
        self,
        context: Caller,
        section: Annotated[str | None, Field(description="E.g. model, optimizer, preprocess, early_stop.")] = None,
        kind: Annotated[str | None, Field(description="With section: one kind, to see its fields.")] = None,
    ) -> Annotated[CallToolResult, CatalogAnswer]:
        """What a spec can name: sections with their kinds; a section's kinds with defaults; or the fields of one kind."""
        async with self._connect() as api:
            catalog = await api.get("/v1/catalog")
        if section is not None and section not in catalog:
            raise ToolError(f"There is no section {section!r}. Sections: {', '.join(sorted(catalog))}.")
        kinds = [one["kind"] for one in catalog[section]] if section is not None else []
        if kind is not None and kind not in kinds:
            raise ToolError(f"There is no kind {kind!r} in {section!r}. Kinds: {', '.join(kinds) or 'name a section'}.")
        return result_of(summaries.catalog_answer(catalog, section, kind))

    async def get_dataset(
        self,
        context: Caller,
        dataset: Annotated[str | None, Field(description="Id, name or name:version; left out: list them.")] = None,
    ) -> Annotated[CallToolResult, DatasetAnswer]:
        """A dataset's facts and what its check found (columns, classes, leakage, duplicates); or the newest datasets."""
        async with self._connect() as api:
            if dataset is not None:
                return result_of(await _dataset(api, dataset))
            page = await api.get("/v1/datasets", limit=20)
        cut = ["older datasets; name one to see it"] if page["has_more"] else []
        return result_of(DatasetAnswer(datasets=[summaries.dataset_line(one) for one in page["data"]], cut=cut))

    async def register_dataset(
        self,
        context: Caller,
        name: Annotated[str, Field(min_length=1, max_length=200)],
        target: Annotated[str | None, Field(description="Of a table: the column to predict.")] = None,
        content: Annotated[str | None, Field(description="A small table as CSV text.", max_length=MAX_CONTENT)] = None,
        path: Annotated[
            str | None, Field(description="A file or folder on this machine: CSV, Parquet, NPZ, images.")
        ] = None,
        uri: Annotated[str | None, Field(description="file:// or s3:// address that the service may read.")] = None,
    ) -> Annotated[CallToolResult, DatasetAnswer]:
        """Register data (one of content, path, uri), wait for its check, and return the report. The same bytes under the
        same name give the same dataset."""
        given = [one for one in (content, path, uri) if one is not None]
        if len(given) != 1:
            raise ToolError(f"Give one of content, path and uri; got {len(given)} of them.")
        async with self._connect() as api:
            if uri is not None:
                source = {"uri": uri, "name": name, **({} if target is None else {"target": target})}
                created = await api.post("/v1/datasets", source)
            elif path is not None:
                created = await api.upload(self._local(path), name, target)
            else:
                query = {"name": name, "target": target, "filename": f"{name}.csv"}
                created = (await api.send("PUT", "/v1/datasets", params=query, content=(content or "").encode())).json()
            await _until(context, api, address("datasets", created["id"]), CHECK_SECONDS, _is_checked)
            return result_of(await _dataset(api, created["id"]))

    def _local(self, path: str) -> Path:
        """Return a file or folder that may be uploaded. Raises ToolError."""
        if self._folder is None:
            raise ToolError("path is for a server on your own machine (trainkit mcp). Send content, or a uri.")
        root, file = self._folder.resolve(), (self._folder / path).resolve()
        if not file.is_relative_to(root):
            raise ToolError(
                f"path is {path!r}, which is not below {root}. Start `trainkit mcp` with --folder to allow it."
            )
        if not file.exists():
            raise ToolError(f"There is no file or folder {file}.")
        return file

    async def validate_spec(self, context: Caller, spec: Spec) -> Annotated[CallToolResult, ValidationAnswer]:
        """Check a spec without submitting it: every mistake with its place and remedy, warnings, what was filled in, and
        an estimate of seconds, memory and parameters."""
        async with self._connect() as api:
            return result_of(await _validated(api, _document(spec)))

    async def submit_job(
        self,
        context: Caller,
        spec: Spec,
        dry_run: Annotated[bool, Field(description="Only check the spec and what it would take.")] = False,
        wait_seconds: WaitSeconds = 0,
        why: Why = None,
    ) -> Annotated[CallToolResult, JobAnswer]:
        """Train a model by a spec. Its time limit is cut to what is left of your budget."""
        document = _document(spec)
        async with self._connect() as api:
            if dry_run:
                return result_of(_dry_run(await _validated(api, document)))
            job = await api.post("/v1/jobs", document)
            return result_of(await _submitted(context, api, job["id"], wait_seconds, why))

    async def submit_experiment(
        self,
        context: Caller,
        plan: Annotated[
            dict[str, Any] | str,
            Field(
                description="{kind, spec, ...} as an object or YAML; get_catalog(section='experiment') lists the kinds."
            ),
        ],
        wait_seconds: WaitSeconds = 0,
    ) -> Annotated[CallToolResult, JobAnswer]:
        """Train several jobs as one: autopilot, sweeps (grid, random, tpe, asha), cross-validation, baselines."""
        async with self._connect() as api:
            experiment = await api.post("/v1/experiments", _document(plan))
            return result_of(await _waited(context, api, experiment["id"], wait_seconds))

    async def wait_for(
        self,
        context: Caller,
        id: Annotated[str, Field(description="job_... or exp_...")],
        seconds: WaitSeconds = 60,
    ) -> Annotated[CallToolResult, JobAnswer]:
        """Wait for the end of a job or an experiment, and return a summary: metrics with intervals, curve, verdict."""
        async with self._connect() as api:
            return result_of(await _waited(context, api, id, seconds))

    async def stop_job(
        self,
        context: Caller,
        id: Annotated[str, Field(description="job_... or exp_...")],
        keep: Annotated[Literal["best", "nothing"], Field(description="nothing: cancel, without a model.")] = "best",
    ) -> Annotated[CallToolResult, JobAnswer]:
        """Stop a job or an experiment early; the best model so far is kept."""
        async with self._connect() as api:
            if _is_experiment(id):
                body = {"running": "stop" if keep == "best" else "cancel"}
                await api.post(address("experiments", id, "stop"), body)
            elif keep == "best":
                await api.post(address("jobs", id, "stop"), {"keep": "best"})
            else:
                await api.post(address("jobs", id, "cancel"))
            return result_of(await _waited(context, api, id, POLL_SECONDS))

    async def compare_jobs(
        self,
        context: Caller,
        jobs: Annotated[list[str], Field(min_length=2, max_length=8, description="Ids of jobs.")],
        metric: Annotated[str | None, Field(description="Left out: by which the first chose its weights.")] = None,
    ) -> Annotated[CallToolResult, ComparisonAnswer]:
        """Jobs side by side: metrics with intervals, what differs in their specs, and whether the best is better than
        noise."""
        async with self._connect() as api:
            found = [await api.get(address("jobs", one)) for one in jobs]
        return result_of(summaries.comparison_answer(found, metric))

    async def diagnose_job(
        self,
        context: Caller,
        job: JobId,
        investigate: Annotated[
            bool, Field(description="Train short variants that settle the cause; costs one job.")
        ] = False,
        seconds: Annotated[float | None, Field(gt=0, le=3600, description="Time of the investigation.")] = None,
        wait_seconds: WaitSeconds = 120,
    ) -> Annotated[CallToolResult, DiagnosisAnswer]:
        """Why a run went as it did: verdicts with evidence, suspects, and recommendations for apply_recommendation."""
        async with self._connect() as api:
            if investigate:
                body = {} if seconds is None else {"seconds": seconds}
                begun = await api.post(f"{address('jobs', job)}/diagnosis:investigate", body)
                await _until(context, api, address("jobs", begun["id"]), wait_seconds, _has_ended)
            return result_of(summaries.diagnosis_answer(job, await api.get(address("jobs", job, "diagnosis"))))

    async def apply_recommendation(
        self,
        context: Caller,
        job: JobId,
        index: Annotated[int, Field(ge=0, le=50, description="Of diagnose_job's recommendations.")] = 0,
        dry_run: bool = False,
        wait_seconds: WaitSeconds = 0,
    ) -> Annotated[CallToolResult, JobAnswer]:
        """Submit the spec that the diagnosis of a job recommends."""
        async with self._connect() as api:
            if dry_run:
                recommended = (await api.get(address("jobs", job, "diagnosis")))["recommendations"]
                if index >= len(recommended):
                    raise ToolError(
                        f"The diagnosis has {len(recommended)} recommendations, counted from 0; got {index}."
                    )
                return result_of(_dry_run(await _validated(api, recommended[index]["spec"])))
            begun = await api.post("/v1/jobs", {"from_diagnosis": {"job": job, "index": index}})
            return result_of(await _submitted(context, api, begun["id"], wait_seconds, None))

    async def evaluate_model(
        self,
        context: Caller,
        model: Annotated[str, Field(description="Id or name of a model (mdl_...), or a job (job_...).")],
        dataset: Annotated[str | None, Field(description="Left out: the evaluation that its job ended with.")] = None,
        part: Annotated[Literal["train", "validation", "test", "all"], Field(description="Of that dataset.")] = "all",
    ) -> Annotated[CallToolResult, EvaluationAnswer]:
        """Quality of a model: metrics, the classes that it recognises worst, the commonest confusions."""
        async with self._connect() as api:
            if dataset is None:
                job = model if model.startswith("job_") else (await api.get(address("models", model)))["job"]
                found = await api.get(address("jobs", job, "evaluation"))
            else:
                if model.startswith("job_"):
                    model = ((await api.get(address("jobs", model))).get("result") or {}).get("model") or model
                body: dict[str, Any] = {"dataset": dataset} if part == "all" else {"dataset": dataset, "part": part}
                found = await api.post(address("models", model, "evaluate"), body)
        return result_of(summaries.evaluation_answer(model, found))

    async def get_history(
        self,
        context: Caller,
        dataset: Annotated[str | None, Field(description="Only jobs on this dataset (id).")] = None,
        group: Annotated[str | None, Field(description="Only jobs of this group, or of this experiment (id).")] = None,
        limit: Annotated[int, Field(ge=1, le=40)] = 15,
    ) -> Annotated[CallToolResult, HistoryAnswer]:
        """What was tried, oldest first: each change, why, what it gave with its interval, and whether it still gets
        better. Read this before you try something."""
        async with self._connect() as api:
            if group is not None:
                path = address("experiments" if _is_experiment(group) else "groups", *group.split("/"), "history")
                return result_of(await _group_history(api, path, limit))
            page = await api.get("/v1/jobs", dataset=dataset, limit=limit, fields=HISTORY_FIELDS)
            jobs = list(reversed(page["data"]))
            notes = {job["id"]: job["notes"] for job in jobs if job.get("notes")}
            for job in jobs:
                if (job.get("parent") or {}).get("relation") == "diagnosis" and job["id"] not in notes:
                    found = await api.get(address("jobs", job["id"], "recommendation"))
                    notes[job["id"]] = f"recommended for {found['code']}"
        return result_of(summaries.history_answer(jobs, notes, more=page["has_more"]))

    async def read_diagnosis(self, context: Caller, job: JobId) -> Annotated[CallToolResult, DiagnosisAnswer]:
        """Why a run went as it did: verdicts with evidence, suspects, and recommendations."""
        async with self._connect() as api:
            return result_of(summaries.diagnosis_answer(job, await api.get(address("jobs", job, "diagnosis"))))


async def _group_history(api: ToolApi, path: str, limit: int) -> HistoryAnswer:
    """Return the newest rows of the history of an experiment or a group."""
    total = (await api.get(path, limit=1))["total"]
    after = max(0, total - limit)
    return summaries.group_history_answer(await api.get(path, after=after, limit=limit), after)


def _document(spec: dict[str, Any] | str) -> dict[str, Any]:
    """Return a spec that may be YAML as an object. Raises ToolError."""
    if isinstance(spec, dict):
        return spec
    try:
        document = yaml.safe_load(spec)
    except yaml.YAMLError as error:
        raise ToolError(f"This is not YAML: {clip(str(error), 300)}") from error
    if not isinstance(document, dict):
        raise ToolError(f"A spec is an object such as {{dataset: ds_..., model: {{kind: mlp}}}}; got {show(document)}.")
    return document


def _is_experiment(identifier: str) -> bool:
    return identifier.startswith("exp_")


def _has_ended(document: dict[str, Any]) -> bool:
    return document["state"] in summaries.ENDED


def _is_checked(document: dict[str, Any]) -> bool:
    return document["state"] in ("ready", "invalid")


async def _until(
    context: Caller, api: ToolApi, path: str, seconds: float, done: Callable[[dict[str, Any]], bool]
) -> dict[str, Any]:
    """Return a resource once it is done, or as it is after so many seconds. Tells the client of progress."""
    deadline = time.monotonic() + seconds
    while True:
        response = await api.send("GET", path)
        document: dict[str, Any] = response.json()
        left = deadline - time.monotonic()
        if done(document) or left <= 0:
            return document
        percent = (document.get("progress") or {}).get("percent")
        await context.report_progress(
            percent or 0.0, 100.0, f"{document['state']} {document.get('phase') or ''}".strip()
        )
        await _news(api, path, response.headers.get("etag"), min(left, POLL_SECONDS))


async def _news(api: ToolApi, path: str, tag: str | None, seconds: float) -> None:
    """Wait until a resource has changed, or so many seconds."""
    if tag is not None and path.startswith("/v1/jobs/"):
        await api.send("GET", path, params={"wait": max(1, int(seconds))}, headers={"If-None-Match": tag})
    else:
        await anyio.sleep(min(seconds, PAUSE_SECONDS))


async def _dataset(api: ToolApi, reference: str) -> DatasetAnswer:
    dataset = await api.get(address("datasets", reference))
    report = await api.get(address("datasets", dataset["id"], "report")) if _is_checked(dataset) else None
    return summaries.dataset_answer(dataset, report)


async def _left(api: ToolApi) -> BudgetLeft | None:
    return summaries.budget_left(await api.get("/v1/me"))


async def _validated(api: ToolApi, document: dict[str, Any]) -> ValidationAnswer:
    try:
        found = await api.post("/v1/specs:validate", document)
    except ApiRefusedError as refusal:
        if refusal.status != 422:
            raise
        problems = problem_text(refusal.document, "validate_spec").split("\n- ")[1:] or [str(refusal)]
        return ValidationAnswer(valid=False, problems=problems)
    cut: list[str] = []
    warnings = [f"at {one['pointer']}: {one['message'].rstrip('.')}. {one['hint']}" for one in found["warnings"]]
    spec = found["spec"]
    names = ("task", "model", "loss", "optimizer", "schedule", "preprocess", "balance", "early_stop")
    chosen = {name: spec[name] for name in names if spec.get(name)}
    train = spec.get("train") or {}
    chosen["train"] = {name: train[name] for name in ("epochs", "batch_size", "monitor") if name in train}
    return ValidationAnswer(
        valid=True,
        warnings=first(warnings, 8, cut, "warnings"),
        estimate=found["estimate"],
        chosen=chosen,
        budget_left=await _left(api),
        cut=cut,
    )


def _dry_run(found: ValidationAnswer) -> JobAnswer:
    return JobAnswer(state="not submitted", ended=False, validation=found)


async def _submitted(context: Caller, api: ToolApi, job_id: str, wait_seconds: float, why: str | None) -> JobAnswer:
    """Return a new job's summary, with the note written and the budget that is left."""
    if why:
        await api.send("PATCH", address("jobs", job_id), json={"notes": why})
    answer = await _waited(context, api, job_id, wait_seconds)
    return answer.model_copy(update={"budget_left": await _left(api)})


async def _waited(context: Caller, api: ToolApi, identifier: str, seconds: float) -> JobAnswer:
    """Return the summary of a job or an experiment, at its end or after so many seconds."""
    if _is_experiment(identifier):
        return await _experiment(
            api, await _until(context, api, address("experiments", identifier), seconds, _has_ended)
        )
    job = await _until(context, api, address("jobs", identifier), seconds, _has_ended)
    if not _has_ended(job) or job.get("investigation_of"):
        return summaries.job_answer(job)
    metric, curve, diagnosis = summaries.monitor_of(job), [], None
    try:
        series = await api.get(address("jobs", identifier, "metrics", "series"), names=metric, max_points=40)
        curve = [value for value in series["series"].get(metric, {}).get("value", []) if isinstance(value, int | float)]
        diagnosis = await api.get(address("jobs", identifier, "diagnosis"))
    except ApiRefusedError as refusal:
        if refusal.status not in (404, 409, 410):  # never trained, or retention has taken the metrics
            raise
    return summaries.job_answer(job, diagnosis, curve)


async def _experiment(api: ToolApi, experiment: dict[str, Any]) -> JobAnswer:
    results = await api.get(address("experiments", experiment["id"], "results"), limit=20)
    metric, best = experiment.get("metric"), experiment.get("best") or {}
    cut = ["further trials; get_history(group=...) lists them"] if results.get("has_more") else []
    trials = [
        clip(f"{one['number']}. {one['job']}: {show(one['params'])} {metric} {show(one['value'])}, {one['state']}", 200)
        for one in results["data"][:20]
    ]
    return JobAnswer(
        id=experiment["id"],
        name=experiment["name"] or None,
        state=experiment["state"],
        ended=_has_ended(experiment),
        stop_reason=experiment.get("reason"),
        error=None if not experiment.get("error") else clip(show(experiment["error"])),
        metrics={} if best.get("value") is None else {f"best {metric}": f"{show(best['value'])} by {best['job']}"},
        model=best.get("model"),
        trials=trials,
        cut=cut,
    )

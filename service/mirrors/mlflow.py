"""Copy a job to an MLflow tracking server by its REST API (https://mlflow.org/docs/latest/rest-api.html).

A job is a run: its spec the parameters, its log the metrics, the rest tags. Every request may be repeated: a run is found
again by its tag, parameters and tags are overwritten with the same, and the server's tables hold (run, key, time, step,
value) of a metric once.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from service.mirrors.job_view import JobView, MetricPoint
from service.mirrors.rest_client import MirrorError, RestClient

API = "/api/2.0/mlflow"
ARTIFACTS_API = "/api/2.0/mlflow-artifacts/artifacts"
PROXIED = "mlflow-artifacts:"
METRICS_PER_REQUEST = 1000
PARAMS_PER_REQUEST = 100
MAX_KEY, MAX_PARAM, MAX_TAG, MAX_NAME, MAX_DIGEST = 250, 500, 5000, 500, 36
"""The smallest limits that any server of the last years has."""
NOT_IN_KEYS = re.compile(r"[^\w.\- /]")
JOB_TAG = "trainkit.job_id"
RESERVED = ("mlflow.", "trainkit.")
STATUSES = {"succeeded": "FINISHED", "stopped": "FINISHED", "failed": "FAILED", "cancelled": "KILLED"}


class MlflowWriter:
    """Writes one job to one experiment of a server. Each method raises MirrorError."""

    rows_per_write = METRICS_PER_REQUEST
    is_rewritten = False

    def __init__(self, client: RestClient, experiment: str, job_url: str) -> None:
        self._client, self._experiment, self._job_url = client, experiment, job_url

    def begin(self, job: JobView, position: dict[str, Any]) -> str:
        """Find the job's run, or create it; returns its id."""
        experiment_id = self._experiment_id()
        search = {
            "experiment_ids": [experiment_id],
            "filter": f"tags.`{JOB_TAG}` = '{job.id}'",
            "max_results": 1,
            "run_view_type": "ACTIVE_ONLY",
        }
        found = self._call("runs/search", search).get("runs") or []
        if found:
            return _text(found, 0, "info", "run_id")
        new = {
            "experiment_id": experiment_id,
            "run_name": job.name[:MAX_KEY],
            "start_time": _milliseconds(job.started_at),
            "tags": [*_tags({JOB_TAG: job.id, "mlflow.runName": job.name[:MAX_KEY]})],
        }
        return _text(self._call("runs/create", new), "run", "info", "run_id")

    def describe(self, run_id: str, job: JobView, position: dict[str, Any]) -> None:
        """Write parameters, dataset and tags; a parameter that the run has keeps its value."""
        params = [{"key": _key(name), "value": value[:MAX_PARAM]} for name, value in flattened(job.spec or {})]
        if job.spec is not None and not position.get("params"):
            for start in range(0, len(params), PARAMS_PER_REQUEST):
                part = params[start : start + PARAMS_PER_REQUEST]
                self._call("runs/log-batch", {"run_id": run_id, "params": part})
            position["params"] = True
        if not position.get("dataset"):
            self._log_dataset(run_id, job)
            position["dataset"] = True

    def write(self, run_id: str, points: Sequence[MetricPoint], position: dict[str, Any], restart: int | None) -> None:
        """Write up to `rows_per_write` points. What the run already has is left as it is."""
        if points:
            self._call("runs/log-batch", {"run_id": run_id, "metrics": [_metric(point) for point in points]})

    def put_file(self, run_id: str, name: str, parts: Iterator[bytes], size: int, position: dict[str, Any]) -> None:
        """Upload a file below the run's artifacts, through the server."""
        run = self._client.call("GET", f"{API}/runs/get", query={"run_id": run_id})
        uri = _text(run, "run", "info", "artifact_uri")
        if not uri.startswith(PROXIED):
            place = uri.split(":", 1)[0]
            position["note"] = (
                f"files are not copied: the server keeps them in {place!r} and does not take them itself; "
                "start it with --serve-artifacts"
            )
            return
        path = re.sub(r"^//[^/]*", "", uri.removeprefix(PROXIED)).strip("/")
        self._client.put_file(f"{ARTIFACTS_API}/{path}/{name}", parts, size)
        position.pop("note", None)

    def set_state(self, run_id: str, job: JobView, position: dict[str, Any]) -> None:
        """Write tags, and the run's status last."""
        tags = list(_tags(self._described(job)))
        for start in range(0, len(tags), PARAMS_PER_REQUEST):
            self._call("runs/log-batch", {"run_id": run_id, "tags": tags[start : start + PARAMS_PER_REQUEST]})
        update: dict[str, Any] = {"run_id": run_id, "run_name": job.name[:MAX_KEY]}
        update["status"] = STATUSES.get(job.state, "SCHEDULED" if job.state in ("queued", "paused") else "RUNNING")
        if job.has_ended and job.finished_at is not None:
            update["end_time"] = _milliseconds(job.finished_at)
        self._call("runs/update", update)

    def _described(self, job: JobView) -> dict[str, Any]:
        labels = {key: value for key, value in job.labels.items() if not key.startswith(RESERVED)}
        error = job.error or {}
        dataset = job.dataset
        described: dict[str, Any] = {
            **{_key(key): value for key, value in labels.items()},
            JOB_TAG: job.id,
            "trainkit.url": self._job_url,
            "trainkit.project": job.project,
            "trainkit.dataset": dataset["id"],
            "trainkit.state": job.state,
            "trainkit.stop_reason": job.stop_reason,
            "trainkit.error": f"{error.get('code')}: {error.get('message')}" if error else None,
            "trainkit.model": job.model,
            "mlflow.source.name": self._job_url,
            "mlflow.source.type": "JOB",
            "mlflow.note.content": job.notes,
        }
        if job.result and job.result.get("best_epoch") is not None:
            described["trainkit.best_epoch"] = job.result["best_epoch"]
        return described

    def _log_dataset(self, run_id: str, job: JobView) -> None:
        dataset = job.dataset
        shown = {
            "name": str(dataset.get("name") or dataset["id"])[:MAX_NAME],
            "digest": str(dataset.get("sha256") or dataset["id"])[:MAX_DIGEST],
            "source_type": "trainkit",
            "source": json.dumps(dataset, sort_keys=True),
        }
        context = {"key": "mlflow.data.context", "value": "training"}
        inputs = {"run_id": run_id, "datasets": [{"dataset": shown, "tags": [context]}]}
        try:
            self._call("runs/log-inputs", inputs)
        except MirrorError as error:
            if error.status not in (400, 404, 405, 501):  # servers before 2.4 have no datasets; the tag names it
                raise

    def _experiment_id(self) -> str:
        name = self._experiment[:MAX_NAME]
        for _ in range(2):
            try:
                query = {"experiment_name": name}
                found = self._client.call("GET", f"{API}/experiments/get-by-name", query=query)
            except MirrorError as error:
                if error.code != "RESOURCE_DOES_NOT_EXIST":
                    raise
            else:
                if _text(found, "experiment", "lifecycle_stage") == "deleted":
                    what = f"the experiment {name!r} was deleted at the server; restore it there, or name another one"
                    raise MirrorError(what, status=404)
                return _text(found, "experiment", "experiment_id")
            try:
                return _text(self._call("experiments/create", {"name": name}), "experiment_id")
            except MirrorError as error:
                if error.code != "RESOURCE_ALREADY_EXISTS":  # another sender was first
                    raise
        raise MirrorError(f"the experiment {name!r} can neither be found nor created")

    def _call(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        return self._client.call("POST", f"{API}/{path}", body)


def flattened(document: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield (`optimizer.lr`, text) of every leaf of a spec that is not null; a list of plain values is one leaf."""
    if isinstance(document, Mapping):
        for key, value in document.items():
            yield from flattened(value, f"{prefix}.{key}" if prefix else str(key))
    elif isinstance(document, list) and any(isinstance(item, Mapping | list) for item in document):
        for index, item in enumerate(document):
            yield from flattened(item, f"{prefix}.{index}")
    elif document is not None and document != []:
        yield prefix, document if isinstance(document, str) else json.dumps(document)


def _text(document: Any, *path: str | int) -> str:
    """Return a member of an answer. Raises MirrorError where another server than MLflow has answered."""
    for name in path:
        try:
            document = document[name]
        except (KeyError, IndexError, TypeError):
            raise MirrorError(f"the answer has no {'.'.join(map(str, path))}: this is not an MLflow server") from None
    return str(document)


def metric_key(split: str, name: str) -> str:
    """Return the name of a metric as the API shows it, `val_accuracy`, in the characters that MLflow takes."""
    return _key(f"{split}_{name}")


def _key(name: str) -> str:
    return NOT_IN_KEYS.sub("_", name)[:MAX_KEY]


def _metric(point: MetricPoint) -> dict[str, Any]:
    value: float | str = point.value
    if not math.isfinite(point.value):
        # as protobuf's JSON writes them
        value = "NaN" if math.isnan(point.value) else "Infinity" if point.value > 0 else "-Infinity"
    key = metric_key(point.split, point.name)
    return {"key": key, "value": value, "timestamp": round(point.at * 1000), "step": point.step}


def _tags(described: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    for key, value in described.items():
        if value is not None and value != "":
            yield {"key": key[:MAX_KEY], "value": str(value)[:MAX_TAG]}


def _milliseconds(at: datetime) -> int:
    return round(at.timestamp() * 1000)

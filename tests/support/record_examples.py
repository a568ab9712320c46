"""Record the examples of the OpenAPI document from a service that really trains.

    python -m tests.support.record_examples [operationId ...]

starts redis, the API and a worker, walks through the whole API as a client does, and writes what was sent and what came
back to `service/openapi_examples/<operationId>.json`. Long lists and texts are cut short; keys, secrets and names of the
machine are replaced. Written are the examples that are missing or break their schema, and those of the operations that are
named: others stay as they are.
"""

from __future__ import annotations

import csv
import io
import json
import re
import sys
import tempfile
from base64 import b64encode
from collections.abc import Callable, Collection
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from service.database import make_engine
from service.keys.service import create_key
from service.openapi import operations
from service.openapi_examples import FOLDER
from service.sessions import session_factory
from service.users.service import Claims, GroupRoles, record
from tests.support.api_steps import example_data, wait_until
from tests.support.example_checks import example_errors, without_example
from tests.support.openapi_document import openapi_document
from tests.support.stack import Stack, running, wait_for
from tests.support.webhook_receiver import receiving

MOST_ITEMS, MOST_CHARACTERS = 3, 600
"""Of a list and of a text in an example."""
KEY = re.compile(r"tk_[A-Za-z0-9_-]+")
FILE = re.compile(r"file:///\S+/")
LOOPBACK = re.compile(r"http://127\.0\.0\.1:\d+/?")
SECRET = re.compile(r"whsec_[A-Za-z0-9+/=]+")
JSON = "application/json"
TUS = {"Tus-Resumable": "1.0.0"}
CHUNK = {"Content-Type": "application/offset+octet-stream"}
DIGITS_SPEC: dict[str, Any] = {
    "name": "digits-mlp",
    "labels": {"team": "vision"},
    "dataset": "DATASET",
    "preprocess": [{"kind": "z_score", "per": "pixel"}],
    "model": {"kind": "mlp", "hidden": [64], "activation": "relu", "dropout": 0.2},
    "optimizer": {"kind": "adam", "lr": 0.002},
    "train": {"epochs": 6, "batch_size": 64, "seed": 0},
    "early_stop": [{"kind": "patience", "monitor": "val_accuracy", "mode": "max", "patience": 3}, {"kind": "diverged"}],
}


PARTS: dict[str, Callable[[Any], Any]] = {
    "getCatalog": lambda body: {section: body[section][:1] for section in ("optimizer", "metric", "failure")},
    "getSpecSchema": lambda body: {
        **{name: body[name] for name in ("title", "type", "required", "additionalProperties")},
        "properties": {name: body["properties"][name] for name in ("name", "labels", "task")},
    },
}
"""Of large answers the parts that are shown."""


class Recorder:
    """Keeps the first request and response of each operation under each title."""

    def __init__(self) -> None:
        document = openapi_document()
        self.stale = {
            operation["operationId"]
            for _, _, operation in operations(document)
            if without_example(operation) or any(example_errors(document, operation))
        }
        self.operations = [
            (method, re.compile(re.sub(r"\\{[^}]+\\}", "[^/]+", re.escape(path)) + "$"), path, operation["operationId"])
            for path, method, operation in operations(document)
        ]
        self.files: dict[str, dict[str, Any]] = {}
        self.title = ""

    def keep(self, response: httpx.Response) -> None:
        """An event hook of httpx."""
        request = response.request
        response.read()
        if not 200 <= response.status_code < 300 or not self.title:
            return
        name = self.operation_of(request.method.lower(), request.url.path)
        file = self.files.setdefault(name, {})
        sent = request.read() if request.headers.get("content-type", "").startswith((JSON, "text/")) else b""
        if request_body := _body(request.headers, sent):
            file.setdefault("requests", {}).setdefault(request_body[0], {}).setdefault(self.title, request_body[1])
        if response_body := _body(response.headers, response.content):
            if part := PARTS.get(name):
                response_body = (response_body[0], part(response_body[1]))
            of_status = file.setdefault("responses", {}).setdefault(str(response.status_code), {})
            of_status.setdefault(response_body[0], {}).setdefault(self.title, response_body[1])

    def operation_of(self, method: str, path: str) -> str:
        """The operation that serves a request; a literal address wins over one with a parameter."""
        found = [
            (template.count("{"), name)
            for known, pattern, template, name in self.operations
            if known == method and pattern.match(path)
        ]
        assert found, f"{method} {path} is no operation"
        return str(min(found)[1])

    def write(self, named: Collection[str], folder: Path = FOLDER) -> None:
        """One file an operation: those named, and those whose examples are missing or break their schema."""
        for name, file in sorted(self.files.items()):
            path = folder / f"{name}.json"
            if file and (name in named or name in self.stale):
                path.write_text(json.dumps(file, indent=1, ensure_ascii=False) + "\n")
                print(f"wrote {path}")


def _body(headers: httpx.Headers, content: bytes) -> tuple[str, Any] | None:
    """The media type and the value of a body that can be shown; None of one that cannot, or is empty."""
    media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    if not content:
        return None
    if media_type == JSON:
        return media_type, shortened(json.loads(content))
    if media_type.startswith("text/"):
        return media_type, shortened("".join(content.decode().splitlines(keepends=True)[:6]))
    return None


def shortened(value: Any) -> Any:
    """A value with long lists and texts cut, and without secrets."""
    if isinstance(value, dict):
        return {name: shortened(item) for name, item in value.items()}
    if isinstance(value, list):
        return [shortened(item) for item in value[:MOST_ITEMS]]
    if isinstance(value, str):
        value = FILE.sub("file:///data/", value)
        value = LOOPBACK.sub("https://hooks.example.com/trainkit", value)
        value = SECRET.sub(
            "whsec_EXAMPLEexampleEXAMPLEexampleEXAMPLE=", KEY.sub("tk_EXAMPLE_exampleEXAMPLEexample", value)
        )
        return value if len(value) <= MOST_CHARACTERS else value[:MOST_CHARACTERS] + " ..."
    return value


def main() -> None:
    recorder = Recorder()
    with tempfile.TemporaryDirectory(prefix="contract-examples-") as name:
        folder = Path(name)
        data = example_data(folder)
        extra = {"TRAINKIT_WEBHOOK_ALLOW": "127.0.0.1", "TRAINKIT_FILE_ROOTS": str(data)}
        stack = Stack(folder, f"sqlite:///{folder}/trainkit.db", extra=extra)
        with running(stack), stack.client() as client, receiving() as receiver:
            client.event_hooks["response"].append(recorder.keep)
            walk(client, recorder, data, receiver.url, operator_key(stack), signed_in(stack))
    recorder.write(sys.argv[1:])
    missing = sorted({name for *_, name in recorder.operations} - set(recorder.files))
    print(f"{len(recorder.files)} operations recorded; not reached: {', '.join(missing)}")


def operator_key(stack: Stack) -> str:
    """A key of the installation's operator."""
    engine = make_engine(stack.database_url)
    with session_factory(engine).begin() as session:
        key = create_key(session, None, "operator", None, operator=True)
    engine.dispose()
    return key


def signed_in(stack: Stack) -> str:
    """The id of a person who has signed in."""
    engine, at = make_engine(stack.database_url), datetime.now(UTC)
    claims = Claims("https://login.example.org", "a1b2", "Ada Lovelace", "ada@example.org", frozenset(), at)
    person = record(session_factory(engine), claims, GroupRoles()).id
    engine.dispose()
    return person


def walk(client: httpx.Client, recorder: Recorder, data: Path, receiver: str, operator_key: str, person: str) -> None:
    """Use every operation."""

    def ask(title: str, method: str, path: str, **arguments: Any) -> Any:
        recorder.title = title
        response = client.request(method, path, **arguments)
        recorder.title = ""
        assert response.is_success, f"{method} {path}: {response.status_code} {response.text}"
        return response.json() if response.headers.get("content-type", "").startswith(JSON) else response.content

    def until(path: str, done: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        def ask_again() -> dict[str, Any] | None:
            body: dict[str, Any] = client.get(path).json()
            return body if done(body) else None

        return wait_for(ask_again, what=path)

    def ready(dataset: str) -> str:
        until(f"/v1/datasets/{dataset}", lambda body: body["state"] == "ready")
        return dataset

    def succeeded(job: str) -> dict[str, Any]:
        return wait_until(client, job, "succeeded")

    # datasets
    digits = ask("A new dataset", "PUT", "/v1/datasets?name=digits", content=(data / "digits.zip").read_bytes())["id"]
    ready(digits)
    table = {"target": "diagnosis", "name": "cancer"}
    with (data / "cancer.csv").open("rb") as file:
        cancer = ask("A table", "POST", "/v1/datasets", data=table, files={"file": file})["id"]
    ready(cancer)
    source = {"uri": (data / "cancer.csv").as_uri(), "name": "cancer-of-file", "target": "diagnosis"}
    ready(ask("A file that the workers see", "POST", "/v1/datasets", json=source)["id"])
    ask("A dataset that is ready", "GET", f"/v1/datasets/{digits}")
    ask("One page", "GET", "/v1/datasets", params={"limit": 2})
    ask("Images", "GET", f"/v1/datasets/{digits}/report")
    ask("A table", "GET", f"/v1/datasets/{cancer}/report")
    ask("A table and itself", "GET", f"/v1/datasets/{cancer}/drift", params={"against": cancer})
    reread = ask("Another decimal mark", "POST", f"/v1/datasets/{cancer}:reread", json={"decimal": "."})["id"]
    ready(reread)
    client.get(f"/v1/datasets/{digits}/preview.png")
    preview = {"augment": [{"kind": "rotate", "degrees": 20}], "count": 12}
    ask("Rotated", "POST", f"/v1/datasets/{digits}/augmentation-preview.png", json=preview)

    # uploads
    content = (data / "cancer.csv").read_bytes()
    metadata = ",".join(
        f"{name} {b64encode(text.encode()).decode()}" for name, text in {**table, "name": "tus"}.items()
    )
    recorder.title = "An upload that begins"
    upload = client.post(
        "/v1/uploads", headers={**TUS, "Upload-Length": str(len(content)), "Upload-Metadata": metadata}
    ).json()["id"]
    recorder.title = ""
    client.patch(f"/v1/uploads/{upload}", content=content, headers={**TUS, **CHUNK, "Upload-Offset": "0"})
    until(f"/v1/uploads/{upload}", lambda body: body["state"] == "finished")
    ask("A finished upload", "GET", f"/v1/uploads/{upload}")
    ask("One page", "GET", "/v1/uploads", params={"limit": 2})

    # specs and a job
    spec = {**DIGITS_SPEC, "dataset": digits}
    ask("Images", "POST", "/v1/specs:validate", json=spec)
    ask("Images", "POST", "/v1/specs:init-report", json=spec)
    ask("Three fields of it", "GET", "/v1/specs/schema")
    job = ask("A network for images", "POST", "/v1/jobs", json=spec, headers={"Idempotency-Key": "digits-1"})["id"]
    done = succeeded(job)
    model = done["result"]["model"]
    ask("A job that has succeeded", "GET", f"/v1/jobs/{job}")
    table_spec = {
        "name": "cancer-table",
        "dataset": {"id": cancer, "target": "diagnosis"},
        "preprocess": [{"kind": "z_score"}],
        "model": {"kind": "mlp", "hidden": [32, 16]},
        "optimizer": {"kind": "sgd", "lr": 0.1, "momentum": 0.9},
        "train": {"epochs": 10, "batch_size": 32},
    }
    of_table = ask("A network for a table", "POST", "/v1/jobs", json=table_spec)["id"]
    table_model = succeeded(of_table)["result"]["model"]
    ask("One page", "GET", "/v1/jobs", params={"limit": 2})
    for part in ("events", "attempts", "checkpoints", "evaluation", "artifacts", "diagnosis"):
        ask("A job that has succeeded", "GET", f"/v1/jobs/{job}/{part}")
    ask("Two decisions", "GET", f"/v1/jobs/{job}/decisions", params={"limit": 2})
    rules = {"rules": [{"kind": "patience", "monitor": "val_accuracy", "mode": "max", "patience": 1}]}
    ask("Less patience", "POST", f"/v1/jobs/{job}/decisions:simulate", params={"limit": 2}, json=rules)
    ask("Two rows", "GET", f"/v1/jobs/{job}/metrics", params={"limit": 2})
    ask("One series", "GET", f"/v1/jobs/{job}/metrics/series", params={"names": "val_accuracy"})
    ask("Two jobs", "GET", "/v1/metrics/series", params={"jobs": f"{job},{of_table}", "names": "val_accuracy"})
    ask("The first lines", "GET", f"/v1/jobs/{job}/metrics.csv")
    ask("The first lines", "GET", f"/v1/jobs/{job}/logs", headers={"Accept": "text/plain"})
    ask("Two lines", "GET", f"/v1/jobs/{job}/logs", params={"format": "json", "limit": 2})

    # what becomes of jobs
    long = {**spec, "name": "long", "train": {"epochs": 2000, "checkpoint_seconds": 1}, "early_stop": []}
    running_job = client.post("/v1/jobs", json=long).json()["id"]
    until(f"/v1/jobs/{running_job}/checkpoints", lambda body: bool(body["data"]))
    ask("A smaller rate", "POST", f"/v1/jobs/{running_job}/fork", json={"patch": {"optimizer": {"lr": 0.0005}}})
    ask("A running job", "POST", f"/v1/jobs/{running_job}/pause")
    wait_until(client, running_job, "paused")
    ask("Ten epochs more", "POST", f"/v1/jobs/{running_job}/resume", json={"extra_epochs": 10})
    wait_until(client, running_job, "running")
    ask("Keep the best weights", "POST", f"/v1/jobs/{running_job}/stop", json={"keep": "best"})
    wait_until(client, running_job, "stopped")
    ask("Ten epochs more", "POST", f"/v1/jobs/{running_job}/resume", json={"extra_epochs": 10})
    again = ask("The same job again", "POST", f"/v1/jobs/{running_job}/retry")["id"]
    for other in client.get("/v1/jobs", params={"state": ["queued", "starting", "running"]}).json()["data"]:
        if other["id"] != again:
            client.post(f"/v1/jobs/{other['id']}/cancel")
    ask("A job that has begun", "POST", f"/v1/jobs/{again}/cancel")

    edit = {"name": "long, stopped", "labels": {"team": None, "stage": "draft"}, "notes": "The rate was too high."}
    ask("Another name, a label less", "PATCH", f"/v1/jobs/{running_job}", json=edit)
    ended = [running_job, again, "job_00000000000000000000000000"]
    ask("Ended jobs, and one that is not there", "POST", "/v1/jobs:stop", json={"ids": ended})
    ask("What would be cancelled", "POST", "/v1/jobs:cancel", json={"ids": ended, "dry_run": True})
    ask("One label more", "POST", "/v1/jobs:label", json={"ids": ended, "labels": {"reviewed": "yes"}})
    ask("What would be deleted", "POST", "/v1/jobs:delete", json={"ids": ended, "dry_run": True})

    # a run with something wrong, and the recommendation for it
    bad = {**table_spec, "name": "no-scaling", "preprocess": [], "optimizer": {"kind": "sgd", "lr": 1e-6}}
    sick = client.post("/v1/jobs", json=bad).json()["id"]
    succeeded(sick)
    found = ask("A rate that is too low", "GET", f"/v1/jobs/{sick}/diagnosis")
    if found["recommendations"]:
        recommended = {"from_diagnosis": {"job": sick, "index": 0}, "name": "as-recommended"}
        follower = ask("From a diagnosis", "POST", "/v1/jobs", json=recommended)["id"]
        succeeded(follower)
        ask("A recommendation that was followed", "GET", f"/v1/jobs/{follower}/recommendation")
    ask("One verdict", "GET", "/v1/diagnosis/scorecard")
    runs = ask("Sixteen runs", "POST", f"/v1/jobs/{sick}/diagnosis:investigate", json={"jobs": 16})["id"]
    succeeded(runs)
    ask("After an investigation", "GET", f"/v1/jobs/{sick}/diagnosis")

    # models
    ask("One page", "GET", "/v1/models", params={"limit": 2})
    ask("A classifier of images", "GET", f"/v1/models/{model}")
    rows = list(csv.DictReader(io.StringIO((data / "one-sample.csv").read_text())))
    inputs = [{name: float(value) for name, value in row.items()} for row in rows]
    ask("Rows of a table", "POST", f"/v1/models/{table_model}/predict", json={"inputs": inputs})
    recorder.title = ""
    csv_type = {"Content-Type": "text/csv"}
    ask(
        "A table",
        "POST",
        f"/v1/models/{table_model}/predict",
        content=(data / "one-sample.csv").read_bytes(),
        headers=csv_type,
    )
    ask("The test part", "POST", f"/v1/models/{table_model}/evaluate", json={"dataset": cancer, "part": "test"})

    ask("Labels and notes", "PATCH", f"/v1/models/{table_model}", json={"labels": {"team": "lab"}, "notes": "checked"})
    ask("Into production", "PUT", f"/v1/models/{table_model}/aliases/production")
    ask("What `production` means", "GET", "/v1/models/cancer-table/aliases")
    ask("A stable dataset", "PUT", f"/v1/datasets/{cancer}/aliases/stable")
    ask("What `stable` means", "GET", "/v1/datasets/cancer/aliases")

    # experiments
    plan = {
        "kind": "kfold",
        "name": "cancer-folds",
        "folds": 3,
        "spec": {**table_spec, "train": {"epochs": 3}},
        "variants": {"linear": {"model": {"kind": "linear", "hidden": None}}},
    }
    folds = ask("Folds", "POST", "/v1/experiments", json=plan)["id"]
    until(f"/v1/experiments/{folds}", lambda body: body["state"] in ("succeeded", "failed", "stopped"))
    other = client.post("/v1/experiments", json={**plan, "name": "wider", "variants": {}}).json()["id"]
    until(f"/v1/experiments/{other}", lambda body: body["state"] in ("succeeded", "failed", "stopped"))
    ask("One page", "GET", "/v1/experiments", params={"limit": 2})
    ask("Folds", "GET", f"/v1/experiments/{folds}")
    ask("Folds", "GET", f"/v1/experiments/{folds}/results")
    note = "The linear model may be enough here: compare it on ten folds."
    ask("A thought", "POST", f"/v1/experiments/{folds}/notes", json={"text": note})
    ask("A thought", "POST", f"/v1/groups/{folds}/notes", json={"text": note})
    ask("Folds", "GET", f"/v1/experiments/{folds}/history", params={"limit": 3})
    ask("Jobs of a group", "GET", f"/v1/groups/{folds}/history", params={"limit": 3})
    markdown = {"limit": 3, "format": "markdown"}
    ask("As a text to read", "GET", f"/v1/experiments/{folds}/history", params=markdown)
    ask("As a text to read", "GET", f"/v1/groups/{folds}/history", params=markdown)
    ask("Two experiments on the same folds", "GET", f"/v1/experiments/{folds}/comparison", params={"with": other})
    of_folds = client.get("/v1/jobs", params={"group": folds, "fields": "id"}).json()["data"]
    compared = {"jobs": ",".join(sorted(row["id"] for row in of_folds)), "metric": "val_accuracy"}
    ask("Two specs on the same folds", "GET", "/v1/metrics/comparison", params=compared)
    third = client.post(
        "/v1/experiments", json={**plan, "name": "stopped", "spec": {**table_spec, "train": {"epochs": 500}}}
    )
    ask("End its jobs gracefully", "POST", f"/v1/experiments/{third.json()['id']}/stop", json={"running": "stop"})

    # webhooks
    body = {
        "url": receiver,
        "events": ["job.succeeded", "job.failed"],
        "thresholds": [{"metric": "val_accuracy", "above": 0.95}],
        "labels": {"team": "vision"},
    }
    webhook = ask("Ends of a team's jobs", "POST", "/v1/webhooks", json=body)["id"]
    ask("A webhook", "GET", f"/v1/webhooks/{webhook}")
    ask("One page", "GET", "/v1/webhooks")
    ask("Another description", "PATCH", f"/v1/webhooks/{webhook}", json={"description": "the team's chat"})
    ask("An hour of both secrets", "POST", f"/v1/webhooks/{webhook}/rotate", json={"overlap_seconds": 3600})
    delivery = ask("A test message", "POST", f"/v1/webhooks/{webhook}/test")["id"]
    path = f"/v1/webhooks/{webhook}/deliveries"
    until(f"{path}/{delivery}", lambda body: body["state"] == "delivered")
    ask("One page", "GET", path)
    ask("A delivered message", "GET", f"{path}/{delivery}")
    ask("Sent again", "POST", f"{path}/{delivery}/redeliver")

    # mirrors
    body = {"kind": "mlflow", "url": receiver, "experiment": "digits", "token": "a-token-of-the-server"}
    mirror = ask("To an MLflow server", "POST", "/v1/mirrors", json=body)["id"]
    ask("A mirror", "GET", f"/v1/mirrors/{mirror}")
    ask("One page", "GET", "/v1/mirrors")
    ask("Without files", "PATCH", f"/v1/mirrors/{mirror}", json={"artifacts": False})
    ask("What is enqueued", "POST", f"/v1/mirrors/{mirror}/backfill", json={"jobs": [job]})
    ask("One page", "GET", f"/v1/mirrors/{mirror}/jobs")
    ask("It waits", "GET", f"/v1/mirrors/{mirror}/jobs/{job}")
    ask("It is copied again", "POST", f"/v1/mirrors/{mirror}/jobs/{job}/retry")

    # the rest
    ask("One kind of three sections", "GET", "/v1/catalog")
    ask("One worker", "GET", "/v1/workers")
    ask("One host without a GPU", "GET", "/v1/info")
    ask("Keys", "GET", "/v1/keys")
    key = ask("A key that only reads", "POST", "/v1/keys", json={"name": "dashboard", "role": "viewer"})["id"]
    ask("A key", "GET", f"/v1/keys/{key}")
    ask("An hour of both keys", "POST", f"/v1/keys/{key}:rotate", json={"overlap_seconds": 3600})
    people(ask, person, operator_key)
    operator = {"Authorization": f"Bearer {operator_key}"}
    body = {"name": "speech", "settings": {"logs_days": 90}}
    ask("A project for a team", "POST", "/v1/projects", json=body, headers=operator)
    project = ask("The project", "GET", "/v1/projects")["data"][0]["id"]
    ask("The project", "GET", f"/v1/projects/{project}")
    ask("Of a quiet month", "GET", f"/v1/projects/{project}/usage")
    changes = {"settings": {"logs_days": 30}}
    ask("Keep logs for a month", "PATCH", f"/v1/projects/{project}", json=changes)
    until("/v1/audit", lambda body: bool(body["data"]))
    ask("The newest entry", "GET", "/v1/audit", params={"limit": 1})
    ask("It answers", "GET", "/healthz")
    ask("It is ready", "GET", "/readyz")


def people(ask: Callable[..., Any], person: str, operator_key: str) -> None:
    """Members, service accounts and users."""
    ask("A key that belongs to nobody", "GET", "/v1/me")
    ask("A person who has signed in", "POST", "/v1/members", json={"email": "ada@example.org", "role": "developer"})
    ask("An account for nightly runs", "POST", "/v1/service-accounts", json={"name": "nightly", "role": "developer"})
    ask("A person and a service account", "GET", "/v1/members")
    ask("A person", "GET", f"/v1/members/{person}")
    ask("An admin", "PATCH", f"/v1/members/{person}", json={"role": "admin"})
    operator = {"Authorization": f"Bearer {operator_key}"}
    ask("Everybody", "GET", "/v1/users", headers=operator)
    ask("Disable a person", "PATCH", f"/v1/users/{person}", json={"disabled": True}, headers=operator)


if __name__ == "__main__":
    main()

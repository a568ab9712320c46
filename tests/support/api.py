"""The API in process with its database, and both sides of it: clients by HTTP, workers by function."""

from __future__ import annotations

import itertools
import json
import time
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy.orm import Session, sessionmaker

from service.context import Context
from service.datasets import intake
from service.jobs import attempts, checkpoints, leases
from service.jobs.leases import ClaimedJob
from service.keys.service import create_key
from service.logs import service as logs
from service.logs.chunks import Level, LogLine
from service.metrics import service as metrics
from service.metrics.chunks import MetricRow
from service.problem_types import PROBLEM_TYPES
from service.roles import PROJECT_ROLES, Role

FACTS: dict[str, Any] = {
    "kind": "images",
    "samples": 1000,
    "input_shape": [1, 8, 8],
    "input_dtype": "uint8",
    "classes": {"a": 500, "b": 500},
    "target_type": "class",
}


def error_of(code: str, message: str = "it went wrong", *, retryable: bool = False) -> dict[str, Any]:
    """An `error` as workers write it."""
    return {
        "code": code,
        "layer": "data",
        "message": message,
        "evidence": {},
        "retryable": retryable,
        "hint": "Try another.",
    }


def progress_of(epoch: int, **changes: Any) -> dict[str, Any]:
    """A `progress` as workers write it, at 5 % of 20 epochs of 10 steps an epoch."""
    shown = {"epoch": epoch, "epochs": 20, "step": 10 * epoch, "steps": 200, "percent": 5.0 * epoch}
    return {**shown, "eta_seconds": 1.0, "samples_per_second": 100.0, **changes}


def row(name: str, value: float, step: int = 1, split: str = "val") -> MetricRow:
    """A point of epoch `step`."""
    return MetricRow(split, name, step, step, value, time.time())


def new_key(sessions: sessionmaker[Session], project: str, *roles: Role) -> str:
    """A new key with one role in the project, the operator's, or both."""
    role = next((one for one in PROJECT_ROLES if one in roles), None)
    with sessions.begin() as session:
        return create_key(session, project if role else None, "test", role, operator="operator" in roles)


@dataclass
class Served:
    """An application, its parts, and a client with a key for everything."""

    app: FastAPI
    client: TestClient
    context: Context
    numbers: itertools.count[int] = field(default_factory=itertools.count)

    @property
    def sessions(self) -> sessionmaker[Session]:
        return self.context.sessions

    def key(self, project: str, *roles: Role) -> str:
        """A new key of that project; without roles an admin's that is the operator's as well."""
        return new_key(self.sessions, project, *(roles or ("admin", "operator")))

    def client_for(self, project: str, *roles: Role) -> TestClient:
        """A client with a new key of that project."""
        headers = {"Authorization": f"Bearer {self.key(project, *roles)}"}
        return TestClient(self.app, headers=headers, raise_server_exceptions=False)

    def ready_dataset(self, client: TestClient | None = None, name: str | None = None, **facts: Any) -> str:
        """Upload some new bytes and say that their check went well."""
        number = next(self.numbers)
        body = f"bytes {number}".encode()
        answer = (client or self.client).put(f"/v1/datasets?name={name or f'd{number}'}", content=body)
        assert answer.status_code == 201, answer.text
        with self.sessions.begin() as session:
            claimed = intake.claim(session, "tests", 30)
            assert claimed is not None
            intake.ready(session, claimed.claim, {**FACTS, **facts}, {"notes": []}, "prepared/x")
        return str(answer.json()["id"])

    def submit(self, client: TestClient | None = None, **changes: Any) -> str:
        """Submit a small job on a ready dataset; returns its id."""
        client = client or self.client
        spec = {"dataset": self.ready_dataset(client), "model": {"kind": "mlp"}, **changes}
        answer = client.post("/v1/jobs", json=spec)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    def job(self, job_id: str) -> dict[str, Any]:
        """The job as clients see it."""
        answer = self.client.get(f"/v1/jobs/{job_id}")
        assert answer.status_code == 200, answer.text
        shown: dict[str, Any] = answer.json()
        return shown

    def claim(self, owner: str = "worker-1", lease_seconds: float = 30, *, start: bool = True) -> leases.ClaimedJob:
        """A worker takes the best job and starts it."""
        with self.sessions.begin() as session:
            claimed = leases.claim(session, "train", owner, lease_seconds)
        assert claimed is not None
        if start:
            with self.sessions.begin() as session:
                attempts.start(session, claimed.claim)
        return claimed

    def append(self, claimed: leases.ClaimedJob, *rows: MetricRow) -> tuple[int, int]:
        """The worker ships rows."""
        with self.sessions.begin() as session:
            return metrics.append(session, claimed.claim, list(rows))

    def say(self, claimed: leases.ClaimedJob, *texts: str, level: Level = "info") -> tuple[int, int]:
        """The worker ships lines of the training process."""
        lines = [LogLine(time.time(), level, "training", text) for text in texts]
        with self.sessions.begin() as session:
            return logs.append(session, claimed.claim, lines)

    def finish(self, claimed: leases.ClaimedJob, stop_reason: str = "completed", **changes: Any) -> str | None:
        """The worker ends the job well; returns the model's id, None where it keeps none."""
        outcome = attempts.Finish(
            **{
                "stop_reason": stop_reason,
                "result": {"best_epoch": 1, "stopped_epoch": 2, "test": {"accuracy": 0.9, "loss": 0.1}},
                "evaluation": {"split": "test", "samples": 10, "metrics": {"accuracy": 0.9}},
                "model_kind": "mlp",
                "model_key": f"models/{claimed.job_id}/{claimed.claim.fence}",
                "model_manifest": {"format": "trainkit-model-2"},
                "model_bytes": 10,
                **changes,
            }
        )
        with self.sessions.begin() as session:
            return attempts.finish(session, claimed.claim, outcome)


def resume_elsewhere(service: Served, claimed: leases.ClaimedJob, metric_seq: int) -> leases.ClaimedJob:
    """The worker goes; another one resumes from a checkpoint that was taken at `metric_seq`."""
    with service.sessions.begin() as session:
        attempts.hand_back(session, claimed.claim, "test")
    claimed = service.claim("worker-2", start=False)
    with service.sessions.begin() as session:
        metrics.supersede_after(session, claimed.claim, metric_seq)
        attempts.start(session, claimed.claim, resumed_from_step=metric_seq)
    return claimed


def record_checkpoint(service: Served, claimed: ClaimedJob, step: int = 7) -> str:
    """A checkpoint of the claimed job, as a worker registers it."""
    key = f"checkpoints/{claimed.job_id}/{claimed.claim.fence}/{step}"
    part = service.context.storage.new_part()
    part.write_bytes(b"state at %d" % step)
    service.context.storage.adopt(part, key)
    with service.sessions.begin() as session:
        checkpoints.record(session, claimed.claim, step=step, epoch=2, storage_key=key, sha256="ab" * 32, size=11)
    return key


def post_job(service: Served, path: str, body: Any = None, **headers: str) -> Any:
    return service.client.post(f"/v1/jobs/{path}", json=body, headers=headers)


Message = tuple[str, str, Any]


def read_stream(service: Served, job: str, query: str = "", headers: dict[str, str] | None = None) -> list[Message]:
    """All messages until the stream ends: (event, id, data)."""
    answer = service.client.get(f"/v1/jobs/{job}/stream{query}", headers=headers)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/event-stream")
    messages = []
    for block in answer.text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if fields:
            messages.append((fields["event"], fields["id"], json.loads(fields["data"])))
    return messages


def assert_problem(answer: Any, status: int, code: str) -> dict[str, Any]:
    """Check the form and return the document."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    document: dict[str, Any] = answer.json()
    assert {"type", "title", "status", "code", "detail", "errors", "request_id"} <= set(document)
    assert (document["status"], document["code"]) == (status, code)
    assert document["type"] == f"/docs/errors#{code}"
    entry = next(entry for name, entry in PROBLEM_TYPES.items() if name == code)
    assert (document["title"], status in entry.statuses) == (entry.title, True), f"{status} {code}"
    assert document["request_id"] == answer.headers.get("x-request-id", document["request_id"])
    return document

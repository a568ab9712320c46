"""Experiments whose jobs' training is played by functions of their specs."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from service.experiments import scheduler
from service.jobs import attempts
from tests.support.api import Served
from trainkit.spec.failures import failure

SPEC: dict[str, Any] = {"model": {"kind": "mlp", "hidden": [8]}, "optimizer": {"kind": "adam", "lr": 0.01}}
Figures = Callable[[dict[str, Any]], dict[str, dict[str, float]] | None]


def post(service: Served, kind: str, *, status: int = 201, headers: dict[str, str] | None = None, **plan: Any) -> Any:
    if "spec" not in plan and "experiment" not in plan:
        plan["spec"] = {**SPEC, "dataset": service.ready_dataset()}
    answer = service.client.post("/v1/experiments", json={"kind": kind, **plan}, headers=headers or {})
    assert answer.status_code == status, answer.text
    return answer.json()


def get(service: Served, path: str, status: int = 200) -> Any:
    answer = service.client.get(f"/v1/experiments/{path}")
    assert answer.status_code == status, answer.text
    return answer.json()


def tick(service: Served) -> None:
    scheduler.tick(service.context)


def waiting(service: Served) -> list[dict[str, Any]]:
    found = service.client.get("/v1/jobs?state=queued&limit=200&fields=id,name,spec,group,labels").json()["data"]
    return sorted(found, key=lambda job: job["id"])


def run_one(service: Served, figures: Figures) -> dict[str, Any] | None:
    """A worker trains the job that is next; None when there is none. `figures` says None for a job that fails."""
    if not waiting(service):
        return None
    claimed = service.claim()
    spec = service.job(claimed.job_id)["spec"]
    parts = figures(spec)
    if parts is None:
        with service.sessions.begin() as session:
            attempts.fail(session, claimed.claim, failure("loss_not_finite", "it diverged", {}))
    else:
        evaluation = {"split": "test", "samples": 10, "metrics": parts.get("test", {}), "parts": parts}
        service.finish(claimed, evaluation=evaluation)
    return dict(spec)


def run_all(service: Served, figures: Figures) -> None:
    while run_one(service, figures) is not None:
        tick(service)


def by_lr(spec: dict[str, Any]) -> dict[str, dict[str, float]]:
    """As if 1e-3 were the best rate."""
    loss = abs(math.log10(spec["optimizer"]["lr"]) + 3)
    return {"val": {"loss": loss, "accuracy": 1 - loss / 10}, "test": {"loss": loss + 0.1, "accuracy": 0.9 - loss / 10}}


def by_fold(spec: dict[str, Any]) -> dict[str, dict[str, float]]:
    fold = spec["split"]["fold"]
    value = 0.8 + 0.01 * fold + (0.05 + 0.001 * (-1) ** fold if spec["model"]["hidden"] == [16] else 0.0)
    validation = {"loss": 0.98 - value, "accuracy": value + 0.02}
    return {"val": validation, "test": {"loss": 1 - value, "accuracy": value}}

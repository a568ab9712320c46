"""What the operator allows one job: refused when it is submitted, whichever way, with the place and the remedy."""

from __future__ import annotations

from typing import Any

import pytest

from service.background.dispatch import admit_waiting_jobs
from service.datasets import intake
from service.jobs.limits import GIB
from service.workers import repository as workers
from tests.support.api import FACTS, Served, assert_problem, post_job

DAY = 86400
HUGE = {"model": {"kind": "mlp", "hidden": [60_000] * 60}, "resources": {"max_seconds": 60}}
"""About 4.7 TiB."""
LARGE = {"model": {"kind": "mlp", "hidden": [30_000, 30_000]}}
"""About 18 GiB of weights, gradients and optimizer state."""
Worker = dict[str, Any]
CPU_64: Worker = {"device": "cpu", "memory_bytes": 64 * GIB, "accelerator_bytes": None}
CPU_8: Worker = {"device": "cpu", "memory_bytes": 8 * GIB, "accelerator_bytes": None}
GPU: Worker = {"device": "auto", "memory_bytes": 8 * GIB, "accelerator_bytes": 80 * GIB}

CASES: dict[str, tuple[dict[str, Any], list[Worker], dict[str, Any], set[tuple[str, str]]]] = {
    "a million epochs": ({"train": {"epochs": 1_000_000}}, [], {}, {("/train/epochs", "too_many_epochs")}),
    "as many as the operator allows": ({"train": {"epochs": 1_000_000}}, [], {"max_job_epochs": 0}, set()),
    "a month": (
        {"resources": {"max_seconds": 30 * DAY}},
        [],
        {},
        {("/resources/max_seconds", "too_many_seconds")},
    ),
    "estimated at weeks": (
        {"train": {"epochs": 50_000}, "model": {"kind": "mlp", "hidden": [10_000, 10_000]}},
        [],
        {},
        {("/train/epochs", "takes_too_long")},
    ),
    "estimated at weeks, but stopped after a day": (
        {
            "train": {"epochs": 50_000},
            "model": {"kind": "mlp", "hidden": [10_000, 10_000]},
            "resources": {"max_seconds": DAY},
        },
        [],
        {},
        set(),
    ),
    "estimated at weeks of one core, with a GPU": (
        {"train": {"epochs": 50_000}, "model": {"kind": "mlp", "hidden": [10_000, 10_000]}},
        [GPU],
        {},
        set(),
    ),
    "terabytes, and no worker is known": (HUGE, [], {}, {("/resources/max_memory_bytes", "does_not_fit")}),
    "terabytes on a GPU": (
        {**HUGE, "resources": {"device": "cuda", "max_seconds": 60}},
        [GPU],
        {},
        {("/resources/max_memory_bytes", "does_not_fit")},
    ),
    "more than the only worker has": (LARGE, [CPU_8], {}, {("/resources/max_memory_bytes", "does_not_fit")}),
    "as much as one of the workers has": (LARGE, [CPU_8, CPU_64], {}, set()),
    "as much as a GPU has": (LARGE, [GPU], {}, set()),
    "but not the host beside it": (
        {**LARGE, "resources": {"device": "cpu"}},
        [GPU],
        {},
        {("/resources/max_memory_bytes", "does_not_fit")},
    ),
    "more than the operator allows, though a worker has it": (
        LARGE,
        [CPU_64],
        {"max_job_memory_bytes": 4 * GIB},
        {("/resources/max_memory_bytes", "does_not_fit")},
    ),
}


def limit(service: Served, **settings: Any) -> None:
    for name, value in settings.items():
        object.__setattr__(service.context.settings, name, value)


def show(service: Served, *shown: Worker) -> None:
    with service.sessions.begin() as session:
        for number, worker in enumerate(shown):
            about = {"host": "h", "pid": number, "queues": ["train"], "slots": 1, "versions": {}, **worker}
            workers.record_heartbeat(session, f"h/{number}", **about)


def errors_of(answer: Any) -> set[tuple[str, str]]:
    if answer.status_code in (200, 201):
        return set()
    assert answer.status_code == 422, answer.text
    assert all(error["hint"] for error in answer.json()["errors"])
    return {(error["pointer"], error["code"]) for error in answer.json()["errors"]}


@pytest.mark.parametrize("case", CASES)
def test_a_spec_beyond_the_limits_is_refused(service: Served, case: str) -> None:
    changes, shown, settings, expected = CASES[case]
    limit(service, **settings)
    show(service, *shown)
    spec = {"dataset": service.ready_dataset(), "model": {"kind": "mlp"}, **changes}
    assert errors_of(service.client.post("/v1/specs:validate", json=spec)) == expected
    assert errors_of(service.client.post("/v1/jobs", json=spec)) == expected
    experiment = service.client.post("/v1/experiments", json={"kind": "kfold", "folds": 2, "spec": spec})
    assert {(f"/spec{pointer}", code) for pointer, code in expected} <= errors_of(experiment)
    assert (experiment.status_code == 201) == (not expected)


def test_a_job_of_a_dataset_that_is_still_checked_is_refused_when_its_size_is_known(service: Served) -> None:
    show(service, CPU_8)
    dataset = service.client.put("/v1/datasets?name=late", content=b"late bytes").json()["id"]
    early = service.client.post(
        "/v1/jobs", json={"dataset": dataset, "model": {"kind": "mlp"}, "train": {"epochs": 10**6}}
    )
    assert errors_of(early) == {("/train/epochs", "too_many_epochs")}, "what needs no facts is said at once"
    job = service.client.post("/v1/jobs", json={"dataset": dataset, **LARGE}).json()
    assert job["state"] == "validating"
    with service.sessions.begin() as session:
        claimed = intake.claim(session, "tests", 30)
        assert claimed is not None
        intake.ready(session, claimed.claim, FACTS, {"notes": []}, "prepared/x")
    admit_waiting_jobs(service.sessions, settings=service.context.settings)
    shown = service.job(job["id"])
    assert (shown["state"], shown["error"]["code"]) == ("failed", "does_not_fit")


def test_a_resume_and_a_fork_are_no_way_around(service: Served) -> None:
    limit(service, max_job_epochs=30)
    job = service.submit()
    service.client.post(f"/v1/jobs/{job}/pause")
    refused = assert_problem(post_job(service, f"{job}/resume", {"extra_epochs": 11}), 422, "invalid_spec")
    assert [(one["pointer"], one["code"]) for one in refused["errors"]] == [("/extra_epochs", "too_many_epochs")]
    assert service.job(job)["state"] == "paused"
    assert post_job(service, f"{job}/resume", {"extra_epochs": 10}).status_code == 200

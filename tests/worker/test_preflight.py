"""Jobs that cannot go on as they are: the error says what would, and a worker runs that."""

from __future__ import annotations

import itertools

import pytest

from service.jobs import repository
from service.jobs import repository as jobs_repository
from service.jobs import service as jobs
from tests.support.transactions import transact
from tests.support.worker_context import Place
from tests.support.worker_runs import meanwhile, training_process, wait_for_epochs
from worker import exit_errors, preflight
from worker.supervisor import claim_and_supervise


def test_a_job_that_the_kernel_killed_for_memory_goes_on_in_smaller_passes(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = {"epochs": 100_000, "checkpoint_seconds": 0, "batch_size": 40}
    job = place.submit(place.table(), train=train, resources={"max_attempts": 1})
    monkeypatch.setattr(exit_errors, "kernel_kills", itertools.count().__next__)

    def act() -> None:
        wait_for_epochs(place, job, 3)
        training_process(place).kill()

    with meanwhile(act):
        assert claim_and_supervise(place.context, "train")
    error = place.job(job).error or {}
    assert (place.job(job).state, error["code"]) == ("failed", "out_of_memory")
    offer = error["evidence"]["next_spec"]
    assert (offer["patch"], offer["fork"]) == ({"train": {"batch_size": 20, "gradient_accumulation_steps": 2}}, True)

    with place.context.sessions() as session:
        epoch = jobs_repository.checkpoints(session, job)[0].epoch
    patch = {"train": {**offer["patch"]["train"], "epochs": epoch + 2}}
    forked, _ = transact(place.service, jobs.fork, place.service, place.who, job, patch, None)
    assert claim_and_supervise(place.context, "train")
    row = place.job(forked.id)
    assert (row.state, row.error) == ("succeeded", None)
    with place.context.sessions() as session:
        (attempt,) = repository.attempts(session, forked.id)
    assert attempt.resumed_from_step == (forked.parent or {})["step"]


def test_a_job_that_diverges_at_once_fails_with_step_and_layer_and_is_not_tried_again(place: Place) -> None:
    job = place.submit(
        place.table(),
        model={"kind": "mlp", "hidden": [8], "activation": "linear"},
        optimizer={"kind": "sgd", "lr": 1000.0},
        loss={"kind": "mse"},
        train={"epochs": 50, "batch_size": 8},
    )
    assert claim_and_supervise(place.context, "train")
    row = place.job(job)
    error = row.error or {}
    assert (row.state, row.attempts, error["code"], error["retryable"]) == ("failed", 1, "loss_not_finite", False)
    assert error["evidence"]["layer"] == "head.output"
    assert f"at step {error['evidence']['step']}" in error["message"]
    with place.context.sessions() as session:
        stop = next(d for d in repository.decisions_after(session, job, 0, 1000) if d.action == "stop")
    assert "head.output" in stop.reason


@pytest.mark.parametrize(
    ("requested", "limit", "expected"), [(None, 0, None), (None, 9, 9), (5, 9, 5), (12, 9, 9), (5, 0, 5)]
)
def test_the_service_s_limit_of_seconds_holds_while_the_job_runs(
    requested: float | None, limit: float, expected: float | None
) -> None:
    spec = {"resources": {"device": "cpu", "max_seconds": requested}}
    assert preflight.with_time_limit(spec, limit) == {"resources": {"device": "cpu", "max_seconds": expected}}

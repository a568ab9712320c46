"""An experiment of a thousand jobs holds nobody up: jobs come as slots come free, in short transactions."""

from __future__ import annotations

from typing import Any

import pytest

from service.experiments import scheduler
from service.workers import repository as workers
from tests.support.api import Served
from tests.support.simulated_training import SPEC, by_fold, get, post, run_one, tick, waiting
from tests.support.write_locks import write_transactions

LONGEST_SECONDS = 1.0
"""Ten times of what is promised: a transaction that makes all jobs takes more than ten seconds."""


def thousand(service: Served, **changes: Any) -> Any:
    return post(service, "kfold", folds=100, repeats=10, parallel=1000, **changes)


def show_worker(service: Served, slots: int) -> None:
    about = {"host": "h", "pid": 1, "queues": ["train"], "device": "cpu", "versions": {}}
    with service.sessions.begin() as session:
        workers.record_heartbeat(session, "h/1", slots=slots, **about)


def test_jobs_are_made_as_slots_come_free_and_others_wait_for_milliseconds(service: Served) -> None:
    with write_transactions(service.context.engine) as seconds:
        experiment = thousand(service)
        assert experiment["jobs"] == {"queued": scheduler.LEAST_UNDER_WAY}
        tick(service)
        assert len(waiting(service)) == scheduler.LEAST_UNDER_WAY, "a tick adds none while none has ended"
        for _ in range(3):
            run_one(service, by_fold)
            tick(service)
            assert len(waiting(service)) == scheduler.LEAST_UNDER_WAY
        show_worker(service, slots=8)
        run_one(service, by_fold)
        tick(service)
        assert len(waiting(service)) == 16, "twice the slots of the workers"
        rows = get(service, f"{experiment['id']}/results")["data"]
        assert [row["number"] for row in rows] == list(range(20))
        assert [row["params"] for row in rows] == [{"fold": number, "repeat": 0} for number in range(20)]
        stopped = service.client.post(f"/v1/experiments/{experiment['id']}/stop")
        assert stopped.json()["state"] == "stopped"
        assert waiting(service) == []
    assert max(seconds) < LONGEST_SECONDS


def test_a_stop_of_many_jobs_is_a_sequence_of_short_transactions(
    service: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler, "LEAST_UNDER_WAY", 60)
    experiment = thousand(service, spec={**SPEC, "dataset": service.ready_dataset()})
    while len(waiting(service)) < 60:
        tick(service)
    with write_transactions(service.context.engine) as seconds:
        service.client.post(f"/v1/experiments/{experiment['id']}/stop")
        while get(service, experiment["id"])["state"] != "stopped":
            tick(service)
    assert len(seconds) > 4
    assert max(seconds) < LONGEST_SECONDS
    assert get(service, experiment["id"])["jobs"] == {"cancelled": 60}


@pytest.mark.postgresql
def test_a_planner_that_dies_between_two_transactions_is_replaced_without_a_trace(
    service: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever it dies: the trials that are there are the first ones of the plan, each with its job, each once."""

    class Killed(BaseException):
        pass

    spec = {**SPEC, "dataset": service.ready_dataset()}
    with monkeypatch.context() as patched:
        patched.setattr("service.database.SHORT_SECONDS", -1.0)  # one trial to a transaction
        deaths = iter([0, 1, 2, 0, 3])
        left = [next(deaths)]

        def die(name: str) -> None:
            if name == "experiment_after_trial":
                if left[0] == 0:
                    raise Killed
                left[0] -= 1

        patched.setattr(scheduler, "fp", die)
        died = service.client.post("/v1/experiments", json={"kind": "kfold", "folds": 7, "spec": spec})
        assert died.status_code == 500
        (listed,) = service.client.get("/v1/experiments").json()["data"]
        for left[0] in deaths:
            with pytest.raises(Killed):
                tick(service)
    tick(service)
    rows = get(service, f"{listed['id']}/results")["data"]
    assert [(row["number"], row["params"]) for row in rows] == [(n, {"fold": n}) for n in range(7)]
    assert sorted(row["job"] for row in rows) == [job["id"] for job in waiting(service)]


@pytest.mark.postgresql
def test_two_planners_that_meet_make_each_trial_once(service: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = post(service, "random", space={"/train/seed": list(range(9))}, trials=6, parallel=6)
    plan = scheduler._plan

    def overtaken(*arguments: Any, **options: Any) -> Any:
        step = plan(*arguments, **options)
        with monkeypatch.context() as patched:
            patched.setattr(scheduler, "_plan", plan)
            scheduler.advance(service.context, experiment["id"])
        return step

    monkeypatch.setattr(scheduler, "_plan", overtaken)
    scheduler.advance(service.context, experiment["id"])
    rows = get(service, f"{experiment['id']}/results")["data"]
    assert [row["number"] for row in rows] == list(range(6))
    assert len(waiting(service)) == 6


def test_experiments_of_projects_take_turns(service: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """A project with many experiments does not put off another's first one."""
    monkeypatch.setattr("service.experiments.service.FIRST_SECONDS", -1.0)
    ids = [post(service, "kfold", folds=2)["id"] for _ in range(6)]
    other = service.client_for("other")
    plan = {"kind": "kfold", "folds": 2, "spec": {**SPEC, "dataset": service.ready_dataset(other)}}
    stranger = other.post("/v1/experiments", json=plan).json()["id"]
    moved: list[str] = []
    monkeypatch.setattr(scheduler, "advance", lambda _context, experiment: moved.append(experiment))
    tick(service)
    assert stranger in moved[:2]
    assert sorted(moved) == sorted([*ids, stranger])

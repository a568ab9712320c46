"""Real jobs of one experiment: the worst of them is stopped by its rule, keeps its best, and replays to what was decided."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from sqlalchemy import update

from service.background.lease_expiry import expire_leases
from service.database import db_now
from service.jobs import repository
from service.jobs.states import WITH_WORKER
from service.jobs.tables import Job
from service.models.tables import Model
from tests.support.worker_context import Place
from tests.support.worker_runs import meanwhile, replayed, run_one, training_process, wait_for_epochs
from worker import processes
from worker.context import make_context
from worker.supervisor import claim_and_supervise

RULES: list[dict[str, Any]] = [
    {"kind": "patience", "patience": 100_000},
    {"kind": "median", "monitor": "val_loss", "min_jobs": 3, "start_epoch": 1},
    {"kind": "percentile", "monitor": "val_accuracy", "percentile": 100, "min_jobs": 9},
]
HOPELESS: dict[str, Any] = {
    "group": "rates",
    "optimizer": {"kind": "sgd", "lr": 1e-7},
    "train": {"epochs": 100_000, "checkpoint_seconds": 0, "seed": 1},
    "resources": {"max_seconds": 200},
    "early_stop": RULES,
}


def three_good_ones(place: Place, dataset: str, epochs: int = 4) -> list[str]:
    jobs = []
    for rate in (0.02, 0.03, 0.04):
        spec = {"optimizer": {"kind": "adam", "lr": rate}, "train": {"epochs": epochs, "seed": 1}, "early_stop": RULES}
        jobs.append(place.submit(dataset, group="rates", resources={"priority": 9}, **spec))
        assert run_one(place)
    return jobs


def ends_by_the_rule(place: Place, job: str) -> None:
    row = place.job(job)
    assert (row.state, row.stop_reason, row.requested_action) == ("succeeded", "early_stop", None)
    assert row.result is not None
    assert row.result["best_epoch"] <= row.result["stopped_epoch"] < 100_000
    with place.context.sessions() as session:
        model = session.get_one(Model, row.result["model"])
        events = repository.events_after(session, job, 0, 1000)
        decisions = repository.decisions_after(session, job, 0, 10**6)
    assert (place.context.storage.local_path(model.storage_key) / "model.safetensors").exists()
    (stop,) = [event for event in events if event.actor == "rule"]
    assert stop.to_state == "stopping"
    assert str(stop.reason).startswith("median: the best val_loss so far, ")
    assert [decision.seq for decision in decisions] == list(range(1, row.next_decision_seq))
    assert {d.rule["kind"] for d in decisions} == {"patience", "median", "percentile"}, "the client did not stop it"
    assert sum(d.rule["kind"] != "patience" for d in decisions) == row.peer_decisions


def test_the_fourth_is_stopped_by_what_the_others_reached(place: Place) -> None:
    dataset = place.table()
    peers = three_good_ones(place, dataset)
    job = place.submit(dataset, **HOPELESS)
    assert run_one(place)
    ends_by_the_rule(place, job)
    found = replayed(place, job)
    assert found.matches_recorded is True
    assert found.stop is not None
    assert (found.stop.rule["kind"], found.stop.epoch) == ("median", 2)
    decisions = [decision for decision in found.decisions if decision.rule["kind"] == "median"]
    assert [one["job"] for one in decisions[1].inputs["compared"]] == sorted(peers)
    for peer in peers:
        assert place.job(peer).stop_reason == "completed"
        assert replayed(place, peer).matches_recorded is True


def test_a_training_process_that_was_killed_is_stopped_when_it_goes_on(place: Place) -> None:
    dataset = place.table()
    late = [{**rule, "start_epoch": 150} if rule["kind"] == "median" else rule for rule in RULES]
    job = place.submit(dataset, **{**HOPELESS, "early_stop": late})

    def act() -> None:
        wait_for_epochs(place, job, 3)
        training_process(place).kill()

    with meanwhile(act):
        run_one(place)
    assert replayed(place, job).matches_recorded is True
    three_good_ones(place, dataset, epochs=200)  # while it waits
    place.make_due(job)
    assert run_one(place)
    ends_by_the_rule(place, job)
    found = replayed(place, job)
    assert (found.matches_recorded, found.stop and found.stop.rule["kind"]) == (True, "median")
    assert len(place.attempts(job)) == 2


def test_a_killed_supervisor_leaves_the_command_to_stop(place: Place, tmp_path: Path) -> None:
    dataset = place.table()
    three_good_ones(place, dataset)
    first = [{**rule, "start_epoch": 0} if rule["kind"] == "median" else rule for rule in RULES]
    job = place.submit(dataset, **{**HOPELESS, "early_stop": first})
    settings = place.context.settings
    place.context.engine.dispose()

    def work() -> None:
        # killed behind the commit that holds the first evaluations, and so the rule's stop
        os.environ["TRAINKIT_FAILPOINTS"] = f"before_checkpoint_row=kill@{tmp_path / 'killed'}"
        claim_and_supervise(make_context(settings), "train")

    worker = processes.fork(work, log=tmp_path / "worker.log")
    assert worker.wait().signal == signal.SIGKILL, (tmp_path / "worker.log").read_text()
    row = place.job(job)
    assert (row.state, (row.requested_action or {})["stop_reason"]) == ("stopping", "early_stop")
    with place.context.sessions.begin() as session:
        lost = update(Job).where(Job.state.in_(WITH_WORKER)).values(lease_expires_at=db_now(plus=-1))
        session.execute(lost)
    expire_leases(place.context.sessions, 20)
    assert claim_and_supervise(place.context, "train")
    ends_by_the_rule(place, job)
    assert replayed(place, job).matches_recorded is True
    assert [attempt.outcome for attempt in place.attempts(job)] == ["lost", "succeeded"]

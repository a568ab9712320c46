"""Early-stop decisions of real attempts, replayed from the database: all of them the same, a killed attempt included."""

from __future__ import annotations

from typing import Any

from service.jobs import service as jobs
from tests.support.transactions import transact
from tests.support.worker_context import Place
from tests.support.worker_runs import meanwhile, replayed, run_one, training_process, wait_for_epochs

RULES: list[dict[str, Any]] = [
    {"kind": "patience", "monitor": "val_accuracy", "patience": 500},
    {"kind": "noise_patience", "patience": 500, "standard_errors": 0.5},
    {"kind": "target", "monitor": "val_loss", "value": 1e-9},
    {"kind": "diverged", "factor": 1000},
    {"kind": "time_budget", "seconds": 3000},
    {"kind": "no_progress", "evaluations": 4, "min_delta": 1e-12},
    {"kind": "stalled", "evaluations": 500},
    {"kind": "gap", "patience": 500, "min_growth": 0.1},
]


def test_a_killed_and_resumed_job_replays_to_the_decisions_it_took(place: Place) -> None:
    epochs = 150
    train = {"epochs": epochs, "checkpoint_seconds": 0, "seed": 1}
    job = place.submit(place.table(), train=train, early_stop=RULES)

    def act() -> None:
        wait_for_epochs(place, job, 3)
        training_process(place).kill()

    with meanwhile(act):
        run_one(place)
    assert replayed(place, job).matches_recorded is True
    place.make_due(job)
    assert run_one(place)
    assert place.job(job).state == "succeeded"
    found = replayed(place, job)
    assert (found.matches_recorded, found.total, found.evaluations) == (True, epochs * len(RULES), epochs)
    assert found.stop is None
    sooner = replayed(place, job, [{"kind": "time_budget", "seconds": 1e-9}])
    assert sooner.stop is not None
    assert (sooner.stop.epoch, sooner.saved.epochs) == (1, epochs - 1)
    assert sooner.saved.seconds > 0


def test_a_job_that_its_rule_or_its_client_stopped_replays_too(place: Place) -> None:
    dataset = place.table()
    patience = [{"kind": "patience", "patience": 1}, RULES[1]]
    early = place.submit(dataset, train={"epochs": 300}, early_stop=patience, preprocess=[])
    wild = {
        "preprocess": [],
        "train": {"epochs": 50},
        "optimizer": {"kind": "sgd", "lr": 1000},
        "model": {"kind": "linear"},
    }
    diverged = place.submit(dataset, **wild, loss={"kind": "mse"}, early_stop=[{"kind": "diverged"}])
    stopped = place.submit(dataset, train={"epochs": 100_000, "checkpoint_seconds": 0}, early_stop=RULES[:2])
    assert run_one(place)
    assert run_one(place)
    assert place.job(early).stop_reason == "early_stop"

    def act() -> None:
        wait_for_epochs(place, stopped, 2)
        transact(place.service, jobs.stop, place.who, stopped, "best", None)

    with meanwhile(act):
        run_one(place)
    assert place.job(stopped).state == "stopped"
    for job, reason in ((early, "early_stop"), (diverged, "diverged"), (stopped, None)):
        found = replayed(place, job)
        assert found.matches_recorded is True, job
        assert (found.stop and found.stop.stop_reason) == reason
        assert found.total

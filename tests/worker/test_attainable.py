"""What references attain is measured once for a dataset and split, after the run, and never at its expense."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import pytest

import trainkit.fit.attainable as references  # before the forks, as a worker does
import trainkit.fit.loop.fit  # noqa: F401
from service.datasets import attainable as kept_attainable
from service.datasets import repository as datasets
from service.diagnosis.service import record_of
from service.jobs import service as jobs
from service.jobs.tables import Job
from tests.support.transactions import transact
from tests.support.worker_context import Place
from tests.support.worker_runs import epochs_seen, meanwhile, run_one, texts
from trainkit.diagnose.attainable import Attainable, attainable_key
from trainkit.spec import JobSpec
from worker.training_process import is_measured

TRAIN = {"epochs": 2, "seed": 1}


def report_of(place: Place, dataset: str) -> dict[str, Any]:
    with place.context.sessions() as session:
        return datasets.by_id(session, dataset).report or {}


def attainable_of(place: Place, job: str) -> Attainable | None:
    """What the job's diagnosis is computed from."""
    with place.context.sessions() as session:
        return record_of(session, session.get_one(Job, job)).attainable


@pytest.mark.postgresql
def test_it_is_measured_once_and_changes_nothing_of_a_run(place: Place) -> None:
    dataset = place.table()
    first, second = (place.submit(dataset, train=TRAIN, name=name) for name in ("first", "second"))
    other = place.submit(dataset, train=TRAIN, split={"seed": 7})
    assert run_one(place)
    evaluation = place.job(first).evaluation
    assert evaluation is not None
    found = Attainable.from_dict(evaluation["attainable"])
    assert (found.metric, found.samples, found.train_samples) == ("accuracy", 12, 96)
    assert found.low <= found.value <= found.high
    assert found.key == attainable_key(JobSpec.model_validate(place.job(first).resolved))
    assert report_of(place, dataset)["attainable"] == [found.as_dict()]
    assert any(line.startswith("attainable on the validation part: accuracy") for line in texts(place, first))
    # the second has it from its start
    assert attainable_of(place, second) == found
    assert attainable_of(place, other) is None
    assert run_one(place)
    assert place.job(second).evaluation == evaluation
    assert not any(line.startswith("attainable") for line in texts(place, second))
    assert epochs_seen(place, second) == epochs_seen(place, first)
    assert run_one(place)
    assert attainable_of(place, other) not in (None, found)
    assert len(report_of(place, dataset)["attainable"]) == 2


def test_a_death_while_references_are_fitted_leaves_the_job_succeeded(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = place.table()
    job = place.submit(dataset, train=TRAIN)
    monkeypatch.setattr(references, "attainable", lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL))
    assert run_one(place)
    row = place.job(job)
    assert (row.state, row.stop_reason, row.interruptions, len(place.attempts(job))) == ("succeeded", "completed", 0, 1)
    assert row.result is not None
    assert row.result["model"] is not None
    assert row.evaluation is not None
    assert "attainable" not in row.evaluation
    assert "attainable" not in report_of(place, dataset)
    assert not run_one(place)


def test_an_error_in_it_is_no_error_of_the_job(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise MemoryError

    job = place.submit(place.table(), train=TRAIN)
    monkeypatch.setattr(references, "attainable", fail)
    assert run_one(place)
    assert (place.job(job).state, place.job(job).error) == ("succeeded", None)


@pytest.mark.parametrize(("action", "state"), [("pause", "succeeded"), ("stop", "succeeded"), ("cancel", "cancelled")])
def test_commands_are_obeyed_while_references_are_fitted(
    place: Place, monkeypatch: pytest.MonkeyPatch, action: str, state: str
) -> None:
    def wait_for_command(*_: Any, control: Any, **__: Any) -> None:
        while control.command() is None:
            time.sleep(0.02)

    job = place.submit(place.table(), train=TRAIN)
    monkeypatch.setattr(references, "attainable", wait_for_command)

    def act() -> None:
        deadline = time.monotonic() + 60
        while place.job(job).phase != "fitting references":
            assert time.monotonic() < deadline
            time.sleep(0.02)
        if action == "stop":
            transact(place.service, jobs.stop, place.who, job, "best", None)
        else:
            transact(place.service, getattr(jobs, action), place.who, job)

    with meanwhile(act):
        assert run_one(place)
    assert place.job(job).state == state
    assert (place.job(job).result is not None) == (state == "succeeded")


def entry(key: str, **fields: Any) -> dict[str, Any]:
    return {**Attainable("r2", 0.5, 0.4, 0.6, "constant", (), 9, 9, 1.0, 1.0, 2.0, True, key).as_dict(), **fields}


@pytest.mark.postgresql
def test_entries_of_a_dataset_are_kept_by_key(place: Place) -> None:
    dataset = place.table()

    def keep(found: dict[str, Any]) -> None:
        with place.context.sessions.begin() as session:
            kept_attainable.keep(session, dataset, found)

    keep(entry("a", complete=False, value=0.1))
    keep(entry("b"))
    keep(entry("a", value=0.2))
    keep(entry("a", value=0.3))  # of another job that measured at the same time
    report = report_of(place, dataset)
    assert [(one["key"], one["value"]) for one in report["attainable"]] == [("b", 0.5), ("a", 0.2)]
    assert report["findings"] is not None
    assert kept_attainable.kept(report, "c") is None
    for number in range(kept_attainable.MOST_KEPT):
        keep(entry(str(number)))
    assert report_of(place, dataset)["attainable"][0]["key"] == "0"
    with place.context.sessions.begin() as session:
        kept_attainable.keep(session, "ds_gone", entry("a"))


def test_what_was_cut_short_is_measured_again_by_a_longer_run() -> None:
    assert not is_measured(None, 1000.0)
    assert is_measured(entry("a"), 1000.0)
    cut = entry("a", complete=False, limit_seconds=2.0)
    assert is_measured(cut, 7.0)
    assert not is_measured(cut, 8.0)

"""Investigations as real processes: what they find, and that a kill, a stop and a pause lose nothing."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import pytest

from service.deletion.service import delete_job
from service.diagnosis.combined import combine, read_source
from service.diagnosis.investigation import investigations_of, submit
from service.jobs import repository
from service.jobs import service as jobs
from service.jobs.tables import Job
from tests.support.logged_rows import logged_rows
from tests.support.planted_tables import UNSCALED, wine
from tests.support.transactions import transact
from tests.support.worker_context import Place
from tests.support.worker_runs import meanwhile, run_one, texts, training_process
from worker import exit_errors, intake


def bad_run(place: Place, **changes: Any) -> str:
    """A run on unscaled inputs that has ended."""
    dataset = place.upload(wine(), "wine", "wine.csv", "target")
    while intake.claim_and_check(place.context):
        pass
    job = place.submit(dataset, **{**UNSCALED, **changes})
    assert run_one(place)
    assert place.job(job).state in ("succeeded", "stopped"), place.job(job).error
    return job


def investigate(place: Place, job: str, runs: int = 6) -> str:
    return submit(place.service, place.who, job, None, runs, None)[0].id


def findings(place: Place, investigation: str) -> dict[str, Any]:
    ended = place.job(investigation)
    assert ended.state == "succeeded", (ended.error, texts(place, investigation)[-5:])
    found: dict[str, Any] = (ended.evaluation or {})["findings"]
    return found


def variants_ended(place: Place, job: str) -> int:
    return int((place.job(job).progress or {}).get("step", 0))


def wait_for_variants(place: Place, job: str, count: int) -> None:
    deadline = time.monotonic() + 120
    while variants_ended(place, job) < count:
        assert time.monotonic() < deadline, texts(place, job)[-5:]
        time.sleep(0.02)


def comparable(found: dict[str, Any]) -> dict[str, Any]:
    """What was found, without what differs from one run to the next: where weights lie."""
    recommended = [{**one, "measured": {**one["measured"], "artifact": None}} for one in found["recommendations"]]
    return {
        **{name: found[name] for name in ("verdicts", "tried", "suspects", "refuted")},
        "recommendations": recommended,
    }


def test_a_planted_fault_is_found_and_its_weights_are_kept(place: Place) -> None:
    job = bad_run(place)
    investigation = investigate(place, job)
    assert run_one(place)
    found = findings(place, investigation)
    assert found["verdicts"][0]["code"] == "unscaled_inputs"
    with place.context.sessions() as session:
        shown = combine(read_source(session, session.get_one(Job, job)))
        rows = logged_rows(session, investigation)
        names = {artifact.name for artifact in repository.artifacts(session, investigation)}
        events = repository.events_after(session, investigation, 0, 1000)
    first = shown["recommendations"][0]
    assert first["patch"] == {"preprocess": [{"kind": "z_score"}]}
    assert first["measured"]["low"] > 0
    assert "artifact" not in found["recommendations"][0]["measured"]
    variant = first["measured"]["variant"]
    assert {row.row.split for row in rows} == {"variant"}
    assert {f"{variant}.val_loss", "base.val_loss"} <= {row.row.name for row in rows}
    assert place.job(investigation).metrics_best == {}
    states: dict[str, list[str]] = {}
    for event in events:
        if event.kind == "variant":
            states.setdefault((event.data or {})["name"], []).append((event.data or {})["state"])
    assert list(states.values()) == [["running", "succeeded"]] * 6
    numbers = [(event.data or {})["number"] for event in events if event.kind == "variant"]
    assert sorted(numbers) == sorted([1, 2, 3, 4, 5, 6] * 2)
    progress = place.job(investigation).progress
    assert progress is not None
    assert (progress["step"], progress["steps"], progress["percent"]) == (6, 6, 100.0)
    # charged as every job
    assert (place.job(investigation).runtime or {})["device"] == "cpu"

    # the weights of the repaired run: a job that goes on from them is as good at its first step
    assert f"variant-{variant}.safetensors" in names
    start = first["measured"]["start_from"]
    begun = {**first["spec"], "start_from": start, "optimizer": {"kind": "sgd", "lr": 1e-9}, "train": {"epochs": 1}}
    further = transact(place.service, jobs.create, place.service, place.who, begun, None)[0].id
    assert run_one(place)
    ended = place.job(further)
    assert ended.state == "succeeded", ended.error
    assert ended.metrics_best["val_loss"] == pytest.approx(first["measured"]["after"], rel=1e-3)


def test_a_kill_and_a_pause_give_the_same_findings(place: Place) -> None:
    job = bad_run(place)
    whole = investigate(place, job)
    assert run_one(place)
    killed = submit(place.service, place.who, job, None, 6, "killed")[0].id

    def kill() -> None:
        wait_for_variants(place, killed, 2)
        training_process(place).kill()

    with meanwhile(kill):
        assert run_one(place)
    assert place.job(killed).state == "queued"
    place.make_due(killed)
    assert run_one(place)
    assert comparable(findings(place, killed)) == comparable(findings(place, whole))
    assert [attempt.outcome for attempt in place.attempts(killed)] == ["lost", "succeeded"]
    # variants that are trained as one are kept together: a kill in their midst leaves the base
    assert (place.attempts(killed)[1].resumed_from_step or 0) >= 1

    paused = submit(place.service, place.who, job, None, 6, "paused")[0].id

    def pause() -> None:
        wait_for_variants(place, paused, 1)
        transact(place.service, jobs.pause, place.who, paused)

    with meanwhile(pause):
        assert run_one(place)
    assert place.job(paused).state == "paused", place.job(paused).error
    transact(place.service, jobs.resume, place.service, place.who, paused)
    assert run_one(place)
    assert comparable(findings(place, paused)) == comparable(findings(place, whole))


def test_a_variant_that_runs_out_of_memory_is_a_result(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel kills the process; its next attempt does not train that variant again, and goes on with the others.

    Where several trained as one the next attempt trains them one by one, so that the one that needs too much is found.
    """
    kills = [0]
    monkeypatch.setattr(exit_errors, "kernel_kills", lambda: kills[0])
    job = bad_run(place, train={**UNSCALED["train"], "epochs": 200})
    investigation = investigate(place, job)

    def kill(after: int) -> None:
        process = training_process(place)  # before it may be at its end
        wait_for_variants(place, investigation, after)
        time.sleep(0.05)  # its checkpoint follows
        kills[0] += 1
        process.kill()

    # after the base and two that train alone come three that train as one; then the first of them alone
    for after in (3, 4):
        with meanwhile(partial(kill, after)):
            assert run_one(place)
        assert (place.job(investigation).error or {})["code"] == "out_of_memory"
        assert place.attempts(investigation)[-1].outcome == "failed"
        place.make_due(investigation)
    assert run_one(place)
    assert findings(place, investigation)["verdicts"][0]["code"] == "unscaled_inputs"
    lines = [line for line in texts(place, investigation) if "variant" in line and ": failed" in line]
    assert len(lines) == 1
    assert any(f"variant {number}, " in lines[0] for number in (4, 5)), "the fifth, or the fourth before its checkpoint"
    assert "the kernel killed it" in lines[0]


def test_a_stop_concludes_with_what_is_known_and_a_cancel_with_nothing(place: Place) -> None:
    job = bad_run(place)
    stopped = investigate(place, job, 8)

    def stop() -> None:
        wait_for_variants(place, stopped, 3)
        transact(place.service, jobs.stop, place.who, stopped, "best", None)

    with meanwhile(stop):
        assert run_one(place)
    ended = place.job(stopped)
    assert (ended.state, ended.stop_reason) == ("stopped", "client_stop"), ended.error
    found = (ended.evaluation or {})["findings"]
    assert 1 <= len(found["tried"]) < 7
    resumed = transact(place.service, jobs.resume, place.service, place.who, stopped)[0].id
    assert run_one(place)
    further = findings(place, resumed)
    assert len(further["tried"]) > len(found["tried"])
    assert further["verdicts"][0]["code"] == "unscaled_inputs"
    assert (place.attempts(resumed)[0].resumed_from_step or 0) >= 3
    cancelled = investigate(place, job, 20)

    def cancel() -> None:
        wait_for_variants(place, cancelled, 1)
        transact(place.service, jobs.cancel, place.who, cancelled)

    with meanwhile(cancel):
        assert run_one(place)
    assert (place.job(cancelled).state, place.job(cancelled).evaluation) == ("cancelled", None)
    with place.context.sessions() as session:
        source = read_source(session, session.get_one(Job, job))
    assert (source.investigation or {})["job"] == resumed


def test_a_run_that_asks_for_it_is_investigated_once(place: Place) -> None:
    job = bad_run(place, diagnose={"investigate": "auto"})
    with place.context.sessions() as session:
        begun = investigations_of(session, session.get_one(Job, job)).active
        events = [one for one in repository.events_after(session, job, 0, 100) if one.kind == "diagnosis"]
    assert begun is not None
    assert 10 <= begun.spec["investigation"]["seconds"] <= 60
    assert "diagnose" not in begun.spec
    assert [one.data for one in events] == [{"investigation": begun.id}]
    transact(place.service, jobs.cancel, place.who, begun.id)
    assert not run_one(place)


def test_a_deleted_run_fails_its_investigation(place: Place) -> None:
    job = bad_run(place)
    investigation = investigate(place, job)
    transact(place.service, delete_job, place.service, place.who, job)
    assert run_one(place)
    error = place.job(investigation).error or {}
    assert (error["code"], error["evidence"]["pointer"]) == ("source_unavailable", "/investigation/job")

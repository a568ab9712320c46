"""Jobs of an experiment that are trained in one go: each ends as it would have alone, whoever dies in between."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from place import Place, make_place
from safetensors.numpy import load_file
from sqlalchemy import select, text, update
from test_log_shipper import texts
from test_supervisor import after_epochs, attempts_of, meanwhile, run_one, training_process

import trainkit.fit.run  # noqa: F401 - before the forks, as a worker does
from service import housekeeping
from service.database import db_now
from service.experiments import engine, repository
from service.experiments import service as experiments
from service.jobs import leases
from service.jobs import service as jobs
from service.jobs.states import WITH_WORKER
from service.jobs.tables import Decision, Job
from service.metrics import service as metrics
from service.models.tables import Model
from service.strays import RIDE_SECONDS, sweep_strays
from trainkit.fit.batched import run as batched
from trainkit.fit.batched.calibrate import Calibration
from trainkit.spec.metrics import is_clocked
from worker import processes
from worker.context import make_context
from worker.supervisor import claim_and_supervise

FOLDS = 3
TIGHT = {"rel": 1e-4, "abs": 1e-5}
TRAIN = {"epochs": 3, "seed": 1, "checkpoint_seconds": 0}
LONG = {**TRAIN, "epochs": 100_000}
NEVER_WORSE = [{"kind": "patience", "monitor": "val_loss", "patience": 3}]


@pytest.fixture(autouse=True)
def together_is_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever this machine is busy with."""
    monkeypatch.setattr(batched, "calibrate", lambda jobs: Calibration(2.0, 1.0, 1))


@pytest.fixture
def here(tmp_path: Path) -> Place:
    """A place on SQLite alone, for what is not about the database."""
    return make_place(f"sqlite:///{tmp_path}/here.db", tmp_path)


@pytest.fixture
def alone_is_as_fast(monkeypatch: pytest.MonkeyPatch, together_is_faster: None) -> None:
    monkeypatch.setattr(batched, "calibrate", lambda jobs: Calibration(1.0, 1.0, 1))


def kfold(place: Place, dataset: str, **fields: Any) -> list[str]:
    """The jobs of a small cross-validation, in order."""
    plan = {
        "folds": fields.pop("folds", FOLDS),
        "batch": fields.pop("batch", "auto"),
        "variants": fields.pop("variants", {}),
    }
    spec = {"dataset": dataset, "model": {"kind": "mlp", "hidden": [8]}, "train": TRAIN, **fields}
    made, _ = experiments.create(place.service, place.who, {"kind": "kfold", "spec": spec, **plan}, None)
    with place.context.sessions() as session:
        return [trial.job_id or "" for trial in repository.trials(session, made.id)]


def run_all(place: Place) -> int:
    count = 0
    while run_one(place):
        count += 1
    return count


def rows_of(place: Place, job: str) -> dict[tuple[int, str, str], float]:
    with place.context.sessions() as session:
        found = metrics.read(session, job, 0, limit=100_000)
    assert [row.seq for row in found] == list(range(1, len(found) + 1))
    live = [one.row for one in found if not one.superseded]
    told = {(row.step, row.split, row.name): row.value for row in live if not is_clocked(row.split, row.name)}
    assert len(told) == sum(not is_clocked(row.split, row.name) for row in live)
    return told


def decisions_of(place: Place, job: str) -> list[tuple[Any, ...]]:
    with place.context.sessions() as session:
        found = session.scalars(select(Decision).where(Decision.job_id == job).order_by(Decision.seq))
        return [(one.step, one.epoch, one.action, one.rule) for one in found]


def weights_of(place: Place, job: str) -> dict[str, Any]:
    with place.context.sessions() as session:
        (model,) = session.scalars(select(Model).where(Model.job_id == job)).all()
    weights: dict[str, Any] = load_file(place.context.storage.local_path(model.storage_key) / "model.safetensors")
    return weights


def assert_same(place: Place, job: str, other: str) -> None:
    """All that the two jobs have told and left, up to the rounding of float32."""
    one, two = place.job(job), place.job(other)
    assert (one.state, one.stop_reason) == (two.state, two.stop_reason) == ("succeeded", two.stop_reason)
    assert rows_of(place, job) == pytest.approx(rows_of(place, other), **TIGHT, nan_ok=True)
    assert decisions_of(place, job) == decisions_of(place, other)
    assert one.evaluation is not None
    assert two.evaluation is not None
    assert one.evaluation["confusion_matrix"] == two.evaluation["confusion_matrix"]
    for part, figures in two.evaluation["parts"].items():
        assert one.evaluation["parts"][part] == pytest.approx(figures, **TIGHT, nan_ok=True)
    mine, expected = weights_of(place, job), weights_of(place, other)
    assert mine.keys() == expected.keys()
    for name, value in expected.items():
        assert mine[name] == pytest.approx(value, rel=1e-3, abs=1e-4)


def assert_trained_alone(place: Place, job: str) -> None:
    row = place.job(job)
    assert (row.state, row.stop_reason) == ("succeeded", "completed")
    assert row.decided is not None
    assert not row.decided["batched"]
    assert sorted({epoch for step, split, epoch in epochs_of(place, job)}) == list(range(1, TRAIN["epochs"] + 1))


def epochs_of(place: Place, job: str) -> list[tuple[int, str, int]]:
    with place.context.sessions() as session:
        found = metrics.read(session, job, 0, limit=100_000)
    return [
        (r.row.step, r.row.split, r.row.epoch)
        for r in found
        if not r.superseded and (r.row.split, r.row.name) == ("val", "loss")
    ]


def packages(place: Place) -> set[str]:
    return {path.name for path in (place.context.storage.root / "rides").glob("*")}


def claimable(place: Place) -> bool:
    """Whether a worker would get a job now; it does not take it."""
    with place.context.sessions() as session:
        got = leases.claim(session, "train", "someone", 30.0)
        session.rollback()
    return got is not None


def killed_at(place: Place, tmp_path: Path, point: str) -> None:
    """A worker takes the next job and is killed at that point; its lease runs out."""
    settings = place.context.settings
    place.context.engine.dispose()

    def work() -> None:
        os.environ["TRAINKIT_FAILPOINTS"] = f"{point}=kill"
        claim_and_supervise(make_context(settings), "train")

    worker = processes.fork(work, log=tmp_path / "worker.log")
    assert worker.wait().signal == signal.SIGKILL, (tmp_path / "worker.log").read_text()
    lose_workers(place)


def lose_workers(place: Place) -> None:
    with place.context.sessions.begin() as session:
        lost = update(Job).where(Job.state.in_(WITH_WORKER)).values(lease_expires_at=db_now(plus=-1))
        session.execute(lost)
    housekeeping.tick(place.context.sessions, lambda _queue: None, max_interruptions=20)


def test_folds_that_are_trained_together_are_what_each_is_alone(place: Place) -> None:
    dataset = place.table()
    apart = kfold(place, dataset, batch="never", early_stop=NEVER_WORSE)
    assert run_all(place) == FOLDS
    together = kfold(place, dataset, early_stop=NEVER_WORSE)
    leader, *companions = together
    assert [place.job(job).batch_leader for job in together] == [None, leader, leader]
    assert run_one(place)
    assert packages(place) == set(companions)
    assert [place.job(job).state for job in companions] == ["queued", "queued"]
    assert run_all(place) == len(companions)
    for job, alone in zip(together, apart, strict=True):
        assert_same(place, job, alone)
        row, (attempt,) = place.job(job), attempts_of(place, job)
        assert row.decided is not None
        assert (row.decided["batched"], row.decided["trials"], row.decided["leader"]) == (True, FOLDS, leader)
        assert (place.job(alone).decided or {})["batched"] is False
        assert (attempt.outcome, row.attempts, row.interruptions) == ("succeeded", 0, 0)
    assert packages(place) == set()
    assert any("taking over" in line for line in texts(place, companions[0]))
    with place.context.sessions() as session:
        ids = repository.due(session)
    engine.tick(place.service)
    with place.context.sessions() as session:
        told = [trial.outcome or {} for one in ids for trial in repository.trials(session, one)]
    assert [outcome["batched"] for outcome in told] == [False] * FOLDS + [True] * FOLDS
    # one that was trained with others can go on as any other
    longer, _ = jobs.resume(place.service, place.who, companions[0], 2)
    assert run_one(place)
    assert (place.job(longer.id).state, attempts_of(place, longer.id)[0].resumed_from_step is not None) == (
        "succeeded",
        True,
    )


@pytest.mark.parametrize("point", ["after_metric_ship", "after_rides"])
def test_a_worker_that_dies_with_the_leader_costs_nothing_but_time(place: Place, tmp_path: Path, point: str) -> None:
    leader, *companions = kfold(place, place.table())
    killed_at(place, tmp_path, point)
    left = point == "after_rides"
    assert packages(place) == (set(companions) if left else set()), texts(place, leader)
    assert run_all(place) == FOLDS
    for job in (leader, *companions):
        row = place.job(job)
        assert row.state == "succeeded"
        assert [epoch for _, _, epoch in epochs_of(place, job)] == list(range(1, TRAIN["epochs"] + 1))
    assert [one.outcome for one in attempts_of(place, leader)] == ["lost", "succeeded"]
    assert [[one.outcome for one in attempts_of(place, job)] for job in companions] == [["succeeded"]] * 2
    assert [(place.job(job).decided or {})["batched"] for job in companions] == [left, left]


def test_a_training_process_that_dies_leaves_nothing_and_everyone_goes_on_alone(here: Place) -> None:
    leader, *companions = kfold(here, here.table(), train=LONG)

    def act() -> None:
        after_epochs(here, leader, 2)
        assert not claimable(here)
        training_process(here).kill()

    with meanwhile(act):
        run_one(here)
    assert packages(here) == set()
    assert {here.job(job).state for job in (leader, *companions)} == {"queued"}
    jobs.pause(here.service, here.who, leader)
    assert claimable(here)


def damaged(folder: Path) -> None:
    body = (folder / "model" / "model.safetensors").read_bytes()
    (folder / "model" / "model.safetensors").write_bytes(body[:-1] + bytes([body[-1] ^ 1]))


def cut_short(folder: Path) -> None:
    events = folder / "events.jsonl"
    events.write_bytes(events.read_bytes()[:-40])


def without_manifest(folder: Path) -> None:
    (folder / "manifest.json").unlink()


def of_other_versions(folder: Path) -> None:
    manifest = folder / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"torch": "', '"torch": "0.'))


def test_a_package_that_is_of_no_use_is_said_and_the_job_trained_anew(here: Place) -> None:
    harms: list[Callable[[Path], None]] = [damaged, cut_short, without_manifest, of_other_versions]
    _, *companions = kfold(here, here.table(), folds=1 + len(harms))
    assert run_one(here)
    assert packages(here) == set(companions), texts(here, here.job(companions[0]).batch_leader or "")
    for job, harm in zip(companions, harms, strict=True):
        harm(here.context.storage.root / "rides" / job)
    assert run_all(here) == len(companions)
    for job in companions:
        assert_trained_alone(here, job)
        assert any("of no use" in line for line in texts(here, job))


def test_a_job_that_is_given_more_epochs_while_it_waits_trains_them(here: Place) -> None:
    _, job, other = kfold(here, here.table())
    jobs.pause(here.service, here.who, job)
    jobs.resume(here.service, here.who, job, 2)
    with here.context.sessions.begin() as session:
        session.execute(update(Job).where(Job.id == other).values(state="paused"))
    assert run_all(here) == 2
    assert max(epoch for _, _, epoch in epochs_of(here, job)) == TRAIN["epochs"] + 2


def test_a_job_that_is_cancelled_or_paused_while_it_waits_is_and_its_package_goes(here: Place) -> None:
    _, stopped, paused = kfold(here, here.table())
    assert run_one(here)
    jobs.stop(here.service, here.who, stopped, "best", None)
    jobs.pause(here.service, here.who, paused)
    assert not run_one(here)
    assert (here.job(stopped).state, here.job(paused).state) == ("cancelled", "paused")
    sweep_strays(here.context.sessions, here.context.storage, -1.0)
    assert packages(here) == {paused}
    jobs.resume(here.service, here.who, paused)
    assert run_one(here)
    assert (here.job(paused).decided or {})["batched"]
    assert packages(here) == set()


def test_what_nobody_comes_for_is_kept_for_a_day(here: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    _, *companions = kfold(here, here.table())
    assert run_one(here)
    sweep_strays(here.context.sessions, here.context.storage)
    assert packages(here) == set(companions)
    monkeypatch.setattr("service.strays.age", lambda _path: RIDE_SECONDS + 1)
    sweep_strays(here.context.sessions, here.context.storage)
    assert packages(here) == set()


def test_a_leader_that_is_stopped_keeps_its_model_and_the_others_train_alone(here: Place) -> None:
    leader, *companions = kfold(here, here.table(), train=LONG)

    def act() -> None:
        after_epochs(here, leader, 2)
        jobs.stop(here.service, here.who, leader, "best", None)

    with meanwhile(act):
        run_one(here)
    assert here.job(leader).state == "stopped"
    assert (here.job(leader).result or {})["model"]
    assert packages(here) == set()
    assert claimable(here)
    assert {here.job(job).state for job in companions} == {"queued"}


def test_where_the_loop_is_as_fast_the_leader_trains_alone_and_nobody_waits_for_it(
    here: Place, alone_is_as_fast: None
) -> None:
    leader, *companions = kfold(here, here.table(), train=LONG)

    def act() -> None:
        after_epochs(here, leader, 2)
        deadline = time.monotonic() + 60
        while not claimable(here):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert here.job(leader).state == "running"
        jobs.stop(here.service, here.who, leader, "best", None)

    with meanwhile(act):
        run_one(here)
    assert (here.job(leader).decided or {})["batched"] is False
    assert [here.job(job).batch_leader for job in companions] == [None, None]
    assert packages(here) == set()
    assert any("left to themselves" in line for line in texts(here, leader))


def test_companions_wait_for_the_first_attempt_of_their_leader_and_for_nothing_else(place: Place) -> None:
    leader, *companions = kfold(place, place.table())
    with place.context.sessions.begin() as session:
        claimed = leases.claim(session, "train", "w1", 30.0)
    assert claimed is not None
    assert claimed.job_id == leader
    assert not claimable(place)
    lose_workers(place)  # the leader is queued again: its next attempt is alone
    with place.context.sessions.begin() as session:
        session.execute(update(Job).where(Job.id == leader).values(state="paused"))
        got = leases.claim(session, "train", "w1", 30.0)
    assert got is not None
    assert (got.job_id, got.batch_leader) == (companions[0], leader)


@pytest.mark.parametrize("end", ["cancel", "pause", "delete"])
def test_a_leader_that_never_begins_frees_its_companions(here: Place, end: str) -> None:
    leader, *companions = kfold(here, here.table())
    if end == "pause":
        jobs.pause(here.service, here.who, leader)
    else:
        jobs.cancel(here.service, here.who, leader)
    if end == "delete":
        jobs.delete(here.service, here.who, leader)
    assert run_one(here)
    assert_trained_alone(here, companions[0])


def test_who_leads_whom(here: Place) -> None:
    dataset = here.table()

    def leaders(**fields: Any) -> list[int | None]:
        """Number of each job's leader."""
        made = kfold(here, dataset, **fields)
        found = [here.job(job).batch_leader for job in made]
        return [None if leader is None else made.index(leader) for leader in found]

    assert leaders() == [None, 0, 0]
    assert leaders(batch="never") == [None] * FOLDS
    assert leaders(resources={"max_seconds": 60}) == [None] * FOLDS
    assert leaders(early_stop=[{"kind": "time_budget", "seconds": 5}]) == [None] * FOLDS
    assert leaders(early_stop=[{"kind": "median", "monitor": "val_loss"}]) == [None] * FOLDS
    assert leaders(optimizer={"kind": "muon"}) == [None] * FOLDS
    wide = {"wide": {"model": {"hidden": [16]}}}
    assert leaders(variants=wide) == [None, None, 0, 1, 0, 1]


def test_the_claim_asks_for_the_leader_by_its_key(here: Place) -> None:
    statement = select(Job.id).where(Job.state == "queued", ~leases._led())
    with here.context.engine.connect() as connection:
        compiled = statement.compile(here.context.engine, compile_kwargs={"literal_binds": True})
        said = [row[3] for row in connection.execute(text(f"EXPLAIN QUERY PLAN {compiled}"))]
    assert any("jobs_1 USING" in line and "(id=?)" in line for line in said), said

"""Faults between attempts: checkpoints that are torn, of another version or another spec; leases that are lost."""

from __future__ import annotations

import errno
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file
from sqlalchemy import update
from sqlalchemy.exc import OperationalError

from service.background.lease_expiry import expire_leases
from service.jobs import attempts, leases
from service.jobs import repository as jobs_repository
from service.jobs import service as jobs
from service.jobs.tables import Checkpoint, Job
from service.leases import Claim
from service.logs import service as logs
from tests.support.fault_table import Scene, add, fault
from tests.support.transactions import transact
from trainkit.fit import checkpoint as files
from worker.attempt_outcome import OutcomeWriter
from worker.control import ControlReceiver
from worker.preflight import sha256_of
from worker.sink import Sink

EPOCHS = 4


def stored(scene: Scene) -> list[Checkpoint]:
    with scene.place.context.sessions() as session:
        return jobs_repository.checkpoints(session, scene.job)


def interrupted_after_two_checkpoints(scene: Scene) -> list[Path]:
    """The files of a job's checkpoints, newest first; the job waits for its second attempt."""
    train = {"epochs": EPOCHS, "checkpoint_seconds": 0, "seed": 1, "threads": 1, "batch_size": 24}
    scene.submit(train=train, resources={"max_attempts": 2})
    command, calls, store = ControlReceiver.command, 0, Sink._store_checkpoint

    def store_and_tell(sink: Sink, event: dict[str, Any], aside: Any) -> None:
        store(sink, event, aside)
        (scene.folder / f"stored {event['step']}").touch()

    def wait_for(step: int) -> None:
        until = time.monotonic() + 60
        while not (scene.folder / f"stored {step}").exists() and time.monotonic() < until:
            time.sleep(0.02)

    def asks(control: ControlReceiver) -> Any:
        nonlocal calls
        calls += 1
        if calls == 5:  # an epoch has four steps: its checkpoint is written
            wait_for(4)
        if calls == 9:
            wait_for(8)
            os.kill(os.getpid(), signal.SIGKILL)
        return command(control)

    scene.patch.setattr(ControlReceiver, "command", asks)
    scene.patch.setattr(Sink, "_store_checkpoint", store_and_tell)
    scene.run()
    scene.patch.undo()
    scene.place.make_due(scene.job)
    found = stored(scene)
    assert [one.step for one in found] == [8, 4]
    return [scene.place.context.storage.local_path(one.storage_key) for one in found]


def log_of(scene: Scene) -> str:
    with scene.place.context.sessions() as session:
        lines = logs.read(session, scene.job, 0, logs.LogFilter(), 0, 10_000).lines
    return "\n".join(entry.line.text for entry in lines)


@fault(None, state="succeeded")
def a_torn_newest_checkpoint(scene: Scene) -> Iterator[None]:
    newest, _ = interrupted_after_two_checkpoints(scene)
    os.truncate(newest, newest.stat().st_size // 2)
    yield
    assert scene.attempt().resumed_from_step == 4
    assert "the checkpoint of step 8 is damaged: trying the one before" in log_of(scene)


@fault(None, state="succeeded")
def all_checkpoints_torn(scene: Scene) -> Iterator[None]:
    for file in interrupted_after_two_checkpoints(scene):
        os.truncate(file, 100)
    yield
    assert scene.attempt().resumed_from_step is None
    assert "no checkpoint is intact: starting from the beginning" in log_of(scene)


def rewrite(scene: Scene, file: Path, change: Callable[[dict[str, str]], None]) -> None:
    """Another, whole checkpoint in its place, as if it had been written so."""
    with safe_open(file, framework="pt") as opened:
        metadata = dict(opened.metadata())
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    change(metadata)
    metadata["digest"] = files._digest(metadata["state"], tensors)
    save_file(tensors, file, metadata)
    key = str(file.relative_to(scene.place.context.storage.root))
    with scene.place.context.sessions.begin() as session:
        session.execute(update(Checkpoint).where(Checkpoint.storage_key == key).values(sha256=sha256_of(file)))


@fault("version_mismatch", "is not a checkpoint of this version", "log")
def a_checkpoint_of_another_format(scene: Scene) -> Iterator[None]:
    newest, _ = interrupted_after_two_checkpoints(scene)
    rewrite(scene, newest, lambda metadata: metadata.update(format="trainkit-checkpoint-99"))
    yield
    assert scene.attempt().resumed_from_step == 8


def another_spec(metadata: dict[str, str]) -> None:
    state = json.loads(metadata["state"])
    state["items"] = [[key, "0" * 64 if key == "spec_hash" else value] for key, value in state["items"]]
    metadata["state"] = json.dumps(state)


@fault(None, state="succeeded")
def a_checkpoint_of_another_spec(scene: Scene) -> Iterator[None]:
    newest, _ = interrupted_after_two_checkpoints(scene)
    rewrite(scene, newest, another_spec)
    yield
    error = scene.attempt().error or {}
    assert (error["code"], error["retryable"]) == ("checkpoint_unusable", True)
    assert "belongs to another spec or dataset" in error["message"]
    scene.place.make_due(scene.job)
    scene.run()
    assert (scene.row().state, scene.attempt().resumed_from_step) == ("succeeded", 4), "the one before it"


@fault("checkpoint_unusable", "has no intact checkpoint to resume from", "parent", "steps")
def a_fork_whose_checkpoint_is_torn(scene: Scene) -> Iterator[None]:
    after = interrupted_after_two_checkpoints(scene)
    parent = scene.job
    patch = {"train": {"epochs": 6}, "resources": {"max_attempts": 1}}
    forked, _ = transact(scene.service(), jobs.fork, scene.service(), scene.place.who, parent, patch, None)
    transact(scene.service(), jobs.cancel, scene.place.who, parent)
    scene.job = forked.id
    for file in after:
        os.truncate(file, 100)  # a second link to the same bytes
    yield


def lets_go(scene: Scene) -> None:
    """Nothing was written by whoever had lost the job; another attempt ends it."""
    row = scene.row()
    assert (row.state, row.result, row.error) == ("running", None, None)
    assert scene.attempt().outcome is None
    with scene.place.context.sessions.begin() as session:
        session.execute(update(Job).where(Job.id == scene.job).values(lease_expires_at=row.created_at))
    assert expire_leases(scene.place.context.sessions, 5) == 1
    scene.place.make_due(scene.job)
    scene.run()
    assert (scene.row().state, len(scene.place.attempts(scene.job))) == ("succeeded", 2)


@fault(None, state="succeeded")
def a_database_away_for_longer_than_the_lease(scene: Scene) -> Iterator[None]:
    scene.settings = {"lease_seconds": 2.0, "heartbeat_seconds": 0.2}
    scene.at_step(3, lambda: time.sleep(600))

    def away(*_: object) -> None:
        raise OperationalError("x", {}, Exception("connection refused"))

    for name in ("renew", "requested_action"):
        scene.patch.setattr(leases, name, away)
    yield
    scene.patch.undo()
    scene.settings = {}
    lets_go(scene)


@fault(None, state="succeeded")
def a_job_given_away_before_its_finish(scene: Scene) -> Iterator[None]:
    finish = attempts.finish

    def too_late(session: Any, claim: Claim, outcome: attempts.Finish) -> str | None:
        return finish(session, Claim(claim.id, claim.fence - 1), outcome)  # what a worker is whose job another has

    scene.patch.setattr(attempts, "finish", too_late)
    yield
    scene.patch.undo()
    lets_go(scene)


@fault("process_failed", "exit code 3", "exit_status")
def a_log_that_cannot_be_stored(scene: Scene) -> Iterator[None]:
    """What happened is not forgotten over it."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    scene.patch.setattr(OutcomeWriter, "_store_file", full)
    scene.at_step(3, lambda: os._exit(3))
    yield


def overtaken(wish: Callable[[Scene], object]) -> Callable[[Scene], Iterator[None]]:
    """The client pauses; when the training process has obeyed, and before that is written down, comes another wish."""

    def act(scene: Scene) -> Iterator[None]:
        hand_back = OutcomeWriter.hand_back

        def request_then_hand_back(writer: OutcomeWriter, reason: str) -> None:
            assert (scene.row().state, reason) == ("pausing", "paused")
            wish(scene)
            hand_back(writer, reason)

        scene.at_step(3, lambda: time.sleep(2))
        scene.submit(train={"epochs": 100_000, "seed": 1, "threads": 1}, resources={"max_attempts": 1})
        start = attempts.start

        def then_pauses(session: Any, claim: Claim, **more: Any) -> None:
            start(session, claim, **more)
            session.commit()
            transact(scene.service(), jobs.pause, scene.place.who, claim.id)

        scene.patch.setattr(attempts, "start", then_pauses)
        scene.patch.setattr(OutcomeWriter, "hand_back", request_then_hand_back)
        yield
        scene.patch.undo()
        if scene.row().state == "queued":
            scene.run()
            assert scene.row().stop_reason == "client_stop"
            assert scene.attempt().resumed_from_step

    return act


def stops(scene: Scene) -> None:
    transact(scene.service(), jobs.stop, scene.place.who, scene.job, "best", None)


def cancels(scene: Scene) -> None:
    transact(scene.service(), jobs.cancel, scene.place.who, scene.job)


add("a stop that overtakes a pause", overtaken(stops), None, state="stopped")
add("a cancel that overtakes a pause", overtaken(cancels), None, state="cancelled")

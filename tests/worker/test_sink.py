"""Events reach the database in order, exactly once, and never under a stale fence."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from service.jobs import attempts, leases
from service.jobs import repository as jobs_repository
from service.jobs.repository import decisions_after
from service.leases import StaleFence
from tests.support.logged_rows import LoggedRow, logged_rows
from tests.support.worker_context import Place
from worker.context import WorkerContext
from worker.sink import Sink

pytestmark = pytest.mark.postgresql


def now(work: Callable[[], Any]) -> Any:
    return work()


def rows_event(step: int, *rows: tuple[str, str, float]) -> dict[str, Any]:
    return {"type": "metrics", "step": step, "epoch": 1, "at": 1e9 + step, "rows": [list(row) for row in rows]}


def decision(step: int) -> dict[str, Any]:
    rule = {"kind": "patience"}
    return {
        "type": "decision",
        "rule": rule,
        "step": step,
        "epoch": 1,
        "inputs": {"x": math.nan},
        "action": "continue",
        "reason": "",
    }


def checkpoint_event(folder: Path, step: int) -> dict[str, Any]:
    path = folder / f"step-{step}.safetensors"
    path.write_bytes(b"weights %d" % step)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    size = path.stat().st_size
    return {"type": "checkpoint", "path": str(path), "step": step, "epoch": 1, "sha256": digest, "bytes": size}


@pytest.fixture
def sink(place: Place) -> Sink:
    place.submit(place.table())
    return claim(place)


def claim(place: Place) -> Sink:
    with place.context.sessions.begin() as session:
        claimed = leases.claim(session, "train", "me", 30)
        assert claimed is not None
        attempts.start(session, claimed.claim)
    return Sink(place.context, claimed.claim, claimed.metric_seq, claimed.runtime, place.context.settings.home)


def stored(sink: Sink) -> list[LoggedRow]:
    with sink.context.sessions() as session:
        return logged_rows(session, sink.job_id)


def test_rows_decisions_and_progress_land_on_the_job(place: Place, sink: Sink) -> None:
    sink.take(
        [
            {"type": "runtime", "device": "cpu", "threads": 1},
            {"type": "phase", "phase": "epoch 1/2"},
            rows_event(1, ("train", "batch_loss", 2.0)),
            decision(1),
            rows_event(2, ("val", "loss", math.nan), ("val", "accuracy", 0.5)),
            {"type": "progress", "epoch": 1, "percent": 50.0, "eta_seconds": math.inf},
        ]
    )
    sink.ship(now)
    assert sink.empty
    assert [(r.seq, r.row.step, r.row.name) for r in stored(sink)] == [
        (1, 1, "batch_loss"),
        (2, 2, "loss"),
        (3, 2, "accuracy"),
    ]
    assert math.isnan(stored(sink)[1].row.value)
    job = place.job(sink.job_id)
    assert job.phase == "epoch 1/2"
    assert job.progress == {"epoch": 1, "percent": 50.0, "eta_seconds": None}
    assert job.runtime == {"device": "cpu", "threads": 1}
    with place.context.sessions() as session:
        assert len(decisions_after(session, sink.job_id, 0, 10)) == 1


def test_what_was_decided_once_is_not_decided_again(place: Place, sink: Sink) -> None:
    sink.take([{"type": "runtime", "threads": 1}, {"type": "runtime", "threads": 2}])
    sink.ship(now)
    later = Sink(place.context, sink.claim, 0, {"threads": 1}, place.context.settings.home)
    later.take([{"type": "runtime", "threads": 4}])
    later.ship(now)
    assert place.job(sink.job_id).runtime == {"threads": 1}


class Flaky:
    """A context whose next transaction commits, or does not, and then reports a broken connection."""

    def __init__(self, context: WorkerContext, commits: bool) -> None:
        self.context = context
        self.commits = commits
        self.broken = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.context, name)

    @property
    def sessions(self) -> Any:
        outer = self

        class Sessions:
            @staticmethod
            @contextmanager
            def begin() -> Any:
                with outer.context.sessions() as session:
                    yield session
                    if outer.commits or outer.broken:
                        session.commit()
                if not outer.broken:
                    outer.broken = True
                    raise OperationalError("COMMIT", {}, Exception("connection reset"))

        return Sessions


@pytest.mark.parametrize("commits", [True, False])
def test_a_lost_answer_to_a_commit_neither_doubles_nor_loses(place: Place, sink: Sink, commits: bool) -> None:
    sink.context = Flaky(place.context, commits)  # type: ignore[assignment]
    sink.take([rows_event(1, ("train", "loss", 1.0)), decision(1)])
    with pytest.raises(OperationalError):
        sink.ship(now)
    assert not sink.empty
    sink.take([rows_event(2, ("train", "loss", 0.5)), decision(2)])
    sink.ship(now)
    sink.context = place.context
    assert [(r.seq, r.row.step) for r in stored(sink)] == [(1, 1), (2, 2)]
    with place.context.sessions() as session:
        assert [d.step for d in decisions_after(session, sink.job_id, 0, 10)] == [1, 2]


@pytest.mark.parametrize("commits", [True, False])
def test_decisions_of_rules_across_jobs_do_not_confuse_the_count(place: Place, commits: bool) -> None:
    """They are stored with the rows and number on, but the training process never told them."""
    median = {"kind": "median", "monitor": "val_loss"}
    place.submit(place.table(), group="e", early_stop=[median, {"kind": "patience"}])
    sink = claim(place)
    evaluated = ("val", "loss", 1.0), ("train", "seconds", 0.5)
    sink.take([rows_event(1, *evaluated), decision(1)])
    sink.ship(now)
    sink.context = Flaky(place.context, commits)  # type: ignore[assignment]
    sink.take([rows_event(2, *evaluated), decision(2)])
    with pytest.raises(OperationalError):
        sink.ship(now)
    sink.take([rows_event(3, *evaluated), decision(3), decision(4)])
    sink.ship(now)
    sink.context = place.context
    sink.take([decision(5)])
    sink.ship(now)
    again = Sink(place.context, sink.claim, sink._metric_seq, None, sink._scratch)  # as a next attempt begins
    again.take([rows_event(6, *evaluated), decision(6)])
    again.ship(now)
    with place.context.sessions() as session:
        rows = decisions_after(session, sink.job_id, 0, 100)
    assert [d.seq for d in rows] == list(range(1, 11))
    assert [d.step for d in rows if d.rule["kind"] == "patience"] == [1, 2, 3, 4, 5, 6]
    assert [d.step for d in rows if d.rule["kind"] == "median"] == [1, 2, 3, 6]
    assert [r.row.step for r in stored(sink)] == [1, 1, 2, 2, 3, 3, 6, 6]
    assert place.job(sink.job_id).peer_decisions == 4


@pytest.mark.parametrize("commits", [True, False])
def test_a_checkpoint_s_row_survives_a_lost_answer_too(place: Place, sink: Sink, tmp_path: Path, commits: bool) -> None:
    sink.context = Flaky(place.context, commits)  # type: ignore[assignment]
    sink.take([checkpoint_event(tmp_path, 5)])
    with pytest.raises(OperationalError):
        sink.ship(now)
    sink.ship(now)
    with place.context.sessions() as session:
        (row,) = jobs_repository.checkpoints(session, sink.job_id)
    assert place.context.storage.local_path(row.storage_key).read_bytes() == b"weights 5"


def test_a_checkpoint_knows_how_far_the_log_had_come(place: Place, sink: Sink, tmp_path: Path) -> None:
    first = checkpoint_event(tmp_path, 1)
    sink.take([rows_event(1, ("train", "loss", 1.0)), first, rows_event(2, ("train", "loss", 0.5))])
    sink.ship(now)
    sink.take([rows_event(3, ("train", "loss", 0.4)), checkpoint_event(tmp_path, 3)])
    sink.ship(now)
    with place.context.sessions() as session:
        kept = jobs_repository.checkpoints(session, sink.job_id)
    assert [(c.step, c.metric_seq) for c in kept] == [(3, 3), (1, 1)]


def test_old_checkpoints_leave_the_storage_and_missing_files_are_passed_over(
    place: Place, sink: Sink, tmp_path: Path
) -> None:
    for step in (1, 2, 3, 4):
        event = checkpoint_event(tmp_path, step)
        if step == 4:
            Path(event["path"]).unlink()
        sink.take([event])
        sink.ship(now)
    with place.context.sessions() as session:
        assert [c.step for c in jobs_repository.checkpoints(session, sink.job_id)] == [3, 2]
    folder = place.context.storage.root / "checkpoints" / sink.job_id
    assert len(list(folder.iterdir())) == 2


def test_of_waiting_checkpoints_only_the_newest_is_copied(place: Place, sink: Sink, tmp_path: Path) -> None:
    events = [event for step in (1, 2, 3) for event in (rows_event(step), checkpoint_event(tmp_path, step))]
    sink.take(events)
    sink.ship(now)
    with place.context.sessions() as session:
        assert [c.step for c in jobs_repository.checkpoints(session, sink.job_id)] == [3]


def test_a_stale_fence_writes_nothing_and_leaves_no_file(place: Place, sink: Sink, tmp_path: Path) -> None:
    with place.context.sessions.begin() as session:
        attempts.hand_back(session, sink.claim, "test")
    newer = claim(place)
    newer.take([rows_event(1, ("train", "loss", 1.0))])
    newer.ship(now)
    for event in (
        rows_event(9, ("train", "loss", 9.0)),
        checkpoint_event(tmp_path, 9),
        {"type": "phase", "phase": "x"},
    ):
        zombie = Sink(place.context, sink.claim, 1, None, sink._scratch)
        zombie.take([event])
        with pytest.raises(StaleFence):
            zombie.ship(now)
    assert [r.row.step for r in stored(newer)] == [1]
    assert not list((place.context.storage.root / "checkpoints").rglob("*-9-*"))


def test_what_ends_a_job_is_kept_for_the_supervisor(sink: Sink) -> None:
    sink.take(
        [
            {"type": "evaluation", "split": "test", "metrics": {}},
            {"type": "finished", "stop_reason": "completed"},
            {"type": "ended", "outcome": "finished"},
        ]
    )
    assert sink.empty
    assert sink.evaluation == {"split": "test", "metrics": {}}
    assert sink.finished is not None
    assert sink.ended is not None

"""An attempt's lines reach the database while it runs, each once, whatever happens to database, process and worker."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update
from sqlalchemy.exc import OperationalError

import trainkit.fit.loop.fit  # noqa: F401 - before the forks, as a worker does
from service.jobs import attempts, leases
from service.jobs.tables import Job
from service.leases import StaleFence
from service.logs import service as logs
from tests.support.worker_context import Place
from tests.support.worker_runs import LONG, lines_of, meanwhile, run_one, texts, training_process, wait_for_epochs
from worker import log_shipper
from worker.lease import Lease
from worker.log_shipper import LogShipper


def lease() -> Lease[Any]:
    return Lease(30, 5, time.monotonic(), lambda: None, lambda: None)


@pytest.fixture
def claimed(place: Place) -> leases.ClaimedJob:
    place.submit(place.table())
    with place.context.sessions.begin() as session:
        claimed = leases.claim(session, "train", "me", 30)
        assert claimed is not None
        attempts.start(session, claimed.claim)
    return claimed


def shipper(place: Place, claimed: leases.ClaimedJob, file: Path) -> LogShipper:
    return LogShipper(place.context, claimed.claim, file)


def test_said_and_written_lines_keep_their_order(place: Place, claimed: leases.ClaimedJob, tmp_path: Path) -> None:
    file = tmp_path / "log.txt"
    ours = shipper(place, claimed, file)
    ours.add("info", "claimed")
    file.write_text("a\nb\n")
    ours.add("warning", "ended")
    ours.finish(lease())
    with file.open("a") as end:
        end.write("c")
    ours.finish(lease())
    ours.finish(lease())
    found = [(line.line.source, line.line.level, line.line.text) for line in lines_of(place, claimed.job_id)]
    assert found == [
        ("supervisor", "info", "claimed"),
        ("training", "info", "a"),
        ("training", "info", "b"),
        ("supervisor", "warning", "ended"),
        ("training", "info", "c"),
    ]


def test_a_lost_database_is_waited_out_and_no_line_comes_twice(
    place: Place, claimed: leases.ClaimedJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "log.txt"
    file.write_text("".join(f"{n}\n" for n in range(5000)))
    ours = shipper(place, claimed, file)
    real, calls = logs.append, []
    monkeypatch.setattr(log_shipper, "RETRY_SECONDS", 0.01)
    monkeypatch.setattr(LogShipper, "_database_answers", lambda self: False)

    def unsure(session: Any, *arguments: Any) -> Any:
        """Fails before the commit, after it, or not at all."""
        calls.append(1)
        if len(calls) % 3 == 0:
            raise OperationalError("x", {}, Exception("connection refused"))
        done = real(session, *arguments)
        if len(calls) % 3 == 1:
            session.commit()
            raise OperationalError("x", {}, Exception("the answer was lost"))
        return done

    monkeypatch.setattr(logs, "append", unsure)
    ours.finish(lease())
    assert texts(place, claimed.job_id) == [str(n) for n in range(5000)]
    assert len(calls) > 3


def test_a_log_that_cannot_be_stored_is_given_up_and_hurts_nobody(
    place: Place, claimed: leases.ClaimedJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_shipper, "RETRY_SECONDS", 0.01)

    def broken(*_: Any) -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr(logs, "append", broken)
    ours = shipper(place, claimed, tmp_path / "log.txt")
    ours.add("info", "a")
    ours.finish(lease())
    monkeypatch.undo()
    ours.add("info", "b")
    ours.finish(lease())
    assert texts(place, claimed.job_id) == []


def test_a_stale_worker_s_lines_are_refused(place: Place, claimed: leases.ClaimedJob, tmp_path: Path) -> None:
    ours = shipper(place, claimed, tmp_path / "log.txt")
    with place.context.sessions.begin() as session:
        session.execute(update(Job).values(fence=Job.fence + 1))
    ours.add("info", "zombie")
    with pytest.raises(StaleFence):
        ours.finish(lease())
    with pytest.raises(StaleFence):
        ours.ship()
    assert texts(place, claimed.job_id) == []


def test_a_talkative_process_is_cut_off_visibly(
    place: Place, claimed: leases.ClaimedJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "log.txt"
    file.write_text("".join(f"{n}\n" for n in range(200_000)))
    monkeypatch.setattr(log_shipper, "MAX_SUPERVISOR_LINES", 3)
    ours = shipper(place, claimed, file)
    for _ in range(5):
        ours.add("info", "again")
    ours.finish(lease())
    found = texts(place, claimed.job_id)
    assert len(found) < 80_000
    assert found[-1] == "199999"
    (cut,) = [text for text in found if "lines dropped" in text]
    kept = sum(text.isdigit() for text in found)
    assert cut == f"... {200_000 - kept} lines dropped"
    assert "... 2 lines of the supervisor dropped" in found


def test_lines_arrive_while_the_job_runs_and_after_a_kill(place: Place) -> None:
    job = place.submit(place.table(), train=LONG)
    while_running: list[str] = []

    def act() -> None:
        wait_for_epochs(place, job, 2)
        deadline = time.monotonic() + 60
        while not any("best so far" in text for text in texts(place, job)):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert place.job(job).state == "running"
        while_running.extend(texts(place, job))
        training_process(place).kill()

    with meanwhile(act):
        run_one(place)
    first = texts(place, job)
    assert first[: len(while_running)] == while_running
    assert any("SIGKILL (exit 137)" in text for text in first)
    assert first[-1].startswith("interrupted: ")
    with place.context.sessions.begin() as session:
        again = {"not_before": None, "requested_action": {"action": "stop", "keep": "last"}}
        session.execute(update(Job).where(Job.id == job).values(**again))
    assert run_one(place)
    found = lines_of(place, job)
    fences = [attempt.fence for attempt in place.attempts(job)]
    assert sorted({line.attempt for line in found}) == fences
    second = [line.line for line in found if line.attempt == fences[1]]
    assert [line.line.text for line in found[: len(first)]] == first
    assert any(line.text.startswith("resuming from the checkpoint of step ") for line in second)
    assert any(line.source == "training" and line.text.startswith("finished: ") for line in second)
    assert second[-1].text.startswith("training process ended: exit code 0, finished")


def test_an_attempt_without_a_process_says_why(place: Place) -> None:
    job = place.submit(place.table())
    for file in (place.context.storage.root / "prepared").rglob("meta.json"):
        file.unlink()
    run_one(place)
    first, last = lines_of(place, job)
    assert first.line.text.startswith("claimed by ")
    assert (last.line.level, last.line.text.split(":")[:2]) == ("error", ["failed", " data_damaged"])

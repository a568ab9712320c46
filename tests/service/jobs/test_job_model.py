"""Whatever clients, workers and housekeeping do in whatever order, the promises hold: checked against a simple model."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from typing import Any, ClassVar

import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from sqlalchemy import select, update

from service.app import create_app
from service.background.lease_expiry import expire_leases
from service.database import db_now, reading
from service.jobs import attempts, leases, repository
from service.jobs import service as rules
from service.jobs.states import ALLOWED, ENDED, WITH_WORKER
from service.jobs.tables import Job, JobEvent
from service.keys.service import authenticate
from service.leases import StaleFence
from service.metrics import service as metrics
from service.settings import Settings
from tests.support.api import Served, error_of, row
from tests.support.logged_rows import logged_rows
from tests.support.transactions import transact

pytestmark = pytest.mark.postgresql

MOST_INTERRUPTIONS = 3
MOST_JOBS = 5


class Jobs(RuleBasedStateMachine):
    """A few jobs, a few workers that may be zombies, clients that change their mind."""

    template: ClassVar[Path]

    def __init__(self) -> None:
        super().__init__()
        self.home = Path(tempfile.mkdtemp())
        shutil.copyfile(self.template, self.home / "trainkit.db")
        environment = {"TRAINKIT_HOME": str(self.home), "TRAINKIT_BROKER_URL": "memory://"}
        app = create_app(Settings.from_env(environment))
        self.service = Served(app, TestClient(app), app.state.context)
        self.service.client = self.service.client_for("default")
        self.dataset = self.service.ready_dataset()
        key = self.service.key("default")
        with reading(self.service.sessions) as session:
            identity = authenticate(session, key)
        assert identity is not None
        who = identity.alone()
        self.who = who
        self.claims: list[leases.ClaimedJob] = []
        self.written: dict[str, int] = {}
        self.ended: dict[str, str] = {}
        self.never_run: set[str] = set()

    def teardown(self) -> None:
        self.service.context.engine.dispose()
        shutil.rmtree(self.home)

    def job(self, data: st.DataObject) -> str:
        return data.draw(st.sampled_from(sorted(self.written)))

    @rule()
    def submit(self) -> None:
        if len(self.written) < MOST_JOBS - 1:
            document = {"dataset": self.dataset, "model": {"kind": "mlp"}, "resources": {"max_attempts": 2}}
            job, new = transact(self.service.context, rules.create, self.service.context, self.who, document, None)
            assert new
            self.written[job.id] = 0

    @rule(seconds=st.sampled_from([-1.0, 60.0]))
    def claim(self, seconds: float) -> None:
        with self.service.sessions.begin() as session:
            claimed = leases.claim(session, "train", f"w{len(self.claims)}", seconds)
        if claimed is not None:
            assert claimed.job_id not in self.never_run, "cancelled before it began"
            self.claims.append(claimed)

    def as_worker(self, data: st.DataObject, act: Callable[[Any, leases.ClaimedJob], Any]) -> leases.ClaimedJob | None:
        """Some worker, perhaps one that has long lost its job, tries to act; whether it may is not for it to say."""
        claimed = data.draw(st.sampled_from(self.claims))
        try:
            with self.service.sessions.begin() as session:
                act(session, claimed)
        except StaleFence:
            return None
        with self.service.sessions() as session:
            assert session.get_one(Job, claimed.job_id).fence == claimed.claim.fence, "a zombie wrote"
        return claimed

    @precondition(lambda self: self.claims)
    @rule(data=st.data())
    def start(self, data: st.DataObject) -> None:
        self.as_worker(data, lambda session, claimed: attempts.start(session, claimed.claim))

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), count=st.integers(0, 3))
    def append(self, data: st.DataObject, count: int) -> None:
        rows = [row("loss", 1.0, n) for n in range(count)]
        done = self.as_worker(data, lambda s, claimed: metrics.append(s, claimed.claim, rows))
        if done is not None:
            self.written[done.job_id] += count

    @precondition(lambda self: self.claims)
    @rule(data=st.data())
    def hand_back(self, data: st.DataObject) -> None:
        self.as_worker(data, lambda s, claimed: attempts.hand_back(s, claimed.claim, "stops"))

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), retryable=st.booleans())
    def fail(self, data: st.DataObject, retryable: bool) -> None:
        error = error_of("x", retryable=retryable)
        self.as_worker(data, lambda s, claimed: attempts.fail(s, claimed.claim, error))

    @precondition(lambda self: self.claims)
    @rule(data=st.data())
    def obey(self, data: st.DataObject) -> None:
        """A worker does what is wanted: ends a cancelled job, pauses, or finishes what is to stop."""

        def act(session: Any, claimed: leases.ClaimedJob) -> None:
            wish = leases.requested_action(session, claimed.claim) or {}
            job = leases.lock_claimed(session, claimed.claim)
            if wish.get("action") == "cancel":
                attempts.cancelled(session, claimed.claim)
            elif wish.get("action") == "pause":
                attempts.give_up(session, job, "paused", "client")
            elif job.state in ("running", "stopping"):
                reason = "client_stop" if wish.get("action") == "stop" else "completed"
                attempts.finish(session, claimed.claim, outcome(claimed, reason))

        self.as_worker(data, act)

    @rule()
    def housekeeping(self) -> None:
        expire_leases(self.service.sessions, MOST_INTERRUPTIONS)

    @rule()
    def time_passes(self) -> None:
        """Pauses are over, and leases that were not renewed have expired."""
        with self.service.sessions.begin() as session:
            session.execute(update(Job).values(not_before=None))
            session.execute(
                update(Job).where(Job.lease_expires_at.is_not(None)).values(lease_expires_at=db_now(plus=-1))
            )

    @precondition(lambda self: self.written)
    @rule(data=st.data(), wish=st.sampled_from(["stop", "cancel", "pause", "resume"]))
    def client(self, data: st.DataObject, wish: str) -> None:
        job = self.job(data)
        before = self.service.job(job)
        if wish == "resume" and before["state"] in ENDED and len(self.written) >= MOST_JOBS:
            return
        body = {"keep": data.draw(st.sampled_from(["best", "last"]))} if wish == "stop" else None
        answer = self.service.client.post(f"/v1/jobs/{job}/{wish}", json=body)
        again = self.service.client.post(f"/v1/jobs/{job}/{wish}", json=body)
        assert again.status_code == answer.status_code
        if wish in ("stop", "cancel"):
            assert answer.status_code == 200
        if answer.status_code == 201:  # it had ended: a new job goes on
            assert (wish, before["state"] in ENDED) == ("resume", True)
            self.written.setdefault(answer.json()["id"], 0)
        if answer.status_code in (200, 201):
            assert again.json() == answer.json(), "asking twice is asking once"
        if before["started_at"] is None and answer.json().get("state") == "cancelled" and before["state"] == "queued":
            self.never_run.add(job)

    @invariant()
    def promises_hold(self) -> None:
        with reading(self.service.sessions) as session:
            for job in session.scalars(select(Job)):
                if job.id in self.ended:
                    assert job.state == self.ended[job.id], "no end is ever left"
                elif job.state in ENDED:
                    self.ended[job.id] = job.state
                assert (job.lease_owner is not None) == (job.state in WITH_WORKER)
                assert job.next_seq - 1 == self.written[job.id], "every accepted row, and no other"
                outcomes = [a.outcome for a in repository.attempts(session, job.id) if a.outcome is not None]
                in_vain = max((len(list(run)) for lost, run in groupby(outcomes) if lost == "lost"), default=0)
                assert in_vain <= MOST_INTERRUPTIONS + 1
                assert job.interruptions == outcomes.count("lost")
                assert job.attempts <= 2
                assert (job.state in ("succeeded", "stopped")) == (job.result is not None)
                rows = logged_rows(session, job.id)
                assert [entry.seq for entry in rows] == list(range(1, job.next_seq))
                fences = [entry.attempt for entry in rows]
                assert fences == sorted(fences)
                self.events_tell_the_way(session, job)

    def events_tell_the_way(self, session: Any, job: Job) -> None:
        events = session.scalars(select(JobEvent).where(JobEvent.job_id == job.id).order_by(JobEvent.seq)).all()
        assert [event.seq for event in events] == list(range(1, job.next_event_seq))
        state = None
        for event in events:
            assert event.from_state == state
            assert state is None or event.to_state in ALLOWED[state]
            state = event.to_state
        assert state == job.state


def outcome(claimed: leases.ClaimedJob, reason: str) -> attempts.Finish:
    return attempts.Finish(
        stop_reason=reason,
        result={"best_epoch": 1, "stopped_epoch": 1, "test": {}},
        evaluation=None,
        model_kind="mlp",
        model_key=f"models/{claimed.job_id}/{claimed.claim.fence}",
        model_manifest={},
        model_bytes=1,
    )


@pytest.mark.timeout(900)
def test_promises_hold_in_any_order(migrated_sqlite: Path) -> None:
    Jobs.template = migrated_sqlite
    run_state_machine_as_test(
        Jobs,
        settings=settings(
            max_examples=15,
            stateful_step_count=30,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )

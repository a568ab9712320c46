"""One table says what may become what; one door changes it."""

from __future__ import annotations

from typing import get_args

import pytest
from sqlalchemy import select, update

from service.jobs.states import ALLOWED, ENDED, WITH_WORKER, Conflict, State
from service.jobs.tables import Job, JobEvent
from service.jobs.transitions import transition
from tests.support.api import Served

pytestmark = pytest.mark.postgresql

STATES = frozenset(get_args(State))


def test_the_table_is_whole() -> None:
    assert set(ALLOWED) == STATES
    assert all(targets <= STATES for targets in ALLOWED.values())
    assert {state for state, targets in ALLOWED.items() if not targets} == ENDED


def test_every_state_can_be_reached_and_every_living_one_can_end() -> None:
    def reachable(start: str) -> set[str]:
        seen, waiting = {start}, [start]
        while waiting:
            for state in ALLOWED[waiting.pop()] - seen:
                seen.add(state)
                waiting.append(state)
        return seen

    assert reachable("validating") == STATES
    for state in STATES - ENDED:
        assert reachable(state) >= ENDED
        assert "cancelled" in ALLOWED[state]


def test_only_a_claim_gives_a_job_to_a_worker() -> None:
    for state, targets in ALLOWED.items():
        if state not in WITH_WORKER:
            assert targets & WITH_WORKER == ({"starting"} if state == "queued" else set())


@pytest.mark.parametrize("migrated_url", ["sqlite"], indirect=True)
def test_what_the_table_does_not_allow_is_refused(service: Served) -> None:
    job_id = service.submit()
    with service.sessions() as session:
        job = session.get_one(Job, job_id)
        for state in STATES:
            for target in STATES - ALLOWED[state]:
                session.execute(update(Job).values(state=state))
                session.refresh(job)
                with pytest.raises(Conflict, match=f"is {state}, which cannot become {target}"):
                    transition(session, job, target, actor="t")  # type: ignore[arg-type]


def test_a_change_leaves_an_event_with_actor_and_reason(service: Served) -> None:
    job_id = service.submit()
    with service.sessions.begin() as session:
        job = session.get_one(Job, job_id)
        assert transition(session, job, "cancelled", actor="key:abc", reason="changed my mind")
        assert (job.state, job.finished_at is not None, job.next_event_seq) == ("cancelled", True, 3)
    with service.sessions() as session:
        event = session.scalars(select(JobEvent).where(JobEvent.seq == 2)).one()
    assert (event.from_state, event.to_state, event.actor, event.reason) == (
        "queued",
        "cancelled",
        "key:abc",
        "changed my mind",
    )


def test_who_looked_before_the_change_changes_nothing(service: Served) -> None:
    job_id = service.submit()
    with service.sessions() as session:
        old = session.get_one(Job, job_id)
    with service.sessions.begin() as session:
        assert transition(session, session.get_one(Job, job_id), "cancelled", actor="first")
    with service.sessions.begin() as session:
        assert not transition(session, old, "starting", actor="second")
    events = service.client.get(f"/v1/jobs/{job_id}/events").json()["data"]
    assert [event["to"] for event in events] == ["queued", "cancelled"]


def test_the_lease_goes_with_the_worker(service: Served) -> None:
    service.submit()
    claimed = service.claim()
    service.finish(claimed)
    with service.sessions() as session:
        job = session.get_one(Job, claimed.job_id)
    assert (job.lease_owner, job.lease_expires_at, job.fence) == (None, None, claimed.claim.fence)

"""A stop of a rule across jobs against a client's wishes, in every order and at once: one end, the first stop's reason."""

from __future__ import annotations

import itertools
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from service.errors import HttpProblem
from service.jobs import attempts, leases
from service.jobs import service as jobs
from service.jobs.states import ENDED
from tests.support.peer_jobs import MEDIAN, Lab, Run, make_lab, rows_of
from tests.support.transactions import transact

pytestmark = pytest.mark.postgresql

RULE = {**MEDIAN, "min_jobs": 1}
TWO = [row for step in (1, 2) for row in rows_of(step, step, val_loss=0.1)]
"""Evaluations of the job that the others are compared with."""


@pytest.fixture
def lab(migrated_url: str, tmp_path: Path) -> Iterator[Lab]:
    instance = make_lab(migrated_url, tmp_path)
    instance.start("e").append(*TWO)
    yield instance
    instance.context.engine.dispose()


def stop(run: Run) -> None:
    transact(run.lab.context, jobs.stop, run.lab.who, run.job, "last", None)


def cancel(run: Run) -> None:
    transact(run.lab.context, jobs.cancel, run.lab.who, run.job)


def pause(run: Run) -> None:
    with suppress(HttpProblem):  # of a job that stops there is nothing to pause
        transact(run.lab.context, jobs.pause, run.lab.who, run.job)


worse = itertools.count(9)


def rule(run: Run) -> None:
    """Worse than all before it: the rule says stop."""
    run.evaluate(float(next(worse)))


WISHES: dict[str, Callable[[Run], None]] = {"rule": rule, "stop": stop, "cancel": cancel, "pause": pause}


def see_through(run: Run) -> None:
    """The worker hears the wish, and does as it says; a paused job is asked for again, and goes on with what is wanted."""
    context = run.lab.context
    with context.sessions.begin() as session:
        wish = leases.requested_action(session, run.claim) or {}
    if wish.get("action") == "cancel":
        with context.sessions.begin() as session:
            attempts.cancelled(session, run.claim)
    elif wish.get("action") == "pause":
        with context.sessions.begin() as session:
            attempts.hand_back(session, run.claim, "paused")
    elif wish.get("action") == "stop":
        run.finish(wish.get("stop_reason", "client_stop"))
    else:
        run.finish()


def expected(order: tuple[str, ...]) -> tuple[str, str | None]:
    """(state, stop reason): a cancel wins whenever it comes; else the first stop holds; a pause is overtaken by either."""
    stops = [name for name in order if name in ("rule", "stop")]
    if "cancel" in order:
        return "cancelled", None
    if stops:
        return ("succeeded", "early_stop") if stops[0] == "rule" else ("stopped", "client_stop")
    return "paused", None


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_in_every_order(lab: Lab, count: int) -> None:
    for order in itertools.permutations(WISHES, count):
        run = lab.start("e", RULE)
        for name in order:
            WISHES[name](run)
        see_through(run)
        row = run.row
        assert (row.state, row.stop_reason) == expected(order), order
        events = run.events()
        assert [e.to_state for e in events if e.to_state in ENDED] == [row.state][: row.state in ENDED], order
        by_rule = [e.reason for e in events if e.actor == "rule"]
        first = next((name for name in order if name in ("rule", "stop", "cancel")), None)
        assert len(by_rule) == (first == "rule"), order
        assert all(str(reason).startswith("median: the best val_loss so far, ") for reason in by_rule)
        assert len(run.decisions()) == ("rule" in order), "it is asked, whatever is wished for"
        if row.state == "paused":
            cancel(run)


def test_a_stopping_job_that_lost_its_worker_is_stopped_by_the_next(lab: Lab) -> None:
    run = lab.start("e", RULE)
    rule(run)
    with lab.context.sessions.begin() as session:
        job = leases.lock_claimed(session, run.claim)
        assert attempts.interrupted(session, job, "killed", 5) == "queued"
    run.start_attempt()
    assert (run.row.requested_action or {})["stop_reason"] == "early_stop"
    rule(run)  # what is run again is decided again, and changes nothing
    stop(run)
    see_through(run)
    assert (run.row.state, run.row.stop_reason) == ("succeeded", "early_stop")
    assert [e.to_state for e in run.events() if e.actor == "rule"] == ["stopping"]


def test_at_the_same_time(new_postgres_database: Any, migrated_postgres: str, tmp_path: Path) -> None:
    lab = make_lab(new_postgres_database(template=migrated_postgres), tmp_path)
    lab.start("e").append(*TWO)
    ends: Counter[tuple[str, str | None]] = Counter()
    for seed in range(24):
        run = lab.start("e", RULE)
        names = ["rule", *random.Random(seed).sample(["stop", "stop", "cancel", "pause"], 2)]
        gate, failures = threading.Barrier(len(names)), []

        def act(name: str, run: Run = run, gate: threading.Barrier = gate, failures: list[Any] = failures) -> None:
            try:
                gate.wait()
                WISHES[name](run)
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=act, args=(name,)) for name in names]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        see_through(run)
        row = run.row
        order = tuple(e.reason for e in run.events() if e.to_state == "stopping")
        assert len(order) <= 1
        if "cancel" in names:
            assert row.state == "cancelled"
        else:
            by_rule = bool(order) and str(order[0]).startswith("median: ")
            assert (row.state, row.stop_reason) == expected(("rule",) if by_rule else ("stop",))
        assert len(run.decisions()) == 1
        ends[row.state, row.stop_reason] += 1
    assert len(ends) >= 2, ends
    lab.context.engine.dispose()

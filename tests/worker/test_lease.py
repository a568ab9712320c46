"""A lease is renewed in time, outlives short outages, and ends the work when it cannot be kept."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from sqlalchemy.exc import OperationalError

from worker.lease import Lease, LeaseLost


def away() -> None:
    raise OperationalError("UPDATE", {}, Exception("connection refused"))


def a_lease(
    renew: Callable[[], object], killed: list[bool], seconds: float = 0.5, heartbeat: float = 0.05
) -> Lease[object]:
    return Lease(seconds, heartbeat, time.monotonic(), renew, lambda: killed.append(True))


def test_renewals_keep_it_beyond_its_length() -> None:
    renewals: list[float] = []
    killed: list[bool] = []
    with a_lease(lambda: renewals.append(time.monotonic()), killed) as lease:
        until = time.monotonic() + 1.0
        while time.monotonic() < until:
            lease.tick()
            time.sleep(0.01)
    assert len(renewals) > 3
    assert not killed


def test_the_answer_of_a_renewal_is_passed_on() -> None:
    with a_lease(lambda: {"action": "stop"}, [], heartbeat=0.0) as lease:
        assert lease.tick() == {"action": "stop"}


def test_an_outage_shorter_than_the_lease_is_waited_out() -> None:
    outage = [True, True]

    def renew() -> None:
        if outage:
            outage.pop()
            away()

    killed: list[bool] = []
    with a_lease(renew, killed, seconds=5.0) as lease:
        while outage:
            lease.tick()
            time.sleep(0.01)
        lease.tick()
    assert not killed


def test_an_outage_longer_than_the_lease_kills_the_work() -> None:
    killed: list[bool] = []
    with a_lease(away, killed) as lease, pytest.raises(LeaseLost):
        lease.keep_trying(away)
    assert killed == [True]


def test_a_call_that_hangs_does_not_keep_the_work_alive() -> None:
    killed: list[bool] = []

    def hang() -> None:
        until = time.monotonic() + 10
        while not killed and time.monotonic() < until:
            time.sleep(0.05)

    with a_lease(hang, killed, heartbeat=0.0) as lease, pytest.raises(LeaseLost):
        lease.tick()
    assert killed == [True]


def test_work_is_tried_until_the_database_is_back() -> None:
    outcomes: list[Callable[[], object]] = [away, lambda: "done"]
    with a_lease(lambda: None, [], seconds=10.0) as lease:
        assert lease.keep_trying(lambda: outcomes.pop(0)()) == "done"

"""Token buckets: so many at once, then so many a minute, in bounded memory."""

from __future__ import annotations

import pytest

from service.rate_limits import RateLimiter


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_so_many_at_once_then_so_many_a_minute(clock: Clock) -> None:
    limiter = RateLimiter(clock=clock)
    remaining = [limiter.take("a", 6).remaining for _ in range(6)]
    assert remaining == [5, 4, 3, 2, 1, 0]
    refused = limiter.take("a", 6)
    assert (refused.allowed, refused.remaining, refused.retry_after, refused.full_seconds) == (False, 0, 10, 60.0)
    assert limiter.take("b", 6).remaining == 5, "each name has its own"
    clock.now += 9.99
    assert not limiter.take("a", 6).allowed
    clock.now += 0.01
    assert limiter.take("a", 6).allowed
    assert not limiter.take("a", 6).allowed
    clock.now += 1000
    assert limiter.take("a", 6).remaining == 5, "no more than all of it comes back"


def test_a_refusal_costs_nothing(clock: Clock) -> None:
    limiter = RateLimiter(clock=clock)
    for _ in range(100):
        limiter.take("a", 2)
    clock.now += 30
    assert limiter.take("a", 2).allowed


def test_looking_takes_nothing(clock: Clock) -> None:
    limiter = RateLimiter(clock=clock)
    assert [limiter.look("a", 2).remaining for _ in range(3)] == [2, 2, 2]
    limiter.take("a", 2)
    limiter.take("a", 2)
    assert not limiter.look("a", 2).allowed
    assert len(limiter) == 1


@pytest.mark.parametrize(("before", "after"), [(1000, 10), (10, 1000)])
def test_another_limit_holds_at_once(clock: Clock, before: int, after: int) -> None:
    limiter = RateLimiter(clock=clock)
    while limiter.take("a", before).allowed:
        pass
    clock.now += 30  # half of it is back, of either
    taken = 0
    while limiter.take("a", after).allowed:
        taken += 1
    assert taken == pytest.approx(after / 2, abs=1)


def test_memory_is_bounded(clock: Clock) -> None:
    limiter = RateLimiter(most_names=100, clock=clock)
    for number in range(50):
        limiter.take(f"early {number}", 60)
    clock.now += 2  # full again: they need no place
    for number in range(1000):
        limiter.take(f"late {number}", 60)
        assert len(limiter) <= 100
    assert limiter.take("late 999", 60).remaining == 58, "the newest are kept"


def test_in_the_long_run_the_rate_holds(clock: Clock) -> None:
    limiter = RateLimiter(clock=clock)
    let_in = 0
    for _ in range(10 * 60 * 10):  # ten minutes, ten requests a second
        let_in += limiter.take("a", 120).allowed
        clock.now += 0.1
    assert let_in == pytest.approx(120 * 10 + 120, abs=2)

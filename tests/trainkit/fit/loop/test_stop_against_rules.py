"""A client's stop that comes at any step of a run which a patience rule would stop: one reason, a model, true decisions."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest

import trainkit as tk
from tests.support.fit_data import spec, vectors
from trainkit.fit.checkpoint import spec_hash

PATIENCE = 2


class StopsAt:
    """Control: from its n-th question on it wishes for a stop."""

    def __init__(self, step: int, keep: str) -> None:
        self.left, self.keep = step, keep

    def command(self) -> dict[str, Any] | None:
        self.left -= 1
        return {"action": "stop", "keep": self.keep} if self.left < 0 else None


def run(seed: int) -> str:
    rng = random.Random(seed)
    rule = {"kind": "patience", "patience": PATIENCE, "min_delta": 0.2}
    train = {"epochs": 12, "batch_size": 24, "seed": seed, "threads": 1}
    events: list[dict[str, Any]] = []
    document = spec({"kind": "linear"}, train=train, early_stop=[rule], optimizer={"kind": "adam", "lr": 0.1})
    step, keep = rng.randint(0, 44), rng.choice(("best", "last"))
    result = tk.fit(document, vectors(60, 4), on_event=events.append, control=StopsAt(step, keep))
    decisions = [event for event in events if event["type"] == "decision"]
    stops = [decision for decision in decisions if decision["action"] == "stop"]
    assert result.model is not None
    assert stops == decisions[-1:], "one stop, and nothing after it"
    kind = stops[0]["rule"]["kind"]
    assert result.stop_reason == {"patience": "early_stop", "client_stop": "client_stop"}[kind]
    patience_decisions = [d for d in decisions if d["rule"]["kind"] == "patience"]
    assert [d["epoch"] for d in patience_decisions] == list(range(1, len(patience_decisions) + 1)), (
        "each evaluation once, and in order"
    )
    wait = 0
    for decision in patience_decisions:
        wait = 0 if decision["inputs"]["best_epoch"] == decision["epoch"] else wait + 1
        assert decision["inputs"]["wait"] == wait
        assert (decision["action"] == "stop") == (wait >= PATIENCE)
    if kind == "client_stop":
        assert (stops[0]["step"], stops[0]["inputs"]) == (step + 1, {"keep": keep})
    else:
        assert stops[0]["step"] <= step, "the rule was first"
    return result.stop_reason


def test_a_hundred_runs() -> None:
    ends = Counter(map(run, range(100)))
    assert ends.keys() == {"early_stop", "client_stop"}
    assert min(ends.values()) >= 10, ends


def test_a_stop_that_was_decided_elsewhere_ends_with_its_reason() -> None:
    """A rule across jobs has its decision where all jobs are seen: the run adds none of its own."""

    class StopAfterSixCalls:
        calls = 0

        def command(self) -> dict[str, Any] | None:
            self.calls += 1
            command = {"action": "stop", "keep": "best", "stop_reason": "early_stop", "reason": "median: worse than 3"}
            return command if self.calls > 6 else None

    events: list[dict[str, Any]] = []
    train = {"epochs": 12, "batch_size": 24, "threads": 1}
    result = tk.fit(
        spec({"kind": "linear"}, train=train), vectors(60, 4), on_event=events.append, control=StopAfterSixCalls()
    )
    assert (result.outcome, result.stop_reason) == ("finished", "early_stop")
    assert result.stopped_epoch < 12
    assert result.model is not None
    assert {event["rule"]["kind"] for event in events if event["type"] == "decision"} == {"diverged"}
    assert [e["message"] for e in events if e["type"] == "log"] == ["stopping: median: worse than 3"]


@pytest.mark.parametrize(
    ("group", "warned"),
    [(None, "/early_stop/0: the median rule compares jobs"), ("e", "median and percentile: a run by itself has no")],
)
def test_a_run_by_itself_is_never_stopped_by_others_and_says_so_once(group: str | None, warned: str) -> None:
    rules = [{"kind": "median", "min_jobs": 1}, {"kind": "percentile", "min_jobs": 1}, {"kind": "diverged"}]
    events: list[dict[str, Any]] = []
    document = spec({"kind": "linear"}, train={"epochs": 3}, early_stop=rules, group=group)
    result = tk.fit(document, vectors(60, 4), on_event=events.append)
    assert result.stop_reason == "completed"
    assert {event["rule"]["kind"] for event in events if event["type"] == "decision"} == {"diverged"}
    (message,) = [event["message"] for event in events if event["type"] == "log"]
    assert message.startswith(warned)


def test_group_decides_no_bit() -> None:
    """Checkpoints from before there was such a field stay good."""
    facts = vectors(60, 4).facts
    hashes = {spec_hash(tk.JobSpec.model_validate(spec({"kind": "linear"}, group=name)), facts) for name in (None, "e")}
    assert len(hashes) == 1


@pytest.mark.soak
def test_a_thousand_runs() -> None:
    ends = Counter(map(run, range(100, 1100)))
    print(ends)
    assert ends.keys() == {"early_stop", "client_stop"}

"""Replaying early-stop rules over HTTP: on hand-made logs, on both databases, with what is wrong said where."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from service.metrics import service as metrics
from service.metrics.chunks import MetricRow
from tests.support.api import Served
from tests.support.logged_rows import logged_rows
from trainkit.diagnose.early_stopping import EarlyStopDecision, EarlyStopping, Evaluation
from trainkit.spec.early_stop import parse_rules
from trainkit.spec.metrics import with_mode

LOSSES = [3.0, 2.0, 2.5, 2.6, 1.0, 1.5]
SQLITE = pytest.mark.parametrize("migrated_url", ["sqlite"], indirect=True)
RULES = [{"kind": "patience", "patience": 9}, {"kind": "diverged"}, {"kind": "stalled", "evaluations": 9}]


def logged(step: int, **values: float) -> list[MetricRow]:
    """The rows of an evaluation, `val_loss` ..., and the mark that rules were asked."""
    named = [(*name.split("_", 1), value) for name, value in values.items()]
    named.append(("train", "seconds", step * 0.5))
    return [MetricRow(split, name, step, step, value, 0.0) for split, name, value in named]


def evaluate(service: Served, claimed: Any, losses: list[float], rules: EarlyStopping | None, first: int = 1) -> None:
    """The worker's rows of each evaluation and, with `rules`, their decisions."""
    for step, loss in enumerate(losses, start=first):
        values = {"train_loss": loss / 2, "val_loss": loss, "val_loss_se": 0.1}
        service.append(claimed, *logged(step, **values))
        if rules is not None:
            decisions = rules.observe(Evaluation(step, step, values, step * 0.5))
            take(service, claimed, decisions)


def take(service: Served, claimed: Any, decisions: list[EarlyStopDecision]) -> None:
    with service.sessions.begin() as session:
        rows = [decision.as_dict() for decision in decisions]
        metrics.append_decisions(session, claimed.claim, rows)


def early_stopping() -> EarlyStopping:
    return EarlyStopping([with_mode(rule) for rule in parse_rules({"rules": RULES}) or ()])


def simulate(service: Served, job: str, body: Any, query: str = "") -> dict[str, Any]:
    answer = service.client.post(f"/v1/jobs/{job}/decisions:simulate{query}", json=body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_another_patience_on_a_stored_history(service: Served) -> None:
    job = service.submit(early_stop=RULES)
    claimed = service.claim()
    evaluate(service, claimed, LOSSES, early_stopping())
    found = simulate(service, job, {"rules": [{"kind": "patience", "patience": 2}]})
    assert [(d["seq"], d["step"], d["action"], d["inputs"]["wait"]) for d in found["decisions"]] == [
        (1, 1, "continue", 0),
        (2, 2, "continue", 0),
        (3, 3, "continue", 1),
        (4, 4, "stop", 2),
    ]
    rule = found["decisions"][0]["rule"]
    assert (rule["kind"], rule["mode"], rule["patience"]) == ("patience", "min", 2)
    assert (found["total"], found["next"], found["evaluations"], found["matches_recorded"]) == (4, 4, 6, None)
    assert {name: found["stop"][name] for name in ("step", "epoch", "stop_reason")} == {
        "step": 4,
        "epoch": 4,
        "stop_reason": "early_stop",
    }
    assert found["saved"] == {"epochs": 2, "steps": 2, "seconds": 1.0}
    assert found["cost"] == {"metric": "val_loss", "best_if_stopped": 2.0, "best_seen": 1.0, "regret": 1.0}


def test_the_jobs_own_rules_give_the_decisions_that_were_taken(service: Served) -> None:
    job = service.submit(early_stop=RULES)
    claimed = service.claim()
    rules = early_stopping()
    evaluate(service, claimed, [1e30, 2.0, 0.1 + 0.2, math.inf], rules)
    found = simulate(service, job, {})
    assert (found["matches_recorded"], found["total"]) == (True, 12)
    assert found["stop"]["rule"]["kind"] == "diverged"
    assert found["decisions"][-2]["inputs"]["val_loss"] is None
    stored = service.client.get(f"/v1/jobs/{job}/decisions").json()["data"]
    shown = ("seq", "rule", "step", "epoch", "inputs", "action", "reason")
    # jsonb gives 1e30 back as the whole number 10**30, which is not the float
    numbers = json.loads(json.dumps([{name: d[name] for name in shown} for d in stored]), parse_int=float)
    assert numbers == json.loads(json.dumps(found["decisions"]), parse_int=float)
    service.finish(claimed, stop_reason="diverged")
    assert simulate(service, job, {"rules": None})["matches_recorded"] is True


def test_a_decision_that_was_taken_otherwise_is_noticed(service: Served) -> None:
    job = service.submit(early_stop=RULES)
    claimed = service.claim()
    evaluate(service, claimed, [3.0, 2.0], early_stopping())
    evaluate(service, claimed, [1.0], early_stopping(), first=3)  # with its counters forgotten
    assert simulate(service, job, {})["matches_recorded"] is False


def test_a_missing_last_decision_counts_once_nothing_can_come(service: Served) -> None:
    job = service.submit(early_stop=RULES)
    claimed = service.claim()
    evaluate(service, claimed, [3.0, 2.0], early_stopping())
    evaluate(service, claimed, [1.0], None, first=3)
    assert simulate(service, job, {})["matches_recorded"] is True
    service.finish(claimed)
    assert simulate(service, job, {})["matches_recorded"] is False


def test_what_was_run_again_is_left_out(service: Served) -> None:
    job = service.submit(early_stop=RULES)
    claimed = service.claim()
    rules = early_stopping()
    evaluate(service, claimed, [3.0, 2.0], rules)
    kept, rows = rules.state(), service.job(job)
    with service.sessions() as session:
        seq = max(row.seq for row in logged_rows(session, job))
    assert rows["state"] == "running"
    evaluate(service, claimed, [9.0, 9.0, math.nan], rules, first=3)
    with service.sessions.begin() as session:
        metrics.supersede_after(session, claimed.claim, seq)
    assert simulate(service, job, {})["total"] == 6
    # The same fence writes again here; the steps that follow are others.
    again = early_stopping()
    again.load(kept)
    evaluate(service, claimed, [2.5, 1.0], again, first=6)
    found = simulate(service, job, {})
    assert (found["matches_recorded"], found["total"], found["stop"]) == (True, 12, None)
    assert [d["inputs"]["val_loss"] for d in found["decisions"][::3]] == [3.0, 2.0, 2.5, 1.0]


@SQLITE
def test_pages_are_parts_of_one_list(service: Served) -> None:
    job = service.submit(early_stop=RULES)
    evaluate(service, service.claim(), LOSSES, None)
    whole = simulate(service, job, {})
    seen: list[dict[str, Any]] = []
    while True:
        page = simulate(service, job, {}, f"?after={len(seen)}&limit=5")
        assert {**page, "decisions": 0, "next": 0} == {**whole, "decisions": 0, "next": 0}
        if not page["decisions"]:
            break
        seen += page["decisions"]
        assert page["next"] == len(seen)
    assert seen == whole["decisions"]
    assert len(seen) == 18


@SQLITE
def test_a_batch_loss_that_was_not_finite_stops_a_diverged_rule(service: Served) -> None:
    job = service.submit(early_stop=[])
    claimed = service.claim()
    evaluate(service, claimed, [3.0, 2.0], None)
    service.append(
        claimed, MetricRow("train", "batch_loss", 3, 3, 1.0, 0.0), MetricRow("train", "batch_loss", 4, 3, math.nan, 0.0)
    )
    evaluate(service, claimed, [1.0], None, first=5)
    found = simulate(service, job, {"rules": [{"kind": "diverged"}]})
    assert (found["stop"]["step"], found["stop"]["epoch"], found["total"]) == (4, 3, 3)
    assert found["decisions"][-1]["inputs"] == {"batch_loss": None}
    assert found["saved"] == {"epochs": 2, "steps": 1, "seconds": 1.5}
    assert simulate(service, job, {"rules": []})["stop"] is None


@SQLITE
def test_a_job_without_a_history_has_nothing_to_decide(service: Served) -> None:
    job = service.submit()
    found = simulate(service, job, {"rules": [{"kind": "gap"}]})
    assert (found["decisions"], found["stop"], found["evaluations"]) == ([], None, 0)
    assert found["cost"]["regret"] is None


@SQLITE
def test_what_the_history_cannot_decide_is_pointed_at(service: Served) -> None:
    job = service.submit(early_stop=[])
    claimed = service.claim()
    service.append(claimed, *logged(1, train_loss=1.0, val_loss=1.0))
    for rule, where, hint in [
        ({"kind": "patience", "monitor": "val_roc_auc"}, "/rules/1/monitor", "measured only in jobs"),
        ({"kind": "target", "monitor": "val_f1", "value": 1}, "/rules/1/monitor", "Logged: train_loss, val_loss"),
        ({"kind": "noise_patience"}, "/rules/1/monitor", "Standard errors"),
    ]:
        answer = service.client.post(f"/v1/jobs/{job}/decisions:simulate", json={"rules": [{"kind": "diverged"}, rule]})
        assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")
        (error,) = answer.json()["errors"]
        assert (error["pointer"], error["code"]) == (where, "not_logged")
        assert hint in error["hint"]
    service.append(claimed, *logged(2, train_loss=1.0))
    answer = service.client.post(f"/v1/jobs/{job}/decisions:simulate", json={"rules": [{"kind": "patience"}]})
    assert answer.status_code == 422
    assert "at step 2 val_loss was not measured" in answer.text


BAD: list[Any] = [
    [],
    3,
    "rules",
    {"rule": []},
    {"rules": {}},
    {"rules": "patience"},
    {"rules": [None]},
    {"rules": [[]]},
    {"rules": [{}]},
    {"rules": [{"kind": 3}]},
    {"rules": [{"kind": None}]},
    {"rules": [{"kind": "patience", "patience": -1}]},
    {"rules": [{"kind": "patience", "patience": 1e300}]},
    {"rules": [{"kind": "patience", "monitor": ""}]},
    {"rules": [{"kind": "patience", "monitor": "val_" + "x" * 9000}]},
    {"rules": [{"kind": "target"}]},
    {"rules": [{"kind": "time_budget", "seconds": 0}]},
    {"rules": [{"kind": "noise_patience", "monitor": "val_f1"}]},
    {"rules": [{"kind": "gap", "min_growth": "much"}]},
    {"rules": [{"kind": "diverged", "factor": True, "~/": 1}]},
    {"rules": [{"kind": "diverged"}] * 17},
]


@SQLITE
def test_malformed_bodies_are_answered_with_a_place(service: Served) -> None:
    job = service.submit()
    evaluate(service, service.claim(), LOSSES, None)
    for body in BAD:
        answer = service.client.post(f"/v1/jobs/{job}/decisions:simulate", json=body)
        assert answer.status_code == 422, (body, answer.text)
        errors = answer.json()["errors"]
        assert errors, body
        assert all(set(error) == {"pointer", "code", "message", "hint"} for error in errors)
    for raw in (b"", b"{", b"\xff", b'{"rules": [{"kind": "target", "value": NaN}]}', b"null", b"[" * 5000):
        answer = service.client.post(f"/v1/jobs/{job}/decisions:simulate", content=raw)
        assert answer.status_code == 422, raw[:20]
    answer = service.client.post(f"/v1/jobs/{job}/decisions:simulate?limit=0", json={})
    assert answer.status_code == 422


@SQLITE
def test_a_stranger_sees_nothing_and_a_reader_may_ask(service: Served) -> None:
    job = service.submit()
    path = f"/v1/jobs/{job}/decisions:simulate"
    assert service.client_for("other").post(path, json={}).status_code == 404
    assert service.client_for("default", "viewer").post(path, json={}).status_code == 200
    assert service.client.post("/v1/jobs/job_none/decisions:simulate", json={}).status_code == 404

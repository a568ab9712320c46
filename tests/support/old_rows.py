"""Rows as an earlier version has stored them."""

from __future__ import annotations

from datetime import UTC, datetime


def rows_of_the_eleventh_schema() -> dict[str, list[dict[str, object]]]:
    """A row of each table, with as little in its JSON as a row ever had."""
    now = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    at = {"created_at": now, "updated_at": now}
    job = {"id": "job_1", "project_id": "p", "name": "j", "spec": {}, "labels": {}, "dataset_id": "ds_1"}
    counts = dict.fromkeys(("attempts", "interruptions", "priority"), 0)
    numbers = {"max_attempts": 3, "next_seq": 9, "next_event_seq": 1, "next_decision_seq": 4, "fence": 2}
    state: dict[str, object] = {"metrics_last": {}, "metrics_best": {}, "state": "running", "queue": "train"}
    renamed = {"experiment": "g", "decided": {"threads": 2}, "wanted": {"action": "stop"}, "removed": {"logs": {}}}
    dataset = {"id": "ds_1", "project_id": "p", "name": "d", "version": 1, "state": "ready", "interruptions": 0}
    options = {"reading": {"delimiter": ";"}, "bytes": 9, "fence": 1, "rung_at": now}
    upload = {"id": "up_1", "project_id": "p", "state": "failed", "received": 0, "fence": 0, "said": "name bm8=", **at}
    question = {"id": "q_1", "project_id": "p", "kind": "predict", "subject_key": "m", "request": b"{}", "fence": 0}
    answer = {"media_type": "t", "state": "answered", "answer": b"[1]", "answer_type": "u", "created_at": now}
    experiment = {"id": "exp_1", "project_id": "p", "key_id": "k", "name": "", "kind": "grid", "labels": {}, "plan": {}}
    stopping = {"dataset_id": "ds_1", "state": "stopping", "more": False, "wanted": "cancel", **at}
    trial = {"experiment_id": "exp_1", "number": 0, "params": {}, "document": {"a": 1}, "why": {"b": 2}}
    outcome = {"state": "succeeded", "figures": {"val_loss": 0.5}}
    cut = {"project_id": "p", "source_job": "job_1", "code": "overfitting", "edition": 3, "patch": {}, "expected": {}}
    evaluation = {"job_id": "job_1", "seq": 8, "step": 4, "epoch": 2, "tick": 5, "gone": 6, "tallies": {"x": [1]}}
    hook = {"id": "wh_1", "project_id": "p", "url": "https://a", "description": "", "events": [], "secret": "s"}
    delivery = {"id": "msg_1", "webhook_id": "wh_1", "type": "job.failed", "body": "{}", "state": "pending", "fence": 0}
    return {
        "projects": [{"id": "p", "name": "p", "created_at": now}],
        "datasets": [{**dataset, **options, **at}],
        "jobs": [{**job, **counts, **numbers, **state, **renamed, **at, "compact_seq": 7, "across_decisions": 3}],
        "job_events": [{"job_id": "job_1", "seq": 1, "at": now, "kind": "state", "actor": "w"}],
        "log_chunks": [{"job_id": "job_1", "first_seq": 1, "last_seq": 1, "fence": 2, "worst": 3, "body": b""}],
        "uploads": [{**upload, "name": "n", "reading": {"header": True}, "storage_key": "k", "expires_at": now}],
        "questions": [{**question, **answer}],
        "experiments": [{**experiment, **stopping}],
        "experiment_trials": [
            {**trial, "outcome": outcome, "created_at": now},
            {**trial, "number": 1, "outcome": None, "created_at": now},
        ],
        "prescriptions": [{**cut, "job_id": "job_1", "compared": {}, "created_at": now}],
        "experiment_clocks": [{"project_id": "p", "experiment": "g", "ticks": 6}],
        "experiment_members": [{"project_id": "p", "experiment": "g", "job_id": "job_1"}],
        "evaluations": [evaluation],
        "webhooks": [{**hook, "active": True, **at}],
        "webhook_deliveries": [{**delivery, "attempts": 5, "tries": 2, "created_at": now}],
        "housekeeping": [{"name": "house", "owner": "w", "expires_at": now}],
    }

"""Fork, retry, and going on with a job that has ended: new jobs that say where they come from."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import select

from service.jobs import attempts
from service.jobs.tables import Checkpoint
from tests.support.api import Served, error_of, post_job, record_checkpoint
from trainkit.spec.early_stop import PEER_RULE_KINDS
from trainkit.spec.failures import failure
from trainkit.spec.memory import with_next_spec
from trainkit.spec.patch import merge_patch


# the examples of RFC 7396, appendix A
@pytest.mark.parametrize(
    ("target", "patch", "merged"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "b"}, ["c"], ["c"]),
        ({"a": "foo"}, None, None),
        ({"a": "foo"}, "bar", "bar"),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_merge_patches(target: Any, patch: Any, merged: Any) -> None:
    assert merge_patch(target, patch) == merged


def test_a_fork_begins_at_the_checkpoint_with_the_changed_spec(service: Served) -> None:
    job = service.submit(optimizer={"kind": "adam", "lr": 0.1})
    claimed = service.claim()
    refused = post_job(service, f"{job}/fork", {"patch": {}})
    assert (refused.status_code, refused.json()["code"]) == (409, "no_checkpoint")
    key = record_checkpoint(service, claimed)

    answer = post_job(service, f"{job}/fork", {"patch": {"name": "slower", "optimizer": {"lr": 0.01}}})
    assert answer.status_code == 201, answer.text
    fork = answer.json()
    assert answer.headers["Location"] == f"/v1/jobs/{fork['id']}"
    assert (fork["name"], fork["state"], fork["resolved"]["optimizer"]["lr"]) == ("slower", "queued", 0.01)
    assert fork["parent"] == {"job": job, "relation": "fork", "step": 7}
    (event,) = service.client.get(f"/v1/jobs/{fork['id']}/events").json()["data"]
    assert event["reason"] == f"fork of {job}"
    with service.sessions() as session:
        checkpoint = session.scalars(select(Checkpoint).where(Checkpoint.job_id == fork["id"])).one()
    service.context.storage.delete(key)  # the parent's may go
    assert service.context.storage.open(checkpoint.storage_key).read() == b"state at 7"
    again = post_job(service, f"{job}/fork", {"patch": {"name": "slower", "optimizer": {"lr": 0.01}}})
    assert (again.json()["id"], again.headers["Idempotency-Replayed"]) == (fork["id"], "true")


def test_what_a_checkpoint_cannot_go_on_with_is_pointed_at(service: Served) -> None:
    job = service.submit()
    record_checkpoint(service, service.claim())
    patch = {"model": {"hidden": [3]}, "optimizer": {"kind": "sgd"}, "train": {"seed": 9, "epochs": 50}}
    patch["train"]["steps_per_epoch"] = 3
    answer = post_job(service, f"{job}/fork", {"patch": patch})
    assert answer.status_code == 422
    assert [error["pointer"] for error in answer.json()["errors"]] == [
        "/model",
        "/train/seed",
        "/train/steps_per_epoch",
        "/optimizer/kind",
    ]
    wrong = post_job(service, f"{job}/fork", {"patch": {"optimiser": {}}})
    assert [error["pointer"] for error in wrong.json()["errors"]] == ["/optimiser"]
    assert post_job(service, "job_nobody/fork", {}).status_code == 404


@pytest.mark.parametrize(
    ("train", "accumulation_steps", "batch_size"),
    [({}, 2, 32), ({"batch_size": 48, "gradient_accumulation_steps": 2}, 4, 24)],
)
def test_a_job_that_ran_out_of_memory_is_forked_with_the_patch_it_offers(
    service: Served, train: dict[str, int], accumulation_steps: int, batch_size: int
) -> None:
    job = service.submit(train=train)
    claimed = service.claim()
    record_checkpoint(service, claimed)
    error = with_next_spec(failure("out_of_gpu_memory", "no memory left"), claimed.spec)
    with service.sessions.begin() as session:
        attempts.fail(session, claimed.claim, error)
    failed = service.job(job)
    offer = failed["error"]["evidence"]["next_spec"]
    assert (failed["state"], offer["fork"]) == ("failed", True)

    answer = post_job(service, f"{job}/fork", {"patch": offer["patch"]})
    assert answer.status_code == 201, answer.text
    resolved = answer.json()["resolved"]["train"]
    assert (resolved["batch_size"], resolved["gradient_accumulation_steps"]) == (batch_size, accumulation_steps)
    assert answer.json()["parent"] == {"job": job, "relation": "fork", "step": 7}
    anew = service.client.post("/v1/jobs", json=offer["spec"])  # where it had no checkpoint
    assert anew.status_code == 201, anew.text
    assert anew.json()["resolved"]["train"] == resolved


@pytest.mark.parametrize(
    "train",
    [{"batch_size": 32}, {"gradient_accumulation_steps": 2}, {"batch_size": 32, "gradient_accumulation_steps": 4}],
)
def test_a_fork_keeps_the_samples_of_a_step(service: Served, train: dict[str, int]) -> None:
    job = service.submit()
    record_checkpoint(service, service.claim())
    answer = post_job(service, f"{job}/fork", {"patch": {"train": train}})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/train/batch_size")


def test_going_on_with_an_ended_job_makes_a_new_one(service: Served) -> None:
    job = service.submit(train={"epochs": 4})
    claimed = service.claim()
    record_checkpoint(service, claimed, 3)
    running = post_job(service, f"{job}/resume", {"extra_epochs": 2})
    assert (running.status_code, running.json()["code"]) == (409, "wrong_state")
    service.finish(claimed)
    nothing = post_job(service, f"{job}/resume")
    assert (nothing.status_code, nothing.json()["code"]) == (409, "nothing_left")

    answer = post_job(service, f"{job}/resume", {"extra_epochs": 2})
    assert answer.status_code == 201, answer.text
    resumed = answer.json()
    assert resumed["resolved"]["train"]["epochs"] == 6
    assert resumed["parent"] == {"job": job, "relation": "resume", "step": 3}
    assert post_job(service, f"{job}/resume", {"extra_epochs": 2}).json()["id"] == resumed["id"]
    assert post_job(service, f"{job}/resume", {"extra_epochs": 3}).json()["id"] != resumed["id"]
    assert service.job(job)["state"] == "succeeded"


@pytest.mark.parametrize(
    "rule",
    [
        {"kind": "patience", "patience": 1},
        {"kind": "noise_patience", "patience": 1},
        *({"kind": kind} for kind in sorted(PEER_RULE_KINDS)),
    ],
    ids=lambda rule: str(rule["kind"]),
)
def test_a_rule_that_may_have_stopped_the_job_begins_anew(service: Served, rule: dict[str, Any]) -> None:
    rules = [rule, {"kind": "diverged"}]
    job = service.submit(train={"epochs": 10}, early_stop=rules, group="e")
    result = {"best_epoch": 3, "stopped_epoch": 4, "test": {}}
    service.finish(service.claim(), stop_reason="early_stop", result=result)
    resumed = post_job(service, f"{job}/resume").json()
    assert [rule.get("start_epoch") for rule in resumed["resolved"]["early_stop"]] == [4, None]
    assert resumed["resolved"]["train"]["epochs"] == 10
    assert resumed["parent"]["step"] is None


def test_a_paused_job_gets_its_extra_epochs_itself(service: Served) -> None:
    phases = [{"epochs": 2}, {"epochs": 3, "unfreeze": "all"}]
    taught = service.submit()
    service.finish(service.claim())
    job = service.submit(start_from={"job": taught, "freeze": "body", "phases": phases})
    post_job(service, f"{job}/pause")
    answer = post_job(service, f"{job}/resume", {"extra_epochs": 5})
    assert (answer.status_code, answer.json()["id"], answer.json()["state"]) == (200, job, "queued")
    assert answer.json()["resolved"]["train"]["epochs"] == 10
    assert [p["epochs"] for p in answer.json()["resolved"]["start_from"]["phases"]] == [2, 8]
    bad = post_job(service, f"{job}/resume", {"extra_epochs": -1})
    assert bad.status_code == 422


def test_a_retry_is_the_same_job_from_its_beginning(service: Served) -> None:
    job = service.submit(name="again", train={"epochs": 2})
    assert post_job(service, f"{job}/retry").status_code == 409
    claimed = service.claim()
    with service.sessions.begin() as session:
        attempts.fail(session, claimed.claim, error_of("invalid_data"))
    first = post_job(service, f"{job}/retry")
    assert (first.status_code, first.json()["parent"]["relation"]) == (201, "retry")
    assert first.json()["spec"] == service.job(job)["spec"]
    assert post_job(service, f"{job}/retry").json()["id"] == first.json()["id"]
    post_job(service, f"{first.json()['id']}/cancel")
    assert post_job(service, f"{job}/retry").json()["id"] != first.json()["id"]


def test_priority_goes_first_and_limits_hold(service: Served) -> None:
    low = service.submit()
    high = service.submit(resources={"priority": 5})
    assert service.job(high)["priority"] == 5
    assert service.claim().job_id == high
    with service.sessions.begin() as session:
        from service.jobs import leases

        assert leases.claim(session, "train", "w", 30, most_running=1) is None
        claimed = leases.claim(session, "train", "w", 30, most_running=2)
        assert claimed is not None
        assert claimed.job_id == low


def test_a_full_queue_says_so(service: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    object.__setattr__(service.context.settings, "max_queued_jobs", 2)
    service.submit()
    service.submit()
    spec = {"dataset": service.ready_dataset(), "model": {"kind": "mlp"}}
    answer = service.client.post("/v1/jobs", json=spec)
    assert (answer.status_code, answer.json()["code"]) == (429, "too_many_queued")
    assert answer.headers["Retry-After"]
    service.submit(service.client_for("another"))

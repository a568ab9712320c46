"""What a spec names beside its dataset must be there: all of it is told at the POST, each with its pointer."""

from __future__ import annotations

from typing import Any

from tests.support.api import Served


def problems(service: Served, **changes: Any) -> list[tuple[str, str]]:
    spec = {"dataset": service.ready_dataset(), "model": {"kind": "mlp"}, **changes}
    answer = service.client.post("/v1/jobs", json=spec)
    assert answer.status_code in (201, 422), answer.text
    return [(error["pointer"], error["code"]) for error in answer.json().get("errors", [])]


def test_things_that_are_not_there(service: Served) -> None:
    mine = service.submit()
    theirs = service.submit(service.client_for("another"))
    assert problems(service, start_from={"job": "job_x"}) == [("/start_from/job", "unknown_job")]
    assert problems(service, start_from={"job": theirs}) == [("/start_from/job", "unknown_job")]
    assert problems(service, start_from={"job": mine}) == [("/start_from/job", "no_model")]
    assert problems(service, start_from={"model": "mdl_x"}) == [("/start_from/model", "unknown_model")]
    pretrained = {"kind": "mlp", "init": {"kind": "pretrained", "dataset": "ds_x"}}
    assert problems(service, model=pretrained) == [("/model/init/dataset", "unknown_dataset")]
    adapt = {"target_dataset": "ds_x"}
    assert problems(service, adapt=adapt, start_from={"model": "mdl_x"}) == [
        ("/start_from/model", "unknown_model"),
        ("/adapt/target_dataset", "unknown_dataset"),
    ]
    members = {"kind": "ensemble", "members": [mine, "mdl_x"]}
    assert problems(service, model=members) == [
        ("/model/members/0", "no_model"),
        ("/model/members/1", "unknown_model"),
    ]


def test_weights_and_samples_are_not_mistaken_for_each_other(service: Served) -> None:
    samples = service.ready_dataset(name="samples")
    weights = service.ready_dataset(name="weights", kind="weights", samples=0, classes=None, target_type="none")
    assert problems(service, start_from={"dataset": samples}) == [("/start_from/dataset", "not_weights")]
    assert problems(service, dataset=weights) == [("/dataset", "no_samples")]
    assert problems(service, start_from={"dataset": weights}) == []
    preview = service.client.get(f"/v1/datasets/{weights}/preview.png")
    assert (preview.status_code, preview.json()["code"]) == (409, "no_samples")


def test_a_finished_job_and_its_model_may_be_started_from(service: Served) -> None:
    job = service.submit()
    model = service.finish(service.claim())
    assert problems(service, start_from={"job": job}) == []
    assert problems(service, start_from={"model": model}) == []

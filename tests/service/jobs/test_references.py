"""What a spec names beside its dataset must be there: all of it is told at the POST, each with its pointer."""

from __future__ import annotations

from typing import Any

from service.datasets import intake
from service.jobs.service import admit_waiting
from tests.support.api import FACTS, Served


def problems(service: Served, **changes: Any) -> list[tuple[str, str]]:
    spec = {"dataset": service.ready_dataset(), "model": {"kind": "mlp"}, **changes}
    answer = service.client.post("/v1/jobs", json=spec)
    assert answer.status_code in (201, 422), answer.text
    return [(error["pointer"], error["code"]) for error in answer.json().get("errors", [])]


def test_things_that_are_not_there(service: Served) -> None:
    job = service.submit()
    other_job = service.submit(service.client_for("another"))
    assert problems(service, start_from={"job": "job_x"}) == [("/start_from/job", "unknown_job")]
    assert problems(service, start_from={"job": other_job}) == [("/start_from/job", "unknown_job")]
    assert problems(service, start_from={"job": job}) == [("/start_from/job", "no_model")]
    assert problems(service, start_from={"model": "mdl_x"}) == [("/start_from/model", "unknown_model")]
    pretrained = {"kind": "mlp", "init": {"kind": "pretrained", "dataset": "ds_x"}}
    assert problems(service, model=pretrained) == [("/model/init/dataset", "unknown_dataset")]
    adapt = {"target_dataset": "ds_x"}
    assert problems(service, adapt=adapt, start_from={"model": "mdl_x"}) == [
        ("/start_from/model", "unknown_model"),
        ("/adapt/target_dataset", "unknown_dataset"),
    ]
    members = {"kind": "ensemble", "members": [job, "mdl_x"]}
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


def test_a_head_is_kept_for_classes_that_its_model_knows_by_name(service: Served) -> None:
    job = service.submit()
    model = service.finish(service.claim(), model_manifest={"classes": ["a", "b", "c"]})

    def keep(source: dict[str, Any], classes: dict[str, int]) -> list[tuple[str, str]]:
        start = {**source, "head": "keep"}
        return problems(service, dataset=service.ready_dataset(classes=classes), start_from=start)

    refused = [("/start_from/head", "classes_differ")]
    for source in ({"job": job}, {"model": model}):
        assert keep(source, {"c": 500, "a": 500}) == []
        assert keep(source, {"a": 500, "d": 500}) == refused
    numbers = {"dataset": service.ready_dataset(kind="arrays", input_shape=[4], classes=None, target_type="number")}
    assert problems(service, **numbers, start_from={"job": job, "head": "keep"}) == [
        ("/start_from/head", "head_of_classes")
    ]
    weights = service.ready_dataset(name="weights", kind="weights", samples=0, classes=None, target_type="none")
    assert problems(service, start_from={"dataset": weights, "head": "keep"}) == [
        ("/start_from/head", "classes_unknown")
    ]


def test_a_kept_head_is_checked_when_a_dataset_that_the_job_waits_for_is_ready(service: Served) -> None:
    taught = service.submit()
    service.finish(service.claim(), model_manifest={"classes": ["a", "b"]})
    upload = service.client.put("/v1/datasets?name=late", content=b"late")
    spec = {"dataset": upload.json()["id"], "model": {"kind": "mlp"}, "start_from": {"job": taught, "head": "keep"}}
    waits = service.client.post("/v1/jobs", json=spec).json()
    assert waits["state"] == "validating"
    with service.sessions.begin() as session:
        claimed = intake.claim(session, "tests", 30)
        assert claimed is not None
        facts = {**FACTS, "classes": {"a": 500, "x": 500}}
        intake.ready(session, claimed.claim, facts, {"notes": []}, "prepared/late")
        admit_waiting(session, upload.json()["id"])
    failed = service.job(waits["id"])
    assert failed["state"] == "failed"
    assert "does not know x" in str(failed["error"])

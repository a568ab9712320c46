"""Datasets and models by id, `name`, `name:version` and `name@alias`, at every place that takes one."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import pytest

import service.datasets.routes as dataset_routes
import service.models.service as model_service
from service.datasets import intake
from service.experiments import scheduler
from service.inference_requests.service import Answer
from service.jobs.service import admit_waiting
from service.openapi import operations
from tests.support.api import FACTS, Served, assert_problem
from tests.support.openapi_document import openapi_document
from trainkit.spec.failures import failure

OPERATIONS = [
    (method, path) for path, method, _ in operations(openapi_document()) if "{dataset}" in path or "{model}" in path
]
FORMS: dict[str, Callable[[str, str], str]] = {
    "id": lambda identifier, name: identifier,
    "name": lambda identifier, name: name,
    "version": lambda identifier, name: f"{name}:2",
    "alias": lambda identifier, name: f"{name}@production",
}
BODIES: dict[tuple[str, str], Any] = {
    ("post", "/v1/datasets/{dataset}/augmentation-preview.png"): {"augment": [{"kind": "noise", "std": 0.1}]},
    ("post", "/v1/datasets/{dataset}:reread"): {"target": "y"},
    ("post", "/v1/models/{model}/predict"): {"inputs": [1]},
    ("post", "/v1/models/{model}/evaluate"): {"inputs": [1]},
    ("patch", "/v1/models/{model}"): {"notes": "tried"},
}
EVALUATION: dict[str, Any] = {"split": "all", "samples": 1, "metrics": {}, "per_class": [], "classes": []}
EVALUATION |= {"confusion_matrix": [], "warnings": []}
NEW = {"id", "version", "created_at", "updated_at", "request_id"}
"""Fields of an answer that differ from request to request."""


@dataclass
class Registered:
    """Two versions of a dataset and of a model, the second of each `production`."""

    service: Served
    dataset: str
    model: str
    job: str


@pytest.fixture
def registered(service: Served) -> Registered:
    service.ready_dataset(name="digits")
    dataset = service.ready_dataset(name="digits")
    for _ in range(2):
        job = service.submit(name="Ziffern (8x8)", dataset=dataset)
        claimed = service.claim()
        folder = service.context.storage.new_part()
        folder.mkdir()
        (folder / "model.json").write_text(claimed.job_id)
        header = json.dumps({"__metadata__": {"job": claimed.job_id}}).encode()
        (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
        service.context.storage.put_tree(f"models/{claimed.job_id}/1", folder)
        model = service.finish(claimed)
    assert model is not None
    for kind, identifier in (("datasets", dataset), ("models", model)):
        answer = service.client.put(f"/v1/{kind}/{identifier}/aliases/production")
        assert answer.status_code == 200, answer.text
    return Registered(service, dataset, model, job)


@pytest.fixture
def subject_keys(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The storage keys that workers were subject_keys about; they answer at once."""
    keys: list[str] = []

    async def answer(context: Any, who: Any, kind: str, key: str, *further: Any) -> Answer:
        keys.append(key)
        return Answer(
            json.dumps(EVALUATION if kind == "evaluate" else {"predictions": []}).encode(), "application/json"
        )

    monkeypatch.setattr(dataset_routes, "infer", answer)
    monkeypatch.setattr(model_service, "infer", answer)
    return keys


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_every_operation_takes_every_form(
    registered: Registered, subject_keys: list[str], method: str, path: str
) -> None:
    client, answers = registered.service.client, {}
    kind, identifier, name = (
        ("dataset", registered.dataset, "digits")
        if "{dataset}" in path
        else ("model", registered.model, "Ziffern (8x8)")
    )
    for form, reference in FORMS.items():
        text = reference(identifier, name)
        for shown in {quote(text, safe=":@"), quote(text, safe="")}:
            url = path.replace(f"{{{kind}}}", shown).replace("{alias}", "staging")
            if "{alias}" in path and method == "delete":
                assert client.put(url).status_code == 200
            if method == "delete" and "{alias}" not in path:
                answer = client.delete(url)  # refused for its alias, which it could not be for another version
                assert f"/v1/{kind}s/{identifier}/aliases/production" in answer.json()["detail"]
            else:
                query = {"against": registered.dataset} if path.endswith("/drift") else {}
                answer = client.request(method, url, json=BODIES.get((method, path)), params=query)
                assert answer.status_code in (200, 201, 204), f"{url}: {answer.text}"
            is_json = "json" in answer.headers.get("content-type", "") and answer.content
            document = answer.json() if is_json else answer.content
            if isinstance(document, dict):
                document = {name: value for name, value in document.items() if name not in NEW}
            answers[form, shown] = (
                answer.status_code,
                document,
                answer.headers.get("trainkit-model"),
                subject_keys[-1:],
            )
    assert len({str(answer) for answer in answers.values()}) == 1, answers


def test_a_job_keeps_what_its_names_meant_when_it_was_submitted(registered: Registered) -> None:
    service, client = registered.service, registered.service.client
    spec = {"dataset": "digits@production", "model": "mlp", "start_from": {"model": "Ziffern (8x8):2"}}
    job = client.post("/v1/jobs", json=spec).json()
    assert job["spec"]["dataset"] == "digits@production"
    assert job["spec"]["start_from"] == {"model": "Ziffern (8x8):2"}
    assert (job["dataset"]["id"], job["dataset"]["version"]) == (registered.dataset, 2)
    assert job["resolved"]["dataset"]["id"] == registered.dataset
    assert job["resolved"]["start_from"]["model"] == registered.model
    newer = service.ready_dataset(name="digits")
    assert client.put(f"/v1/datasets/{newer}/aliases/production").status_code == 200
    assert client.get(f"/v1/jobs/{job['id']}").json()["dataset"]["id"] == registered.dataset
    client.post(f"/v1/jobs/{job['id']}/cancel")
    retried = client.post(f"/v1/jobs/{job['id']}/retry").json()
    assert (retried["dataset"]["id"], retried["spec"]["dataset"]) == (registered.dataset, registered.dataset)
    assert retried["spec"]["start_from"]["model"] == registered.model
    again = client.post("/v1/jobs", json=spec).json()
    assert again["dataset"]["id"] == newer


def test_a_repeated_request_is_answered_with_its_job_though_the_alias_has_moved(registered: Registered) -> None:
    service, client, spec = registered.service, registered.service.client, {"dataset": "digits", "model": "mlp"}
    first = client.post("/v1/jobs", json=spec, headers={"Idempotency-Key": "k"}).json()
    service.ready_dataset(name="digits")
    replayed = client.post("/v1/jobs", json=spec, headers={"Idempotency-Key": "k"})
    assert (replayed.headers["idempotency-replayed"], replayed.json()["id"]) == ("true", first["id"])
    assert replayed.json()["dataset"]["id"] == registered.dataset


def test_each_place_of_a_spec_takes_names(registered: Registered) -> None:
    service, client = registered.service, registered.service.client
    weights = service.ready_dataset(name="weights", kind="weights", samples=0, classes=None, target_type="none")
    first = client.get("/v1/datasets/digits:1").json()["id"]
    places: list[tuple[dict[str, Any], Callable[[Any], Any], str]] = [
        (
            {"dataset": {"id": "digits:1"}},
            lambda spec: spec["dataset"]["id"],
            first,
        ),
        ({"start_from": {"dataset": "weights"}}, lambda spec: spec["start_from"]["dataset"], weights),
        ({"adapt": {"target_dataset": "digits:2"}}, lambda spec: spec["adapt"]["target_dataset"], registered.dataset),
        (
            {"model": {"kind": "mlp", "init": {"kind": "pretrained", "model": "Ziffern (8x8)@production"}}},
            lambda spec: spec["model"]["init"]["model"],
            registered.model,
        ),
        (
            {"model": {"kind": "mlp", "init": {"kind": "pretrained", "dataset": "weights:1"}}},
            lambda spec: spec["model"]["init"]["dataset"],
            weights,
        ),
        (
            {"model": {"kind": "ensemble", "members": ["Ziffern (8x8):1", registered.job]}},
            lambda spec: spec["model"]["members"][1],
            registered.job,
        ),
    ]
    for changes, place, expected in places:
        spec = {"dataset": "digits", "model": "mlp", **changes}
        checked = client.post("/v1/specs:validate", json=spec)
        assert checked.status_code == 200, checked.text
        assert place(checked.json()["spec"]) == expected
        job = client.post("/v1/jobs", json=spec).json()
        assert place(job["resolved"]) == expected
        assert place(job["spec"]) == place(spec)
    twice = {"dataset": "digits", "model": {"kind": "ensemble", "members": ["Ziffern (8x8)", registered.model]}}
    assert "each member may be named once" in client.post("/v1/jobs", json=twice).text


def test_a_fork_resolves_what_its_patch_names(registered: Registered) -> None:
    service, client = registered.service, registered.service.client
    job = client.post("/v1/jobs", json={"dataset": "digits", "model": "mlp"}).json()["id"]
    answer = client.post(f"/v1/jobs/{job}/fork", json={"patch": {"start_from": {"model": "nothing"}}})
    assert_problem(answer, 409, "no_checkpoint")  # known before the patch is read
    assert service.job(job)["dataset"]["id"] == registered.dataset


def test_a_job_that_waits_for_its_dataset_was_bound_to_it_by_name(service: Served) -> None:
    answer = service.client.put("/v1/datasets?name=fresh", content=b"1")
    spec = {"name": "n", "dataset": "fresh", "model": "mlp"}
    job = service.client.post("/v1/jobs", json=spec).json()
    assert (job["state"], job["dataset"]["id"]) == ("validating", answer.json()["id"])
    with service.sessions.begin() as session:
        claimed = intake.claim(session, "tests", 30)
        assert claimed is not None
        intake.ready(session, claimed.claim, FACTS, {"notes": []}, "prepared/x")
    service.ready_dataset(name="fresh")
    with service.sessions.begin() as session:
        assert admit_waiting(session, answer.json()["id"]) == 1
    shown = service.job(job["id"])
    assert (shown["state"], shown["spec"]["dataset"]) == ("queued", "fresh")
    assert shown["resolved"]["dataset"]["id"] == answer.json()["id"]


def test_a_name_alone_means_no_invalid_version(service: Served) -> None:
    good = service.ready_dataset(name="digits")
    broken = service.client.put("/v1/datasets?name=digits", content=b"broken").json()["id"]
    assert service.client.get("/v1/datasets/digits").json()["id"] == broken, "it is being checked: jobs wait for it"
    with service.sessions.begin() as session:
        claimed = intake.claim(session, "tests", 30)
        assert claimed is not None
        intake.invalid(session, claimed.claim, failure("deleted", "it is broken"))
    assert service.client.get("/v1/datasets/digits").json()["id"] == good
    assert service.client.get("/v1/datasets/digits:2").json()["id"] == broken


def test_an_experiment_keeps_what_its_names_meant(registered: Registered) -> None:
    service, client = registered.service, registered.service.client
    first = client.get("/v1/datasets/digits:1").json()["id"]
    plan = {
        "kind": "grid",
        "spec": {"dataset": "digits@production", "model": "mlp"},
        "space": {"/dataset": ["digits:1", {"id": "digits"}], "/optimizer/lr": [0.1]},
    }
    answer = client.post("/v1/experiments", json=plan)
    assert answer.status_code == 201, answer.text
    experiment = answer.json()
    assert experiment["plan"]["spec"] == plan["spec"]
    assert experiment["plan"]["space"] == plan["space"]
    assert experiment["dataset"] == registered.dataset
    newer = service.ready_dataset(name="digits")
    client.put(f"/v1/datasets/{newer}/aliases/production")
    scheduler.advance(service.context, experiment["id"])
    jobs = client.get("/v1/jobs", params={"group": experiment["id"], "fields": "dataset"}).json()["data"]
    assert {job["dataset"]["id"] for job in jobs} == {first, registered.dataset}
    variants = {
        "kind": "kfold",
        "folds": 2,
        "spec": plan["spec"],
        "variants": {"old": {"start_from": {"model": "nix"}}},
    }
    problem = assert_problem(client.post("/v1/experiments", json=variants), 422, "invalid_spec")
    assert [error["pointer"] for error in problem["errors"]] == ["/variants/old/start_from/model"]
    plan["space"] = {"/dataset": ["digits", "digts"]}
    (error,) = assert_problem(client.post("/v1/experiments", json=plan), 422, "invalid_spec")["errors"]
    assert (error["pointer"], error["code"]) == ("/space/~1dataset/1", "unknown_dataset")
    assert f"'digits' ({newer})" in error["hint"]


def test_a_model_is_evaluated_on_a_dataset_by_name(registered: Registered, subject_keys: list[str]) -> None:
    client = registered.service.client
    body = {"dataset": {"id": "digits@production"}}
    assert client.post("/v1/models/Ziffern (8x8)/evaluate", json=body).status_code == 200
    answer = client.post("/v1/models/Ziffern (8x8)/evaluate", json={"dataset": "digts"})
    assert "Nearest: 'digits'" in assert_problem(answer, 404, "not_found")["detail"]


def test_what_is_not_there_is_answered_with_what_comes_near(registered: Registered) -> None:
    service, client = registered.service, registered.service.client
    dataset, model = registered.dataset, registered.model
    service.ready_dataset(name="other data")
    service.ready_dataset(service.client_for("another"), name="digits-of-a-stranger")
    cases = {
        "/v1/datasets/digts": f"There is no dataset 'digts' in this project. Nearest: 'digits' ({dataset}).",
        "/v1/datasets/Digits": f"Nearest: 'digits' ({dataset}).",
        "/v1/datasets/digits:9": f"Its newest is digits:2 ({dataset}).",
        "/v1/datasets/digits@prod": f"Aliases of 'digits': 'production' (version 2, {dataset}). Its newest is digits:2",
        "/v1/datasets/quite-another": "GET /v1/datasets lists the datasets of this project.",
        f"/v1/datasets/{model}": "It is the id of a model, where a dataset is wanted.",
        f"/v1/models/{dataset}": "It is the id of a dataset, where a model is wanted.",
        "/v1/models/nothing": "GET /v1/models lists the models of this project.",
        "/v1/models/Ziffern (8x9)@production": f"Nearest: 'Ziffern (8x8)' ({model}).",
    }
    for path, expected in cases.items():
        assert expected in assert_problem(client.get(path), 404, "not_found")["detail"], path
    spec = {"dataset": "digts", "model": "mlp", "start_from": {"model": "Ziffern (8x9)"}}
    errors = assert_problem(client.post("/v1/jobs", json=spec), 422, "invalid_spec")["errors"]
    assert [(one["pointer"], one["code"]) for one in errors] == [
        ("/dataset", "unknown_dataset"),
        ("/start_from/model", "unknown_model"),
    ]
    assert [one["hint"] for one in errors] == [
        f"Nearest: 'digits' ({dataset}).",
        f"Nearest: 'Ziffern (8x8)' ({model}).",
    ]
    assert client.get("/v1/datasets/digits%00").status_code in (400, 404, 422)


def test_lists_are_filtered_by_name(registered: Registered) -> None:
    service, client = registered.service, registered.service.client
    first = client.get("/v1/datasets/digits:1").json()["id"]
    old = service.submit(dataset=first)
    of_second = {one["id"] for one in client.get(f"/v1/jobs?dataset={registered.dataset}").json()["data"]}
    assert registered.job in of_second

    def found(*references: str) -> set[str]:
        answer = client.get("/v1/jobs", params={"dataset": references})
        assert answer.status_code == 200, answer.text
        return {one["id"] for one in answer.json()["data"]}

    assert found("digits:1") == found(first) == {old}
    assert found("digits:2") == found("digits@production") == of_second
    assert found("digits") == found("digits:1", "digits@production") == {old, *of_second}
    assert found("ds_" + "0" * 26) == set()
    problem = assert_problem(client.get("/v1/jobs?dataset=digts"), 422, "invalid_request")
    (error,) = problem["errors"]
    assert (error["pointer"], error["hint"]) == ("query/dataset", f"Nearest: 'digits' ({registered.dataset}).")


def test_a_stranger_s_names_are_not_found(registered: Registered) -> None:
    stranger = registered.service.client_for("another")
    for reference in ("digits", "digits:2", "digits@production", registered.dataset):
        assert_problem(stranger.get(f"/v1/datasets/{reference}"), 404, "not_found")
        answer = stranger.post("/v1/jobs", json={"dataset": reference, "model": "mlp"})
        assert registered.dataset not in answer.text.replace(f"'{registered.dataset}'", "")
        assert assert_problem(answer, 422, "invalid_spec")["errors"][0]["code"] == "unknown_dataset"


@pytest.mark.parametrize("name", ["a:3", "me@home", "ds_" + "0" * 26, "..", " a", "a/b"])
def test_names_that_no_reference_could_name_are_refused_wherever_one_is_given(service: Served, name: str) -> None:
    model = service.finish(service.claim()) if service.submit() else None
    answers = [
        service.client.put("/v1/datasets", params={"name": name}, content=b"x"),
        service.client.post("/v1/datasets", data={"name": name}, files={"file": b"x"}),
        service.client.post("/v1/datasets", json={"uri": "file:///x", "name": name}),
        service.client.patch(f"/v1/models/{model}", json={"name": name}),
    ]
    for answer in answers:
        assert answer.status_code == 422, answer.text
        assert "name" in answer.json()["errors"][0]["pointer"]


def test_a_file_s_name_becomes_a_name(service: Served) -> None:
    answer = service.client.post("/v1/datasets", files={"file": ("me@home:3.csv", b"x")})
    assert answer.json()["name"] == "me-home-3"

"""Versions that only rise, aliases that move at once, and what a model says of its making."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from service.datasets import service as datasets
from service.datasets.receive import Received
from service.datasets.references import DATASETS
from service.errors import HttpProblem
from service.models import service as model_service
from service.models.references import MODELS
from service.models.schemas import ModelPatch
from service.models.tables import Model
from service.principal import Principal
from service.registry import repository as names
from service.registry import service as registry
from tests.support.api import Served, assert_problem
from trainkit.version import __version__

BASE = Principal("key:tests", role="developer")


def trained(service: Served, name: str, **changes: Any) -> str:
    """The model of a new job of that name."""
    service.submit(name=name, **changes)
    model = service.finish(service.claim())
    assert model is not None
    return model


def shown(service: Served, reference: str) -> dict[str, Any]:
    answer = service.client.get(f"/v1/models/{reference}")
    assert answer.status_code == 200, answer.text
    document: dict[str, Any] = answer.json()
    return document


def principal_of(service: Served, model: str) -> Principal:
    """Whoever may edit the model."""
    with service.sessions() as session:
        return replace(BASE, project_id=session.get_one(Model, model).project_id)


def together(count: int, work: Callable[[int], Any]) -> list[Any]:
    """What `work` returns for 0 .. count - 1, all begun at the same moment."""
    start = threading.Barrier(count)

    def begin(number: int) -> Any:
        start.wait()
        return work(number)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(begin, range(count)))


def test_a_model_is_the_next_version_of_its_job_s_name(service: Served) -> None:
    first, second, other = trained(service, "digits"), trained(service, "digits"), trained(service, "run 1/2 @night:3")
    assert [(shown(service, one)["name"], shown(service, one)["version"]) for one in (first, second, other)] == [
        ("digits", 1),
        ("digits", 2),
        ("run 1-2 -night-3", 1),
    ]
    unnamed = shown(service, trained(service, ""))
    assert (unnamed["name"], unnamed["version"]) == (None, None)
    assert shown(service, "digits")["id"] == second
    listed = service.client.get("/v1/models?name=digits").json()["data"]
    assert [one["version"] for one in listed] == [2, 1]


def test_a_version_s_number_is_never_given_twice(service: Served) -> None:
    trained(service, "digits")
    second = trained(service, "digits")
    assert service.client.delete(f"/v1/models/{second}").status_code == 204
    detail = assert_problem(service.client.get("/v1/models/digits:2"), 404, "not_found")["detail"]
    assert "Version 2 of 'digits' was deleted or renamed. Its newest is digits:1" in detail
    assert shown(service, trained(service, "digits"))["version"] == 3


@pytest.mark.postgresql
def test_jobs_that_end_at_once_get_versions_without_a_gap(service: Served) -> None:
    dataset, ended = service.ready_dataset(), 8
    for _ in range(ended):
        service.submit(name="digits", dataset=dataset)
    claims = [service.claim() for _ in range(ended)]
    models = together(ended, lambda number: service.finish(claims[number]))
    assert sorted(shown(service, model)["version"] for model in models) == list(range(1, ended + 1))


@pytest.mark.postgresql
def test_uploads_of_one_name_at_once_get_versions_without_a_gap(service: Served) -> None:
    who = principal_of(service, trained(service, "any"))

    def upload(number: int) -> tuple[str, int]:
        part = service.context.storage.new_part()
        part.write_bytes(content := b"%d" % (number % 4))
        received = Received(part, hashlib.sha256(content).hexdigest(), len(content))
        dataset = datasets.register(service.context, who, received, datasets.DatasetMetadata("d"))
        return dataset.id, dataset.version

    uploaded = set(together(8, upload))  # the same bytes are the same version, unless other bytes came in between
    assert sorted(version for _, version in uploaded) == list(range(1, len(uploaded) + 1))
    assert 4 <= len(uploaded) <= 8


@pytest.mark.postgresql
def test_an_alias_moved_by_many_at_once_means_one_version_and_its_record_is_whole(service: Served) -> None:
    models = [trained(service, "digits") for _ in range(4)]
    project = principal_of(service, models[0]).project_id
    assert service.client.put(f"/v1/models/{models[0]}/aliases/production").status_code == 200
    gone = threading.Event()
    missing: list[str] = []

    def look() -> None:
        while not gone.is_set():
            with service.sessions() as session:
                try:
                    registry.resolve_reference(session, project, MODELS, "digits@production")
                except registry.UnknownReferenceError as error:
                    missing.append(str(error))

    def move(number: int) -> None:
        for turn in range(4):
            with service.sessions.begin() as session:
                target = models[(number + turn) % 4]
                registry.set_alias(session, project, MODELS, target, "production", f"key:{number}")

    reader = threading.Thread(target=look)
    reader.start()
    together(4, move)
    gone.set()
    reader.join()
    assert missing == []
    history = service.client.get("/v1/models/digits/aliases?limit=200").json()["data"]
    in_force = [one for one in history if one["ended_at"] is None]
    assert [one["target"] for one in in_force] == [shown(service, "digits@production")["id"]]
    oldest_first = sorted(history, key=lambda one: one["created_at"])
    for before, after in pairwise(oldest_first):
        assert before["ended_at"] <= after["created_at"]
        assert before["ended_by"] == after["created_by"]
        assert before["target"] != after["target"]


@pytest.mark.postgresql
def test_a_model_is_not_deleted_while_it_becomes_production(service: Served) -> None:
    models = [trained(service, f"m{number}") for number in range(6)]
    who = principal_of(service, models[0])

    def race(number: int) -> tuple[int, int]:
        model = models[number // 2]
        try:
            with service.sessions.begin() as session:
                if number % 2:
                    model_service.delete(session, service.context, who, model)
                else:
                    registry.set_alias(session, who.project_id, MODELS, model, "production", "key:x")
        except HttpProblem as problem:
            return number // 2, problem.status
        return number // 2, 200

    for number, status in together(12, race):
        kept = service.client.get(f"/v1/models/{models[number]}").status_code == 200
        aliased = service.client.get(f"/v1/models/m{number}@production").status_code == 200
        assert kept == aliased
        assert status in ((200, 409) if kept else (200, 404, 409))


def test_an_alias_is_set_moved_and_removed(service: Served) -> None:
    first, second = trained(service, "digits"), trained(service, "digits")
    client = service.client
    put = client.put(f"/v1/models/{first}/aliases/production")
    assert (put.json()["name"], put.json()["version"], put.json()["target"]) == ("digits", 1, first)
    assert client.put("/v1/models/digits:1/aliases/production").json() == put.json(), "once more changes nothing"
    assert client.put("/v1/models/digits@production/aliases/champion").json()["version"] == 1
    assert shown(service, first)["aliases"] == ["champion", "production"]
    moved = client.put("/v1/models/digits/aliases/production").json()
    assert (moved["version"], moved["created_by"][:4]) == (2, "key:")
    assert (shown(service, "digits@production")["id"], shown(service, "digits@champion")["id"]) == (second, first)
    assert [one["aliases"] for one in client.get("/v1/models").json()["data"]] == [["production"], ["champion"]]
    assert client.delete("/v1/models/digits/aliases/champion").status_code == 204
    detail = assert_problem(client.get("/v1/models/digits@champion"), 404, "not_found")["detail"]
    assert f"Aliases of 'digits': 'production' (version 2, {second})" in detail
    assert_problem(client.delete("/v1/models/digits/aliases/champion"), 404, "not_found")
    history = client.get("/v1/models/digits/aliases").json()["data"]
    assert [(one["alias"], one["version"], one["ended_at"] is None) for one in history] == [
        ("production", 2, True),
        ("champion", 1, False),
        ("production", 1, False),
    ]
    assert all(one["ended_by"] == one["created_by"] for one in history[1:])
    page = client.get("/v1/models/digits/aliases?limit=2").json()
    assert page["has_more"]
    assert client.get(f"/v1/models/digits/aliases?after={page['next']}").json()["data"] == history[2:]


def test_the_same_aliases_name_versions_of_datasets(service: Served) -> None:
    first, second = service.ready_dataset(name="digits"), service.ready_dataset(name="digits")
    client = service.client
    assert client.put("/v1/datasets/digits:1/aliases/frozen").json()["target"] == first
    assert client.get("/v1/datasets/digits@frozen").json()["aliases"] == ["frozen"]
    assert client.post("/v1/datasets/digits:1:reread", json={}).json()["version"] == 3, "not the last version"
    assert client.put("/v1/datasets/digits:3/aliases/read").status_code == 200
    again = client.post("/v1/datasets/digits:3:reread", json={}).json()
    assert (again["version"], again["aliases"]) == (3, ["read"])
    problem = assert_problem(client.delete("/v1/datasets/digits@frozen"), 409, "aliased")
    assert f"DELETE /v1/datasets/{first}/aliases/frozen" in problem["detail"]
    assert_problem(client.delete("/v1/datasets/digits@frozen?force=true"), 409, "aliased")
    assert client.put(f"/v1/datasets/{second}/aliases/frozen").status_code == 200
    assert client.delete(f"/v1/datasets/{first}").status_code == 204
    with service.sessions() as session:
        assert names.aliases_of(session, [first, second]) == {first: [], second: ["frozen"]}
        assert DATASETS.kind == "dataset"


@pytest.mark.parametrize("alias", ["1st", "a b", "a@b", "x" * 65, "ä", "a:1"])
def test_aliases_that_a_reference_could_not_hold_are_refused(service: Served, alias: str) -> None:
    model = trained(service, "digits")
    problem = assert_problem(service.client.put(f"/v1/models/{model}/aliases/{alias}"), 422, "invalid_request")
    assert problem["errors"][0]["pointer"] == "path/alias"


def test_what_has_an_alias_is_neither_deleted_nor_renamed(service: Served) -> None:
    model, client = trained(service, "digits"), service.client
    client.put(f"/v1/models/{model}/aliases/production")
    problem = assert_problem(client.delete(f"/v1/models/{model}"), 409, "aliased")
    assert problem["detail"] == (
        "digits@production means this model: it cannot be deleted. Move the alias to another version first, or remove "
        f"it: DELETE /v1/models/{model}/aliases/production."
    )
    assert_problem(client.patch(f"/v1/models/{model}", json={"name": "other"}), 409, "aliased")
    assert shown(service, "digits")["aliases"] == ["production"]
    assert client.delete(f"/v1/models/{model}/aliases/production").status_code == 204
    assert client.delete(f"/v1/models/{model}").status_code == 204


def test_a_model_changes_only_as_it_was_seen(service: Served) -> None:
    trained(service, "digits")
    client, path = service.client, "/v1/models/digits"
    seen = client.get(path).headers["etag"]
    first = client.patch(path, json={"notes": "a"}, headers={"If-Match": seen})
    assert first.status_code == 200, first.text
    late = client.patch(path, json={"notes": "b"}, headers={"If-Match": seen})
    assert_problem(late, 412, "changed_meanwhile")
    assert client.get(path).json()["notes"] == "a"
    assert late.headers["etag"] == client.get(path).headers["etag"]
    assert client.patch(path, json={"notes": "b"}, headers={"If-Match": "*"}).json()["notes"] == "b"


def test_a_model_is_renamed_annotated_and_labelled(service: Served) -> None:
    trained(service, "digits")
    model, client = trained(service, "sweep: lr 0.1", labels={"team": "vision", "old": "1"}), service.client
    before = shown(service, model)
    assert before["labels"] == {"team": "vision", "old": "1"}, "as its job's"
    patch = {"name": "digits", "notes": "best of the sweep", "labels": {"old": None, "stage": "trial"}}
    answer = client.patch(f"/v1/models/{model}", json=patch)
    assert answer.status_code == 200, answer.text
    after = answer.json()
    assert (after["name"], after["version"], after["notes"]) == ("digits", 2, "best of the sweep")
    assert after["labels"] == {"team": "vision", "stage": "trial"}
    assert after["updated_at"] > before["updated_at"]
    assert after["lineage"] == before["lineage"]
    assert client.patch("/v1/models/digits:2", json={"name": "digits"}).json() == after, "it is called that already"
    assert client.patch("/v1/models/digits:2", json={}).json() == after
    assert client.patch("/v1/models/digits:2", json={"notes": None}).json()["notes"] is None
    assert_problem(client.patch("/v1/models/digits", json={"name": None}), 422, "invalid_request")
    assert_problem(client.patch("/v1/models/digits", json={"nmae": "x"}), 422, "invalid_request")
    many = {"labels": {f"k{number}": "v" for number in range(31)}}
    assert_problem(client.patch("/v1/models/digits", json=many), 422, "too_many_labels")
    detail = assert_problem(client.get("/v1/models/sweep: lr 0.1"), 404, "not_found")["detail"]
    assert "nothing is left to use" in detail


def test_a_model_without_a_name_gets_one_before_an_alias(service: Served) -> None:
    model, client = trained(service, ""), service.client
    problem = assert_problem(client.put(f"/v1/models/{model}/aliases/production"), 409, "no_name")
    assert f"PATCH /v1/models/{model}" in problem["detail"]
    assert_problem(client.delete(f"/v1/models/{model}/aliases/production"), 404, "not_found")
    assert client.get(f"/v1/models/{model}/aliases").json()["data"] == []
    assert client.patch(f"/v1/models/{model}", json={"name": "digits"}).json()["version"] == 1
    assert client.put(f"/v1/models/{model}/aliases/production").status_code == 200


@pytest.mark.postgresql
def test_models_renamed_crosswise_at_once_do_not_block_each_other(service: Served) -> None:
    left, right = trained(service, "left"), trained(service, "right")
    who = principal_of(service, left)

    def rename(number: int) -> None:
        model, name = (left, "right") if number % 2 else (right, "left")
        with service.sessions.begin() as session:
            model_service.change(session, who, model, ModelPatch(name=name))

    together(2, rename)
    assert [(shown(service, one)["name"], shown(service, one)["version"]) for one in (left, right)] == [
        ("right", 2),
        ("left", 2),
    ]


def test_the_lineage_outlives_what_it_names(service: Served) -> None:
    dataset = service.ready_dataset(name="digits")
    base = trained(service, "base", dataset=dataset)
    job = service.submit(name="tuned", dataset=dataset, start_from={"model": "base"})
    model = service.finish(service.claim())
    assert model is not None
    resolved, stored = service.job(job)["resolved"], service.client.get(f"/v1/datasets/{dataset}").json()
    lineage = shown(service, model)["lineage"]
    untrained = ("name", "labels", "group", "diagnose", "investigation")
    kept = {name: value for name, value in resolved.items() if name not in untrained}
    text = json.dumps(kept, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert lineage == {
        "job": job,
        "dataset": {"id": dataset, "name": "digits", "version": 1, "sha256": stored["sha256"]},
        "spec_sha256": hashlib.sha256(text.encode()).hexdigest(),
        "parents": [base],
        "trainkit": __version__,
    }
    again = service.submit(name="another name", labels={"a": "b"}, dataset=dataset, start_from={"model": base})
    twin = service.finish(service.claim())
    assert twin is not None
    assert shown(service, twin)["lineage"]["spec_sha256"] == lineage["spec_sha256"], "names change no training"
    for path in (f"jobs/{job}", f"jobs/{again}", f"models/{base}"):
        assert service.client.delete(f"/v1/{path}").status_code == 204
    assert shown(service, model)["lineage"] == lineage
    assert shown(service, model)["job"] is None


def test_an_ensemble_s_parents_are_its_members_and_those_of_its_jobs(service: Served) -> None:
    dataset = service.ready_dataset(name="digits")
    job = service.submit(name="a", dataset=dataset)
    first = service.finish(service.claim())
    second = trained(service, "b", dataset=dataset)
    both = trained(service, "both", dataset=dataset, model={"kind": "ensemble", "members": [job, "b"]})
    assert shown(service, both)["lineage"]["parents"] == [first, second]

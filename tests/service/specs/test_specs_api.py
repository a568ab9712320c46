"""A spec can be checked without creating anything."""

from __future__ import annotations

from tests.support.api import Served


def test_validate_resolves_and_estimates(service: Served) -> None:
    spec = {"dataset": service.ready_dataset(), "model": {"kind": "mlp", "hidden": [10]}}
    answer = service.client.post("/v1/specs:validate", json=spec).json()
    assert answer["valid"] is True
    assert answer["spec"]["task"] == "classification"
    assert answer["estimate"]["parameters"] == 64 * 10 + 10 + 10 * 2 + 2
    assert answer["estimate"]["memory_bytes"] > 0
    assert service.client.get("/v1/jobs").json()["data"] == []


def test_mistakes_of_form_and_of_the_data_are_told_at_once(service: Served) -> None:
    spec = {
        "dataset": service.ready_dataset(),
        "model": {"kind": "mlp", "hiden": [3]},
        "augment": [{"kind": "hue"}],
        "early_stop": [{"kind": "patience", "monitor": "val_mse"}],
    }
    answer = service.client.post("/v1/jobs", json=spec)
    assert answer.status_code == 422
    pointers = {error["pointer"] for error in answer.json()["errors"]}
    assert {"/model/hiden", "/augment/0", "/early_stop/0/monitor"} <= pointers


def test_validate_takes_yaml(service: Served) -> None:
    text = f"dataset: {service.ready_dataset()}\nmodel: {{kind: mlp}}\n"
    answer = service.client.post("/v1/specs:validate", content=text, headers={"Content-Type": "application/yaml"})
    assert (answer.status_code, answer.json()["valid"]) == (200, True)
    sent_by_curl = {"Content-Type": "application/x-www-form-urlencoded"}
    assert service.client.post("/v1/specs:validate", content=text, headers=sent_by_curl).status_code == 200


def test_while_the_dataset_is_checked_only_the_spec_itself_is_looked_at(service: Served) -> None:
    dataset = service.client.put("/v1/datasets?name=d", content=b"x").json()["id"]
    spec = {"dataset": dataset, "model": {"kind": "mlp"}}
    answer = service.client.post("/v1/specs:validate", json=spec).json()
    assert [w["code"] for w in answer["warnings"]] == ["dataset_not_ready"]
    assert answer["estimate"] is None
    report = service.client.post("/v1/specs:init-report", json=spec)
    assert (report.status_code, report.json()["code"]) == (409, "not_ready")


def test_the_schema_and_the_catalogue_are_there(service: Served) -> None:
    assert "model" in service.client.get("/v1/specs/schema").json()["properties"]
    catalogue = service.client.get("/v1/catalog").json()
    assert catalogue

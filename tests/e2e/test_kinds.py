"""Every kind of everything works in a real job over HTTP: each job takes the next kind of each section."""

from __future__ import annotations

import csv
import io
import zipfile
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnxruntime
import pytest
from sklearn.datasets import load_diabetes, load_digits

from tests.support.api_steps import submit, upload, wait_until
from tests.support.image_tables import MODEL, archive, png
from tests.support.stack import Stack
from trainkit.spec.catalog import catalog

pytestmark = pytest.mark.parametrize("stack", ["sqlite"], indirect=True)
NEEDS_MORE = {"pretrained"}
"""Kinds that need an earlier model; they have tests of their own below."""
COLOUR = {"saturation", "hue"}
"""The digits are grey."""
SMALL = {"epochs": 2, "batch_size": 64}


def kinds(section: str) -> list[dict[str, Any]]:
    return [entry["default"] for entry in catalog()[section] if entry["default"] and entry["kind"] not in NEEDS_MORE]


def one_of_each(dataset: str) -> list[dict[str, Any]]:
    """As many specs as the longest section has kinds; shorter sections start again."""
    losses = [loss for loss in kinds("loss") if loss["kind"] not in ("mae", "huber", "hinge")]
    augment = [[step] for step in kinds("augment") if step["kind"] not in COLOUR]
    models = [
        {"kind": "linear"},
        {"kind": "mlp", "hidden": [32], "norm": "layer", "input_dropout": 0.1},
        {"kind": "cnn", "channels": [8, 8], "head": "flatten", "spatial_dropout": 0.1, "pool": "average"},
        {"kind": "residual_cnn", "channels": [8, 8], "norm": "group"},
    ]
    sections = [
        [{"optimizer": o} for o in kinds("optimizer")],
        [{"schedule": s} for s in kinds("schedule")],
        [{"loss": loss} for loss in losses],
        [{"augment": steps} for steps in augment],
        [{"model": model} for model in models],
        [{"balance": entry["kind"]} for entry in catalog()["balance"]],
        [{"preprocess": [{"kind": k}]} for k in ("zero_mean", "min_max", "z_score", "whiten")],
        [{"regularize": r} for r in ({"l1": 0.1}, {"l2": 0.1, "max_norm": 3}, {"weight_decay": 0.01})],
        [{"early_stop": [rule]} for rule in rules()],
    ]
    length = max(map(len, sections))
    specs = []
    for parts in islice(zip(*(cycle(section) for section in sections), strict=False), length):
        spec: dict[str, Any] = {"dataset": dataset, "split": {"subsample": 0.3}, "train": SMALL}
        for part in parts:
            spec |= part
        specs.append(spec)
    for index, init in enumerate(kinds("init")):
        specs[index]["model"] = {"kind": "mlp", "hidden": [16], "init": init}
    for index, entry in enumerate(catalog()["activation"]):
        specs[-1 - index]["model"] = {"kind": "mlp", "hidden": [16], "activation": entry["kind"]}
    return specs


def rules() -> list[dict[str, Any]]:
    return [
        {"kind": "patience", "monitor": "val_accuracy"},
        {"kind": "target", "monitor": "val_accuracy", "value": 0.999},
        {"kind": "diverged", "factor": 100},
        {"kind": "time_budget", "seconds": 60},
        {"kind": "no_progress"},
        {"kind": "gap"},
    ]


def finished(client: httpx.Client, specs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    jobs = [submit(client, spec) for spec in specs]
    done = []
    for job, spec in zip(jobs, specs, strict=True):
        ended = wait_until(client, job, "succeeded", "stopped", "failed", seconds=170)
        assert ended["state"] == "succeeded", (spec, ended["error"])
        done.append(ended)
    return done


def test_every_kind_for_images(stack: Stack, data: Path) -> None:
    with stack.client() as client:
        for done in finished(client, one_of_each(upload(client, data / "digits.zip"))):
            assert done["result"]["model"]
            assert done["metrics"]["last"]["val_loss"] is not None
            assert done["runtime"]["threads"] >= 1


def test_flattening_preprocessing_svm_and_a_torchvision_network(stack: Stack, data: Path) -> None:
    with stack.client() as client:
        dataset = upload(client, data / "digits.zip")
        chain = [{"kind": "zero_mean"}, {"kind": "pca", "components": 0.9}, {"kind": "whiten", "method": "pca"}]
        common: dict[str, Any] = {"dataset": dataset, "split": {"subsample": 0.1}, "train": SMALL}
        svm = {**common, "model": {"kind": "linear_svm"}, "preprocess": chain, "regularize": {"l2": 1.0}}
        zoo = {**common, "model": {"kind": "torchvision", "name": "shufflenet_v2_x0_5", "image_size": 32}}
        done = finished(client, [svm, zoo])
        graph = client.get(f"/v1/models/{done[0]['result']['model']}/download", params={"format": "onnx"})
        assert graph.status_code == 200, graph.text
        assert onnxruntime.InferenceSession(graph.content).get_outputs()[0].name == "probabilities"


def test_images_with_the_columns_of_their_table(stack: Stack, tmp_path: Path) -> None:
    (tmp_path / "images.zip").write_bytes(archive(96))
    (tmp_path / "few.zip").write_bytes(archive(96, first=3, labels=False))
    with stack.client() as client:
        dataset = upload(client, tmp_path / "images.zip")
        report = client.get(f"/v1/datasets/{dataset}/report").json()
        assert "feature_columns" in {found["code"] for found in report["findings"]}
        common = {
            "dataset": dataset,
            "train": {"epochs": 30, "batch_size": 16},
            "optimizer": {"kind": "adam", "lr": 0.02},
        }
        alone, both = {**common, "model": MODEL["image"]}, {**common, "model": MODEL}
        checked = client.post("/v1/specs:validate", json=alone).json()
        assert "unused_columns" in {warning["code"] for warning in checked["warnings"]}
        done = finished(client, [alone, both])
        logs = client.get(f"/v1/jobs/{done[0]['id']}/logs").text
        assert "the table's columns are not used (side, age)" in logs
        evaluation = client.get(f"/v1/jobs/{done[1]['id']}/evaluation").json()
        assert evaluation["metrics"]["accuracy"] > evaluation["ablation"]["without_image"]["accuracy"]
        assert evaluation["metrics"]["accuracy"] > evaluation["ablation"]["without_columns"]["accuracy"]

        model = f"/v1/models/{done[1]['result']['model']}"
        named = client.post(f"{model}/evaluate", json={"dataset": dataset, "part": "test"}).json()
        assert (named["metrics"], named["ablation"]) == (evaluation["metrics"], evaluation["ablation"])
        sent = client.post(f"{model}/evaluate", content=archive(96), headers={"Content-Type": "application/zip"}).json()
        assert sent["samples"] == 96

        files = {"image": ("a.png", png(np.zeros((6, 6))), "image/png")}
        one = client.post(f"{model}/predict", files=files, data={"columns": '{"side": "left", "age": "50,5"}'})
        assert one.status_code == 200, one.text
        assert one.json()["predictions"][0]["warnings"] == []
        refused = client.post(f"{model}/predict", files=files, data={"columns": '{"side": "left"}'})
        assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, "/inputs/0/columns/age")
        few = (tmp_path / "few.zip").read_bytes()
        several = client.post(f"{model}/predict", content=few, headers={"Content-Type": "application/zip"})
        assert len(several.json()["predictions"]) == 3
        graph = client.get(f"{model}/download", params={"format": "onnx"})
        inputs = onnxruntime.InferenceSession(graph.content).get_inputs()
        assert [one.name for one in inputs] == ["x", "columns"]


def test_sequences_numbers_fine_tuning_ensemble_and_adaptation(stack: Stack, data: Path, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    lengths = random.integers(5, 12, 120)
    labels = np.arange(120) % 2
    values = np.concatenate([random.normal(label, 1, (n, 3)) for n, label in zip(lengths, labels, strict=True)])
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    np.savez(tmp_path / "sequences.npz", values=values, offsets=offsets, y=labels)
    diabetes = load_diabetes()
    with (tmp_path / "diabetes.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*diabetes.feature_names, "progression"])
        writer.writerows(np.column_stack([diabetes.data, diabetes.target]).tolist())

    with stack.client() as client:
        sequences = upload(client, tmp_path / "sequences.npz")
        table = upload(client, tmp_path / "diabetes.csv", target="progression")
        digits = upload(client, data / "digits.zip")
        recurrent = [
            {
                "dataset": sequences,
                "model": {"kind": kind, "hidden": 16, "bidirectional": both},
                "optimizer": {"kind": "adam", "lr": 0.02},
                "train": {"epochs": 20, "batch_size": 16},
            }
            for kind, both in (("lstm", False), ("gru", True))
        ]
        numbers = [
            {
                "dataset": table,
                "preprocess": [{"kind": "z_score"}],
                "model": {"kind": "mlp", "hidden": [16]},
                "loss": {"kind": loss},
                "optimizer": {"kind": "adam", "lr": 0.01},
                "train": {"epochs": 20, "batch_size": 32},
            }
            for loss in ("mse", "mae", "huber")
        ]
        base = {"dataset": digits, "model": {"kind": "cnn", "channels": [8, 16]}, "train": SMALL}
        done = finished(client, [*recurrent, *numbers, base])
        assert all(job["result"]["test"]["accuracy"] > 0.8 for job in done[:2])
        assert all(job["result"]["test"]["r2"] > 0.05 for job in done[2:5])

        taught = done[5]["id"]
        tuned = {
            **base,
            "start_from": {
                "job": taught,
                "freeze": "body",
                "phases": [{"epochs": 1}, {"epochs": 1, "unfreeze": 1, "body_lr": 1e-4}],
            },
        }
        again = {**base, "model": {**base["model"], "init": {"kind": "pretrained", "job": taught}}}
        adapted = {**base, "adapt": {"target_dataset": digits}}
        kept = {**base, "start_from": {"job": taught, "head": "keep", "freeze": {"first": 1}}}
        later = finished(client, [tuned, again, adapted, kept])
        assert [phase["blocks"] for phase in later[0]["runtime"]["phases"]] == [[], ["block_2"]]
        assert [phase["blocks"] for phase in later[3]["runtime"]["phases"]] == [["block_2"]]
        assert later[3]["runtime"]["trainable"] < later[3]["runtime"]["parameters"]
        ensemble = {"dataset": digits, "model": {"kind": "ensemble", "members": [taught, later[1]["id"]]}}
        (together,) = finished(client, [ensemble])
        answer = client.post(
            f"/v1/models/{together['result']['model']}/predict",
            content=(data / "held-out-7.png").read_bytes(),
            headers={"Content-Type": "image/png"},
        )
        assert answer.status_code == 200, answer.text
        refused = client.post("/v1/jobs", json={**base, "start_from": {"job": "job_nothing"}})
        assert [error["pointer"] for error in refused.json()["errors"]] == ["/start_from/job"]

        with zipfile.ZipFile(
            io.BytesIO(client.get(f"/v1/models/{done[5]['result']['model']}/download?format=zip").content)
        ) as files:
            (tmp_path / "taught.safetensors").write_bytes(files.read("model.safetensors"))
        weights = upload(client, tmp_path / "taught.safetensors")
        assert client.get(f"/v1/datasets/{weights}").json()["kind"] == "weights"
        kept = {**base, "start_from": {"dataset": weights, "head": "keep"}, "train": {"epochs": 1}}
        finished(client, [kept])


def test_forecasts_of_a_column_of_a_table(stack: Stack, tmp_path: Path) -> None:
    days = np.arange(400)
    with (tmp_path / "load.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["day", "load"], *zip(days % 7, np.sin(days * 0.9) * 5 + 20, strict=True)])
    with stack.client() as client:
        spec = {
            "dataset": {"id": upload(client, tmp_path / "load.csv"), "target": "load", "window": 14},
            "task": "forecasting",
            "preprocess": [{"kind": "z_score"}],
            "model": {"kind": "lstm", "hidden": 16},
            "optimizer": {"kind": "adam", "lr": 0.02},
            "train": {"epochs": 20, "batch_size": 32},
        }
        (done,) = finished(client, [spec])
        assert done["result"]["test"]["r2"] > 0.9
        window = [[day % 7, np.sin(day * 0.9) * 5 + 20] for day in range(400, 414)]
        answer = client.post(f"/v1/models/{done['result']['model']}/predict", json={"inputs": [window]})
        assert answer.status_code == 200, answer.text
        assert abs(answer.json()["predictions"][0]["value"] - (np.sin(414 * 0.9) * 5 + 20)) < 2


def test_previews_and_the_init_report(stack: Stack, data: Path) -> None:
    with stack.client() as client:
        digits = upload(client, data / "digits.zip")
        table = upload(client, data / "cancer.csv", target="diagnosis")
        for dataset in (digits, table):
            sheet = client.get(f"/v1/datasets/{dataset}/preview.png")
            assert sheet.content.startswith(b"\x89PNG"), sheet.text
        wish = {"augment": [{"kind": "rotate", "degrees": 30}, {"kind": "noise"}], "count": 20}
        variants = client.post(f"/v1/datasets/{digits}/augmentation-preview.png", json=wish)
        assert variants.content.startswith(b"\x89PNG"), variants.text
        hue = client.post(f"/v1/datasets/{digits}/augmentation-preview.png", json={"augment": [{"kind": "hue"}]})
        assert hue.status_code == 422
        assert hue.json()["errors"][0]["pointer"] == "/augment/0"
        spec = {"dataset": digits, "model": {"kind": "mlp", "activation": "sigmoid", "init": {"kind": "uniform"}}}
        report = client.post("/v1/specs:init-report", json=spec)
        assert {layer["values"] for layer in report.json()["layers"]} == {"pre_activation", "activation"}
        picture = client.post("/v1/specs:init-report", params={"format": "png"}, json=spec)
        assert picture.content.startswith(b"\x89PNG"), picture.text


def test_arrays_of_images_with_channels_last_and_one_hot_targets(stack: Stack, tmp_path: Path) -> None:
    digits, labels = load_digits(return_X_y=True)
    x = np.stack([digits.reshape(-1, 8, 8)] * 4, axis=-1)  # 0..16, channels last
    np.savez(tmp_path / "digits.npz", X=x, y=np.eye(10, dtype=np.float32)[labels])
    augment = [{"kind": "noise", "std": 0.02}, {"kind": "rotate", "degrees": 10}]
    with stack.client() as client:
        dataset = upload(client, tmp_path / "digits.npz")
        report = client.get(f"/v1/datasets/{dataset}/report").json()
        assert report["facts"]["value_ranges"] == [[0, 16]] * 4
        assert {"channel_layout", "one_hot_targets"} <= {finding["code"] for finding in report["findings"]}
        sheets = [
            client.get(f"/v1/datasets/{dataset}/preview.png"),
            client.post(f"/v1/datasets/{dataset}/augmentation-preview.png", json={"augment": augment}),
        ]
        assert all(sheet.content.startswith(b"\x89PNG") for sheet in sheets), [sheet.text for sheet in sheets]
        spec = {
            "dataset": dataset,
            "model": {"kind": "cnn", "channels": [16, 32], "block_dropout": 0.1},
            "augment": augment,
            "optimizer": {"kind": "adam", "lr": 0.003},
            "train": {"epochs": 6, "batch_size": 32},
        }
        hue = client.post("/v1/specs:validate", json={**spec, "augment": [{"kind": "hue"}]}).json()
        assert "/augment/0" in [error["pointer"] for error in hue["errors"]], hue
        (done,) = finished(client, [spec])
        assert done["result"]["test"]["accuracy"] > 0.9
        answer = client.post(f"/v1/models/{done['result']['model']}/predict", json={"inputs": x[:20].tolist()})
        found = [int(prediction["label"]) for prediction in answer.json()["predictions"]]
        assert np.mean(np.array(found) == labels[:20]) > 0.8

        numbers = upload(client, tmp_path / "digits.npz", task="regression", channels="first")
        facts = client.get(f"/v1/datasets/{numbers}/report").json()["facts"]
        assert (facts["target_width"], facts["input_shape"]) == (10, [8, 8, 4])
        reread = client.post(f"/v1/datasets/{numbers}:reread", json={"task": "classification", "channels": None})
        assert reread.status_code == 201, reread.text
        assert reread.json()["read_options"] == {"task": "classification"}

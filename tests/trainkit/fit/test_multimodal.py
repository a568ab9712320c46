"""Models of images and columns against independent references: a network in plain torch, ablation by hand, two models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

import trainkit as tk
from tests.support.fit_data import images, spec
from tests.support.image_tables import MODEL, archive, image_table
from trainkit.data import Column, Dataset, ImageInputs, TableInputs
from trainkit.data.duplicates import digests
from trainkit.data.image_rows import read_image_archive
from trainkit.fit import load_model
from trainkit.fit.encoding.prepare import inputs_read, prepare
from trainkit.fit.evaluation.ablation import PERMUTATIONS, one_cycle
from trainkit.fit.evaluation.metrics import classification_metrics, probabilities
from trainkit.fit.events import Events
from trainkit.fit.loop.batches import BatchPlan
from trainkit.fit.loop.fit import build_setup
from trainkit.fit.model_evaluation import evaluate_model
from trainkit.fit.models.export import export_onnx
from trainkit.fit.seeding import derive
from trainkit.spec import resolve

FAST: dict[str, Any] = {"optimizer": {"kind": "adam", "lr": 0.02}, "train": {"epochs": 30, "batch_size": 32}}


def trained(data: Dataset, model: Any = MODEL, **fields: Any) -> Any:
    return tk.fit(spec(model, **{**FAST, **fields}), data)


@pytest.fixture(scope="module")
def both() -> Any:
    return trained(image_table(400))


def test_the_answer_needs_image_and_column_and_the_ablation_says_so(both: Any) -> None:
    image_alone = trained(image_table(400), MODEL["image"])
    columns_alone = trained(image_table(400), {**MODEL, "image": {"kind": "cnn", "channels": [1], "init": "zeros"}})
    assert both.evaluation["metrics"]["accuracy"] == 1.0
    assert image_alone.evaluation["metrics"]["accuracy"] == pytest.approx(0.5, abs=0.2)
    assert columns_alone.evaluation["metrics"]["accuracy"] == pytest.approx(0.5, abs=0.2)
    found = both.evaluation["ablation"]
    assert found["permutations"] == PERMUTATIONS
    assert found["without_image"]["accuracy"] == pytest.approx(0.5, abs=0.15)
    assert found["without_columns"]["accuracy"] == pytest.approx(0.5, abs=0.15)
    assert "ablation" not in image_alone.evaluation


def test_a_useless_input_costs_nothing_in_the_ablation() -> None:
    data = image_table(400)
    assert isinstance(data.inputs, ImageInputs)
    assert data.inputs.columns is not None
    side = np.asarray(data.inputs.columns.columns["side"].values)
    known = Dataset(data.facts, data.inputs, side.astype(np.int64))  # the answer is the column
    found = trained(known).evaluation
    assert found["metrics"]["accuracy"] == 1.0
    assert found["ablation"]["without_image"]["accuracy"] > 0.95
    assert found["ablation"]["without_columns"]["accuracy"] == pytest.approx(0.5, abs=0.15)


def test_the_ablation_is_the_mean_over_permutations_computed_one_by_one(both: Any) -> None:
    data, model = image_table(400), both.model
    assert isinstance(data.inputs, ImageInputs)
    assert data.inputs.columns is not None
    chosen = tk.data.split_indices(tk.JobSpec.model_validate(model.description["spec"]).split, 400, data.targets, None)
    pixels, truth = data.inputs.pixels[chosen.test], np.asarray(data.targets)[chosen.test]
    columns = {name: column.take(chosen.test) for name, column in data.inputs.columns.columns.items()}
    random = np.random.default_rng(derive(0, "ablation"))
    scores: dict[str, list[dict[str, float]]] = {"without_image": [], "without_columns": []}
    for _ in range(PERMUTATIONS):
        other = one_cycle(len(truth), random)
        for name, image_of, columns_of in (
            ("without_image", np.argsort(other), np.arange(len(truth))),
            ("without_columns", np.arange(len(truth)), other),
        ):
            table = TableInputs({key: column.take(columns_of) for key, column in columns.items()})
            answer = model.answer_rows(ImageInputs(pixels[image_of], table), np.arange(len(truth)))
            scores[name].append(classification_metrics(truth, answer))
    for name, runs in scores.items():
        for metric in ("accuracy", "f1", "roc_auc"):
            mean = np.mean([run[metric] for run in runs])
            assert both.evaluation["ablation"][name][metric] == pytest.approx(mean, abs=1e-6), (name, metric)


@pytest.mark.parametrize("n", [2, 3, 50])
def test_a_permutation_of_the_ablation_is_one_cycle(n: int) -> None:
    permutation = one_cycle(n, np.random.default_rng(n))
    place, seen = 0, []
    for _ in range(n):
        seen.append(place)
        place = int(permutation[place])
    assert place == 0
    assert sorted(seen) == list(range(n))


class ByHand(nn.Module):
    """The same network in plain torch."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.columns = nn.Linear(3, 8)
        self.hidden = nn.Linear(4 + 8, 8)
        self.output = nn.Linear(8, 2)

    def forward(self, x: Tensor, columns: Tensor) -> list[Tensor]:
        image = F.max_pool2d(F.relu(self.norm(self.conv(x))), 2).mean((2, 3))
        of_columns = F.relu(self.columns(columns))
        joined = torch.cat([image, of_columns], 1)
        hidden = F.relu(self.hidden(joined))
        return [image, of_columns, joined, hidden, self.output(hidden)]


def test_a_network_built_by_hand_gives_the_same_values_layer_by_layer(both: Any, tmp_path: Path) -> None:
    folder = both.model.save(tmp_path / "model")
    saved = load_file(folder / "model.safetensors")
    names = {
        "conv.weight": "body.image.block_1.conv_1.weight",
        **{f"norm.{name}": f"body.image.block_1.norm_1.{name}" for name in ("weight", "bias")},
        **{f"norm.{name}": f"body.image.block_1.norm_1.{name}" for name in ("running_mean", "running_var")},
        "norm.num_batches_tracked": "body.image.block_1.norm_1.num_batches_tracked",
        **{f"columns.{name}": f"body.columns.block_1.linear.{name}" for name in ("weight", "bias")},
        **{f"hidden.{name}": f"head.hidden_1.linear.{name}" for name in ("weight", "bias")},
        **{f"output.{name}": f"head.output.{name}" for name in ("weight", "bias")},
    }
    reference = ByHand()
    reference.load_state_dict({name: saved[f"network.{saved_as}"] for name, saved_as in names.items()})
    reference.eval()
    assert sum(p.numel() for p in reference.parameters()) == both.runtime["parameters"] == both.runtime["trainable"]

    data = image_table(400)
    assert isinstance(data.inputs, ImageInputs)
    assert data.inputs.columns is not None
    split = tk.data.split_indices(
        tk.JobSpec.model_validate(both.model.description["spec"]).split, 400, data.targets, None
    )
    side = np.eye(2)[np.asarray(data.inputs.columns.columns["side"].values)]
    age = np.asarray(data.inputs.columns.columns["age"].values)
    scaled = (age - age[split.train].mean()) / age[split.train].std()  # the one-hot columns stay 0 and 1
    columns = torch.from_numpy(np.concatenate([side, scaled[:, None]], axis=1).astype(np.float32))
    x = torch.from_numpy(data.inputs.pixels[..., 0][:, None].astype(np.float32) / 255)

    network, heard = both.model.network, []
    watched = [network.body.image, network.body.columns, network.body, network.head.hidden_1, network]
    hooks = [module.register_forward_hook(lambda _m, _i, out: heard.append(out)) for module in watched]
    with torch.inference_mode():
        answer = both.model.answer_rows(data.inputs, np.arange(400))
        expected = reference(x, columns)
    for hook in hooks:
        hook.remove()
    for output, by_hand in zip(heard, expected, strict=True):
        torch.testing.assert_close(output, by_hand, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(answer, probabilities(expected[-1].numpy(), "cross_entropy"), atol=1e-6)


def test_a_saved_model_evaluates_and_predicts_as_the_job_did(both: Any, tmp_path: Path) -> None:
    data = image_table(400)
    model = load_model(both.model.save(tmp_path / "model"))
    again = evaluate_model(model, data, part="test", is_training_dataset=True)
    assert again.pop("warnings") == []
    assert again == {name: value for name, value in both.evaluation.items() if name != "parts"}
    assert isinstance(data.inputs, ImageInputs)
    assert data.inputs.columns is not None
    expected = both.model.answer_rows(data.inputs, np.arange(20))
    sides, ages = (data.inputs.columns.columns[name].values[:20].tolist() for name in ("side", "age"))
    samples = [
        {"image": pixels, "columns": {"age": age, "side": ["left", "right"][side]}}
        for pixels, side, age in zip(data.inputs.pixels[:20], sides, ages, strict=True)
    ]
    got = [list(one["probabilities"].values()) for one in model.predict(samples)]
    assert got == expected.tolist()


def test_an_archive_is_read_as_the_training_file_was(tmp_path: Path) -> None:
    (tmp_path / "train.zip").write_bytes(archive(96))
    data = tk.load_dataset(tmp_path / "train.zip")
    model = trained(data, train={"epochs": 2}).model
    (tmp_path / "new.zip").write_bytes(archive(96, first=8, labels=False))
    encoder = model.table_encoders[0]
    rows = read_image_archive(tmp_path / "new.zip", encoder.format, encoder.names, size=(6, 6))
    answer, warnings = model.answer_table(rows, ignore_extra=False)
    assert np.array_equal(answer, model.answer_rows(data.inputs, np.arange(8)))  # decimal commas, and the same images
    assert set(warnings) == {()}


def test_numbers_gaps_and_unseen_categories(tmp_path: Path) -> None:
    data = image_table(96, numbers=True)
    assert isinstance(data.inputs, ImageInputs)
    assert data.inputs.columns is not None
    columns = dict(data.inputs.columns.columns)
    ages = np.asarray(columns["age"].values).copy()
    ages[::7] = np.nan
    gaps = Dataset(
        data.facts, ImageInputs(data.inputs.pixels, TableInputs({**columns, "age": Column(ages)})), data.targets
    )
    facts = gaps.facts.model_copy(
        update={
            "columns": tuple(
                c.model_copy(update={"missing": 14} if c.name == "age" else {}) for c in gaps.facts.columns or ()
            )
        }
    )
    result = trained(Dataset(facts, gaps.inputs, gaps.targets), preprocess_columns=["impute", "z_score"])
    assert result.evaluation["metrics"]["r2"] > 0.9
    assert result.evaluation["ablation"]["without_image"]["r2"] < 0.2
    (one,) = result.model.predict({"image": data.inputs.pixels[0], "columns": {"side": "both", "age": None}})
    assert {warning["code"] for warning in one["warnings"]} == {"unseen_category", "imputed"}


@pytest.mark.parametrize("steps", [["z_score"], [{"kind": "pca", "components": 2}]])
def test_onnx_takes_two_inputs(steps: list[Any], tmp_path: Path) -> None:
    data = image_table(96)
    model = trained(data, preprocess=["zero_mean"], preprocess_columns=steps, train={"epochs": 1}).model
    session = onnxruntime.InferenceSession(str(export_onnx(model, tmp_path / "model.onnx")))
    assert [(one.name, one.shape) for one in session.get_inputs()] == [
        ("x", ["batch", 1, 6, 6]),
        ("columns", ["batch", 3]),
    ]
    encoded = model.encoder.encode(data.inputs, np.arange(5))
    fed = {"x": encoded.x.numpy().astype(np.float32) / 255, "columns": encoded.side_input.numpy()}
    (answer,) = session.run(None, fed)
    np.testing.assert_allclose(answer, model.answer_rows(data.inputs, np.arange(5)), atol=1e-5)
    described = session.get_modelmeta().custom_metadata_map
    assert described["features"] == '["side=left", "side=right", "age"]'


def test_augmentation_changes_the_image_alone() -> None:
    data = image_table(96)
    resolved = resolve(spec(MODEL, augment=[{"kind": "noise", "std": 0.5}]), data.facts).spec
    cpu = torch.device("cpu")
    prepared = prepare(resolved, data, cpu, lambda _: None)
    setup = build_setup(resolved, data, prepared, cpu, Events(None), control=None, workdir=None)
    rows = torch.arange(8)
    batch = BatchPlan(setup).batch(prepared.train, rows, 1, 0)
    x, columns = prepared.train.take(rows)
    assert torch.equal(batch.side_input, columns)
    assert not torch.equal(batch.x, x)


def test_weights_of_an_image_model_start_the_image_encoder_and_named_blocks_freeze() -> None:
    source = trained(images(96, side=6), {"kind": "cnn", "channels": [4]}, train={"epochs": 1}).model
    start = {"model": "mdl_1", "freeze": ["image.block_1"]}
    document = spec(MODEL, start_from=start, train={"epochs": 2})
    result = tk.fit(document, image_table(96), source=source)
    state, of_source = result.model.network.state_dict(), source.network.state_dict()
    for name in ("conv_1.weight", "norm_1.weight", "norm_1.running_mean"):
        assert torch.equal(state[f"body.image.block_1.{name}"], of_source[f"body.block_1.{name}"])
    assert result.runtime["phases"][0]["blocks"] == ["columns.block_1"]
    frozen = sum(
        of_source[f"body.block_1.{name}"].numel() for name in ("conv_1.weight", "norm_1.weight", "norm_1.bias")
    )
    assert result.runtime["trainable"] == result.runtime["parameters"] - frozen


def test_copies_are_samples_with_the_same_image_and_the_same_columns() -> None:
    data = image_table(40)
    assert isinstance(data.inputs, ImageInputs)
    pixels = np.repeat(data.inputs.pixels[:1], 40, axis=0)
    same_images = Dataset(data.facts, ImageInputs(pixels, data.inputs.columns), data.targets)
    document = {"dataset": {"id": "d", "features": ["side"]}}
    different = {}
    for kind in (MODEL, MODEL["image"]):
        resolved = resolve({**spec(kind), **document}, data.facts).spec
        marks = digests(inputs_read(resolved, same_images))
        different[kind["kind"]] = len(np.unique(marks, axis=0))
    assert different == {"multimodal": 2, "cnn": 1}


def test_an_ensemble_answers_with_the_warnings_of_its_members(both: Any) -> None:
    data = image_table(400)
    other = trained(image_table(400), MODEL["image"], train={"epochs": 1}).model
    result = tk.fit(spec({"kind": "ensemble", "members": ["mdl_1", "mdl_2"]}), data, source=[both.model, other])
    assert isinstance(data.inputs, ImageInputs)
    sample = {"image": data.inputs.pixels[0], "columns": {"side": "up", "age": 50.0}}
    (one,) = result.model.predict([sample])
    assert [warning["code"] for warning in one["warnings"]] == ["unseen_category"]
    expected = (both.model.answer([sample]) + other.answer(data.inputs.pixels[:1])) / 2
    np.testing.assert_allclose(list(one["probabilities"].values()), expected[0], atol=1e-12)
    again = evaluate_model(result.model, data, part="test", is_training_dataset=True)
    assert again["metrics"]["accuracy"] == result.evaluation["metrics"]["accuracy"]

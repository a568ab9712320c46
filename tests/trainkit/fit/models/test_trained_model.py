from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file

import trainkit as tk
from service.models.single_file import single_file
from tests.support.fit_data import TABLE_ROWS, images, numbers, sequences, spec, table, vectors
from trainkit.fit import ArtifactError

VECTORS = np.random.default_rng(1).normal(size=(5, 6)).astype(np.float32)
PICTURES = [Image.fromarray(np.full((20, 30), grey, np.uint8)) for grey in (0, 200)]
CASES: dict[str, tuple[Any, dict[str, Any], Any]] = {
    "mlp": (vectors, spec({"kind": "mlp", "hidden": [8], "norm": "batch"}), VECTORS),
    "pca then mlp": (
        vectors,
        spec({"kind": "mlp"}, preprocess=[{"kind": "zero_mean"}, {"kind": "pca", "components": 3}, {"kind": "whiten"}]),
        VECTORS,
    ),
    "cnn": (images, spec({"kind": "cnn", "channels": [4]}, preprocess=[{"kind": "z_score"}]), PICTURES),
    "residual": (images, spec({"kind": "residual_cnn", "channels": [4]}, train={"epochs": 1}), PICTURES),
    "lstm": (sequences, spec({"kind": "lstm", "hidden": 4}), [np.ones((4, 2)), np.zeros((7, 2))]),
    "svm": (vectors, spec({"kind": "linear_svm"}), VECTORS.tolist()),
    "regression": (numbers, spec({"kind": "mlp"}), VECTORS[:, :4]),
    "table": (table, spec({"kind": "mlp"}, preprocess=[{"kind": "impute"}]), TABLE_ROWS),
}


@pytest.mark.parametrize("case", CASES)
def test_saved_model_predicts_the_same_bits(case, tmp_path):
    make, document, x = CASES[case]
    model = tk.fit(document, make()).model
    folder = model.save(tmp_path / "model")
    assert sorted(entry.name for entry in folder.iterdir()) == ["model.json", "model.safetensors"]
    again = tk.load_model(folder)
    predictions = model.predict(x)
    assert again.predict(x) == predictions
    assert len(predictions) == len(x)
    for prediction in predictions:
        if "label" in prediction:
            shares = prediction["probabilities"]
            assert sum(shares.values()) == pytest.approx(1)
            assert shares[prediction["label"]] == max(shares.values())
    assert again.metrics == json.loads(json.dumps(model.metrics))


def test_a_single_file_is_loaded_like_the_folder(tmp_path):
    data = table()
    model = tk.fit(spec({"kind": "mlp"}, preprocess=[{"kind": "impute"}], train={"epochs": 1}), data).model
    folder = model.save(tmp_path / "model")
    found = single_file(folder)
    path = tmp_path / "one.safetensors"
    path.write_bytes(found.header + found.path.read_bytes()[found.offset :])
    assert path.stat().st_size == found.size
    tensors, stored = load_file(path), load_file(folder / "model.safetensors")
    assert {name: tensor.tolist() for name, tensor in tensors.items()} == {k: t.tolist() for k, t in stored.items()}
    again = tk.load_model(path)
    assert again.predict(TABLE_ROWS) == model.predict(TABLE_ROWS)
    assert again.metrics == tk.load_model(folder).metrics
    with pytest.raises(ArtifactError, match="has no 'manifest' in its metadata"):
        tk.load_model(folder / "model.safetensors")
    path.write_bytes(b"torn")
    with pytest.raises(ArtifactError, match="cannot be read"):
        tk.load_model(path)


def test_equal_models_are_equal_files(tmp_path):
    """The order of what safetensors writes beside the tensors is random from call to call, not only by process."""
    model = tk.fit(spec("cnn", train={"epochs": 1}), images()).model
    files = {(model.save(tmp_path / str(number)) / "model.safetensors").read_bytes() for number in range(20)}
    assert len(files) == 1


def test_predict_agrees_with_the_evaluation():
    data = table()
    result = tk.fit(spec({"kind": "mlp"}, preprocess=[{"kind": "impute"}], train={"epochs": 30}), data)
    inputs = data.inputs.columns
    rows = [
        {"x": float(x), "town": inputs["town"].categories[t]}
        for x, t in zip(inputs["x"].values, inputs["town"].values, strict=True)
    ]
    truth = [inputs["y"].categories[code] for code in inputs["y"].values]
    labels = [p["label"] for p in result.model.predict(rows)]
    assert np.mean([a == b for a, b in zip(labels, truth, strict=True)]) > 0.9
    assert result.evaluation["metrics"]["accuracy"] > 0.7


def test_one_sample_or_many():
    model = tk.fit(spec({"kind": "linear"}), vectors()).model
    assert model.predict(VECTORS[0]) == model.predict(VECTORS[:1]) == model.predict(VECTORS[:1].tolist())
    with pytest.raises(ValueError, match="6 numbers"):
        model.predict([[1.0, 2.0]])


def test_folders_that_hold_no_model(tmp_path):
    with pytest.raises(ArtifactError, match=r"model\.json"):
        tk.load_model(tmp_path)
    (tmp_path / "model.json").write_text('{"format": "other"}')
    with pytest.raises(ArtifactError, match="not a model of this version"):
        tk.load_model(tmp_path)
    folder = tk.fit(spec({"kind": "linear"}), vectors()).model.save(tmp_path / "m")
    (folder / "model.safetensors").write_bytes(b"\x00" * 10)
    with pytest.raises(ArtifactError, match=r"model\.safetensors cannot be read"):
        tk.load_model(folder)

from __future__ import annotations

import json
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

import trainkit as tk
from tests.support.fit_data import TABLE_ROWS, images, numbers, sequences, spec, table, vectors
from trainkit.fit.encoding.encode import as_float, parse
from trainkit.fit.models.export import ExportError, export_onnx

RNG = np.random.default_rng(0)
CASES: dict[str, tuple[Any, dict[str, Any], Any]] = {
    "mlp with zca": (
        vectors,
        spec({"kind": "mlp", "norm": "batch"}, preprocess=[{"kind": "z_score"}, {"kind": "whiten"}]),
        RNG.normal(size=(7, 6)),
    ),
    "pca": (vectors, spec({"kind": "mlp"}, preprocess=[{"kind": "pca", "components": 2}]), RNG.normal(size=(7, 6))),
    "svm": (vectors, spec({"kind": "linear_svm"}), RNG.normal(size=(7, 6))),
    "sigmoid outputs": (
        vectors,
        spec({"kind": "linear"}, loss={"kind": "binary_cross_entropy"}),
        RNG.normal(size=(7, 6)),
    ),
    "cnn": (
        images,
        spec({"kind": "cnn", "channels": [4, 6]}, preprocess=[{"kind": "z_score"}]),
        RNG.integers(0, 256, (5, 8, 8), dtype=np.uint8),
    ),
    "residual": (images, spec({"kind": "residual_cnn", "channels": [4, 6]}), RNG.random((3, 1, 8, 8))),
    "torchvision": (
        images,
        spec({"kind": "torchvision", "name": "squeezenet1_1", "image_size": 24}, train={"epochs": 1}),
        RNG.random((3, 1, 8, 8)),
    ),
    "torchvision without its top": (
        images,
        spec(
            {"kind": "torchvision", "name": "squeezenet1_1", "image_size": 24, "include_top": False, "dense": [8]},
            train={"epochs": 1},
        ),
        RNG.random((3, 1, 8, 8)),
    ),
    "gru": (sequences, spec({"kind": "gru", "hidden": 4, "bidirectional": True}), RNG.normal(size=(3, 5, 2))),
    "lstm by mean": (sequences, spec({"kind": "lstm", "hidden": 4, "pooling": "mean"}), RNG.normal(size=(3, 11, 2))),
    "regression": (numbers, spec({"kind": "mlp"}), RNG.normal(size=(7, 4))),
    "table": (table, spec({"kind": "mlp"}, preprocess=[{"kind": "impute"}]), TABLE_ROWS),
}


@pytest.mark.parametrize("case", CASES)
def test_onnxruntime_answers_what_the_model_answers(case, tmp_path):
    make, document, x = CASES[case]
    model = tk.fit(document, make()).model
    session = onnxruntime.InferenceSession(str(export_onnx(model, tmp_path / "model.onnx")))
    encoded = as_float(parse(model.encoder, x).x).numpy()
    (output,) = session.run(None, {"x": encoded})
    expected = model.answer(x)
    np.testing.assert_allclose(output, expected, rtol=1e-4, atol=1e-4)
    metadata = session.get_modelmeta().custom_metadata_map
    if model.classes is not None:
        assert json.loads(metadata["classes"]) == list(model.classes)
        assert session.get_outputs()[0].name == "probabilities"
    if make is table:
        assert json.loads(metadata["features"]) == model.encoder.feature_names()
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.onnx"]


def test_what_cannot_be_exported_is_said_and_harms_nothing(tmp_path, monkeypatch):
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("Unsupported: operator x\nlong story")

    monkeypatch.setattr(torch.onnx, "export", refuse)
    result = tk.fit(spec({"kind": "linear"}), vectors())
    with pytest.raises(ExportError, match="cannot be written as ONNX: the exporter cannot express it"):
        export_onnx(result.model, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())

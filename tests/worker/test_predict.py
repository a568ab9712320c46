"""What a client sends becomes inputs, or a problem that points at the mistake."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from PIL import Image

import trainkit as tk
from worker.predict import BadInputError, predict_or_point, read_inputs, write_onnx


def refused(request: bytes, media_type: str = "application/json") -> dict[str, Any]:
    with pytest.raises(BadInputError) as bad:
        read_inputs(request, media_type)
    return bad.value.error


def test_json_inputs_are_taken_as_they_are() -> None:
    assert read_inputs(b'{"inputs": [[1, 2], [3, 4]]}', "application/json") == [[1, 2], [3, 4]]


@pytest.mark.parametrize(
    ("body", "code", "pointer"),
    [
        (b"{", "invalid_json", ""),
        (b"[1]", "missing", "/inputs"),
        (b'{"inputs": []}', "not_a_list", "/inputs"),
        (b'{"inputs": [1], "input": 2}', "unknown_field", "/input"),
        (b"[" * 100_000, "invalid_json", ""),
    ],
)
def test_mistakes_in_json_are_pointed_at(body: bytes, code: str, pointer: str) -> None:
    error = refused(body)
    assert (error["status"], error["code"], error["pointer"]) == (422, code, pointer)
    assert error["hint"]


def test_an_image_is_one_input() -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(buffer, "PNG")
    (image,) = read_inputs(buffer.getvalue(), "image/png")
    assert image.size == (8, 8)


def test_an_image_that_is_none_and_a_bomb_are_refused() -> None:
    assert refused(b"not an image", "image/png")["code"] == "unreadable_image"
    buffer = io.BytesIO()
    Image.new("1", (30_000, 30_000)).save(buffer, "PNG")
    assert refused(buffer.getvalue(), "image/png")["code"] == "unreadable_image"


def test_csv_rows_carry_their_names() -> None:
    assert read_inputs("\ufeffa,b\n1,x\n2,\n".encode(), "text/csv") == [{"a": "1", "b": "x"}, {"a": "2", "b": ""}]
    error = refused(b"a,b\n1,2\n1,2,3\n", "text/csv")
    assert error["pointer"] == "/inputs/1"
    assert "line 3" in error["message"]
    assert refused(b"a,b\n", "text/csv")["code"] == "invalid_csv"
    assert refused(b"\xff\xfe\x00", "text/csv")["code"] == "invalid_csv"


def test_other_types_are_refused() -> None:
    assert refused(b"x", "application/x-pickle")["status"] == 415


def test_the_first_input_that_cannot_be_read_is_pointed_at() -> None:
    def predict(inputs: list[Any]) -> list[dict[str, Any]]:
        return [{"value": float(one)} for one in inputs]

    assert predict_or_point(predict, [1, 2]) == [{"value": 1.0}, {"value": 2.0}]
    with pytest.raises(BadInputError) as bad:
        predict_or_point(predict, [1, "two", "three"])
    assert bad.value.error["pointer"] == "/inputs/1"
    json.dumps(bad.value.error)


def test_onnx_beside_the_model(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    data = tk.Dataset.from_arrays(x, (x[:, 0] > 0).astype(int))
    spec = {"dataset": "d", "model": {"kind": "linear"}, "train": {"epochs": 1}}
    result = tk.fit(spec, data, workdir=tmp_path)
    body, _ = write_onnx(tmp_path / "model", b"{}", "application/json")
    graph = tmp_path / "model" / "model.onnx"
    assert json.loads(body)["bytes"] == graph.stat().st_size
    (shares,) = onnxruntime.InferenceSession(str(graph)).run(None, {"x": x[:4]})
    told = [answer["probabilities"] for answer in result.model.predict(x[:4])]
    np.testing.assert_allclose(shares, [[row["0"], row["1"]] for row in told], atol=1e-4)


def test_an_ensemble_has_no_onnx_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainkit.fit.load_model", lambda _: object())
    with pytest.raises(BadInputError, match="ensemble") as refused:
        write_onnx(tmp_path, b"{}", "application/json")
    assert (refused.value.error["status"], refused.value.error["code"]) == (409, "no_onnx")

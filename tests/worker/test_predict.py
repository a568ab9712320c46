"""What a client sends becomes inputs, or a problem that points at the mistake."""

from __future__ import annotations

import base64
import gzip
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from PIL import Image

import trainkit as tk
from trainkit.data.table.column_format import NUMBER_MISSING, TEXT_MISSING, ColumnFormat
from trainkit.data.table.dialect import Dialect
from trainkit.data.table.table_format import TableFormat
from trainkit.fit.encoding.encode import ArrayEncoder
from trainkit.fit.encoding.table_encoder import CategoricalColumn, NumericColumn, TableEncoder
from worker.predict import predict_or_point, read_inputs, read_rows, write_onnx
from worker.request_input import BadInputError, point_at_rows


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


def test_images_as_base64_are_inputs_like_others() -> None:
    buffer = io.BytesIO()
    pixels = np.arange(64, dtype=np.uint8).reshape(8, 8)
    Image.fromarray(pixels).save(buffer, "PNG")
    text = base64.b64encode(buffer.getvalue()).decode()
    images = read_inputs(json.dumps({"inputs": [text, f"data:image/png;base64,{text}"]}).encode(), "application/json")
    assert [np.asarray(image).tolist() for image in images] == [pixels.tolist()] * 2
    assert refused(b'{"inputs": [[1], "seven"]}')["pointer"] == "/inputs/1"


def test_many_images_have_no_more_pixels_than_one_may_have() -> None:
    buffer = io.BytesIO()
    Image.new("1", (7000, 7000)).save(buffer, "PNG")
    text = base64.b64encode(buffer.getvalue()).decode()
    error = refused(json.dumps({"inputs": [text] * 3}).encode())
    assert error["code"] == "too_large"
    assert error["pointer"] != "/inputs/0"


def test_an_image_that_is_none_and_a_bomb_are_refused() -> None:
    problem = refused(b"not an image", "image/png")
    assert problem["code"] == "unreadable_image"
    assert "BytesIO" not in str(problem)
    buffer = io.BytesIO()
    Image.new("1", (30_000, 30_000)).save(buffer, "PNG")
    assert refused(buffer.getvalue(), "image/png")["code"] == "unreadable_image"


ENCODER = TableEncoder(
    [NumericColumn("a", None), CategoricalColumn("b", ("x", "y"), None)],
    TableFormat(
        dialect=Dialect(),
        columns=(
            ColumnFormat(name="a", type="number", missing=NUMBER_MISSING),
            ColumnFormat(name="b", type="category", missing=TEXT_MISSING),
            ColumnFormat(name="y", type="category", missing=TEXT_MISSING),
        ),
    ),
)


def rows(body: str | bytes, media_type: str = "text/csv") -> Any:
    return read_rows(ENCODER.format, ENCODER.names, body.encode() if isinstance(body, str) else body, media_type)


def refused_rows(body: str | bytes, media_type: str = "text/csv") -> dict[str, Any]:
    with pytest.raises(BadInputError) as bad:
        point_at_rows(lambda: ENCODER.parse(rows(body, media_type)))
    return bad.value.error


def test_csv_rows_carry_their_names() -> None:
    assert rows("\ufeffa,b\n1,x\n2,\n").columns == {"a": ["1", "2"], "b": ["x", None]}
    error = refused_rows("a,b\n1,2\n1,2,3\n")
    assert error["pointer"] == "/inputs/1"
    assert error["message"].startswith("row 1 (line 3): 3 values for 2 columns")
    assert refused_rows("a,b\n")["code"] == "no_rows"
    assert refused_rows("1,x\n2,y\n")["code"] == "missing_header"
    assert refused_rows(b"\xff\xfe\x00")["code"] == "unreadable_table"
    assert refused_rows(b"PAR1 but not really")["code"] == "unreadable_table"


@pytest.mark.parametrize(
    ("body", "media_type"),
    [
        ("a,b,y\n1,x,in\n2,y,out\n", "text/csv"),
        ("b;a\nx;1\ny;2\n", "text/csv"),
        ("a\tb\n1\tx\n2\ty\n", "text/tab-separated-values"),
        ("sep=|\na|b\n1|x\n2|y\n", "text/csv"),
        ('{"a": 1, "b": "x"}\n{"a": 2, "b": "y"}\n', "application/x-ndjson"),
        ('[{"a": 1, "b": "x"}, {"a": 2, "b": "y"}]', "application/octet-stream"),
        ('{"inputs": [{"a": 1, "b": "x"}, {"b": "y", "a": "2"}]}', "application/json"),
        ('{"inputs": [[1, "x"], [2.0, "y"]]}', "application/json"),
        (gzip.compress(b"a,b\n1,x\n2,y\n", mtime=0), "text/csv"),
    ],
)
def test_every_form_of_rows_is_read_alike(body: str | bytes, media_type: str) -> None:
    encoded, warnings = ENCODER.parse(rows(body, media_type))
    assert encoded.tolist() == [[1.0, 1.0, 0.0], [2.0, 0.0, 1.0]]
    assert warnings == ((), ())


@pytest.mark.parametrize(
    ("inputs", "code", "pointer"),
    [
        ("[{}]", "missing_column", "/inputs/0/a"),
        ('[{"foo": 1}]', "missing_column", "/inputs/0/a"),
        ('[{"a": 1, "b": "x"}, {"a": 1}]', "missing_column", "/inputs/1/b"),
        ('[{"a": 1, "b": "x"}, {"a": 1, "b": "x", "c": 2}]', "unknown_column", "/inputs/1/c"),
        ('[{"a": 1, "b": ["x"]}]', "invalid_input", "/inputs/0/b"),
        ('[{"a": 1, "b": {"x": 1}}]', "invalid_input", "/inputs/0/b"),
        ('[{"a": 1, "b": "x"}, {"a": "one", "b": "x"}]', "invalid_input", "/inputs/1/a"),
        ('[{"a": true, "b": "x"}]', "invalid_input", "/inputs/0/a"),
        ('[{"a": null, "b": "x"}]', "invalid_input", "/inputs/0/a"),
        ('[{"a": 1, "b": "x"}, {"a": 1, "b": "NA"}]', "invalid_input", "/inputs/1/b"),
        ('[{"a": NaN, "b": "x"}]', "invalid_input", "/inputs/0/a"),
        ('[{"a": Infinity, "b": "x"}]', "invalid_input", "/inputs/0/a"),
        ('[{"a": "inf", "b": "x"}]', "invalid_input", "/inputs/0/a"),
        ('[{"a": 1e39, "b": "x"}]', "invalid_input", "/inputs/0/a"),
        ('[{"a": -1e400, "b": "x"}]', "invalid_input", "/inputs/0/a"),
        ('[{"a": 1' + "0" * 400 + ', "b": "x"}]', "invalid_input", "/inputs/0/a"),
        ('["q"]', "not_a_row", "/inputs/0"),
        ("[1, 2]", "not_a_row", "/inputs/0"),
        ('[[1, "x"], [1]]', "wrong_width", "/inputs/1"),
        ('[{"a": 1, "b": "x", "a": 2}]', "invalid_json", ""),
    ],
)
def test_what_is_no_row_is_pointed_at(inputs: str, code: str, pointer: str) -> None:
    error = refused_rows(f'{{"inputs": {inputs}}}', "application/json")
    assert (error["status"], error["code"], error["pointer"]) == (422, code, pointer)
    if pointer:
        row, *column = pointer.removeprefix("/inputs/").split("/")
        assert error["message"].startswith(f"row {row}")
        assert all(f'"{name}"' in error["message"] for name in column)


def test_all_wrong_columns_are_named() -> None:
    error = refused_rows('{"inputs": [{"A": 1}]}', "application/json")
    assert [(item["code"], item["pointer"]) for item in error["errors"]] == [
        ("missing_column", "/inputs/0/a"),
        ("missing_column", "/inputs/0/b"),
        ("unknown_column", "/inputs/0/A"),
    ]
    assert "ignore_extra" in error["errors"][2]["hint"]
    extra = rows('{"inputs": [{"a": 1, "b": "x", "c": 2}]}', "application/json")
    assert ENCODER.parse(extra, ignore_extra=True)[0].tolist() == [[1.0, 1.0, 0.0]]


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


def test_onnx_of_the_model(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    data = tk.Dataset.from_arrays(x, (x[:, 0] > 0).astype(int))
    spec = {"dataset": "d", "model": {"kind": "linear"}, "train": {"epochs": 1}}
    result = tk.fit(spec, data, workdir=tmp_path)
    body, _ = write_onnx(tmp_path / "model", b"{}", "application/json", {"output_folder": str(tmp_path)})
    graph = tmp_path / "model.onnx"
    assert json.loads(body)["bytes"] == graph.stat().st_size
    (shares,) = onnxruntime.InferenceSession(str(graph)).run(None, {"x": x[:4]})
    probabilities = [answer["probabilities"] for answer in result.model.predict(x[:4])]
    np.testing.assert_allclose(shares, [[row["0"], row["1"]] for row in probabilities], atol=1e-4)


def test_an_ensemble_has_no_onnx_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainkit.fit.load_model", lambda _: object())
    with pytest.raises(BadInputError, match="ensemble") as refused:
        write_onnx(tmp_path, b"{}", "application/json", {})
    assert (refused.value.error["status"], refused.value.error["code"]) == (409, "no_onnx")


def test_pointer_and_sentence_name_the_same_row_of_arrays() -> None:
    encoder = ArrayEncoder((2,))

    def answer(inputs: list[Any]) -> list[dict[str, Any]]:
        return [{"value": float(row.sum())} for row in encoder.parse(inputs).x]

    for inputs in ([[1, 2], [3, 4], [5, float("inf")]], [[1, 2], [3, 4], [5]]):
        with pytest.raises(BadInputError) as bad:
            predict_or_point(answer, inputs)
        assert bad.value.error["pointer"] == "/inputs/2"
        assert bad.value.error["message"].startswith("row 2: ")

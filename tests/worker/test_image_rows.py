"""A worker predicts with, and evaluates, a model of images and columns: JSON, forms, archives, and their mistakes."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import trainkit as tk
from tests.support.fit_data import spec
from tests.support.image_tables import MODEL, archive, png, zipped
from trainkit.data import Dataset, prepare
from trainkit.fit import load_model
from worker.evaluate import evaluate
from worker.image_rows import read_image_rows
from worker.predict import predict
from worker.request_input import BadInputError

BOUNDARY = "----boundary"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """(model's folder, dataset, fit result) of 96 images with their columns."""
    folder = tmp_path_factory.mktemp("model")
    (folder / "train.zip").write_bytes(archive(96))
    prepare(folder / "train.zip", folder / "prepared")
    dataset = Dataset.load(folder / "prepared")
    result = tk.fit(spec(MODEL, train={"epochs": 4}), dataset, workdir=folder)
    return folder / "model", dataset, result


def form(*parts: tuple[str, bytes | str], end: str = f"--{BOUNDARY}--\r\n") -> bytes:
    body = b""
    for name, data in parts:
        head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"; filename="x"\r\n\r\n'
        body += head.encode() + (data.encode() if isinstance(data, str) else data) + b"\r\n"
    return body + end.encode()


def answered(model: Path, request: bytes, media_type: str, **options: Any) -> list[dict[str, Any]]:
    body, _ = predict(model, request, media_type, {"boundary": BOUNDARY, **options})
    predictions: list[dict[str, Any]] = json.loads(body)["predictions"]
    return predictions


def refused(model: Path, request: bytes, media_type: str = "application/json", **options: Any) -> dict[str, Any]:
    with pytest.raises(BadInputError) as bad:
        predict(model, request, media_type, {"boundary": BOUNDARY, **options})
    return bad.value.error


def samples(dataset: Any, count: int) -> list[tuple[bytes, dict[str, Any]]]:
    """(PNG file, row as the training file writes it) of the first samples."""
    columns = dataset.inputs.columns.columns
    sides, ages = columns["side"], columns["age"]
    return [
        (
            png(dataset.inputs.pixels[i, ..., 0]),
            {"side": sides.categories[sides.values[i]], "age": str(ages.values[i]).replace(".", ",")},
        )
        for i in range(count)
    ]


def document(*inputs: Any) -> bytes:
    return json.dumps({"inputs": list(inputs)}).encode()


def as_json(data: bytes, row: dict[str, Any]) -> dict[str, Any]:
    return {"image": base64.b64encode(data).decode(), "columns": row}


def test_every_form_of_a_request_gives_the_answers_of_the_evaluation(place: Any) -> None:
    model, dataset, result = place
    expected = [
        dict(zip(("no", "yes"), row, strict=True)) for row in result.model.answer_rows(dataset.inputs, np.arange(4))
    ]
    given = samples(dataset, 4)
    parts: list[tuple[str, bytes | str]] = [("image", data) for data, _ in given]
    requests = {
        "application/json": document(*(as_json(data, row) for data, row in given)),
        "multipart/form-data": form(*parts, ("columns", json.dumps([row for _, row in given]))),
        "application/zip": archive(96, first=4, labels=False),
        "application/octet-stream": archive(96, first=4),
    }
    for media_type, request in requests.items():
        got = answered(model, request, media_type)
        assert [one["probabilities"] for one in got] == expected, media_type
        assert all(one["warnings"] == [] for one in got)
    one = answered(model, form(("columns", json.dumps(given[0][1])), ("image", given[0][0])), "multipart/form-data")
    assert one[0]["label"] == max(expected[0], key=lambda name: expected[0][name])
    url = {"image": "data:image/png;base64," + base64.b64encode(given[0][0]).decode(), "columns": given[0][1]}
    assert answered(model, document(url), "application/json")[0]["label"] == one[0]["label"]


def test_rows_are_checked_as_those_of_a_table(place: Any) -> None:
    model, dataset, _ = place
    data, row = samples(dataset, 1)[0]
    (warned,) = answered(model, document(as_json(data, {"side": "up", "age": "900,0"})), "application/json")
    assert {one["code"] for one in warned["warnings"]} == {"unseen_category", "out_of_range"}

    error = refused(model, document(as_json(data, row), as_json(data, {"side": "left"})))
    assert (error["code"], error["pointer"]) == ("missing_column", "/inputs/1/columns/age")
    error = refused(model, document(as_json(data, {**row, "weight": 3})))
    assert (error["code"], error["pointer"]) == ("unknown_column", "/inputs/0/columns/weight")
    assert answered(model, document(as_json(data, {**row, "weight": 3})), "application/json", ignore_extra=True)
    error = refused(model, document(as_json(data, {**row, "age": "old"})))
    assert (error["code"], error["pointer"]) == ("invalid_input", "/inputs/0/columns/age")


@pytest.mark.parametrize(
    ("sample", "code", "pointer"),
    [
        ({"columns": {}}, "missing", "/inputs/0/image"),
        ({"image": [[0]]}, "missing", "/inputs/0/columns"),
        ({"image": [[0]], "columns": {}, "mask": 1}, "unknown_field", "/inputs/0/mask"),
        ([1, 2], "not_a_sample", "/inputs/0"),
        ({"image": [[0]], "columns": 3}, "not_a_row", "/inputs/0"),
        ({"image": "%%%", "columns": {}}, "not_base64", "/inputs/0/image"),
        ({"image": "AAAA", "columns": {}}, "unreadable_image", "/inputs/0/image"),
        ({"image": {"a": 1}, "columns": {"side": "left", "age": 1}}, "invalid_input", "/inputs/0/image"),
        ({"image": [[0, 300]], "columns": {"side": "left", "age": 1}}, "invalid_input", "/inputs/0/image"),
    ],
)
def test_samples_that_are_none_name_their_place(place: Any, sample: Any, code: str, pointer: str) -> None:
    error = refused(place[0], document(sample))
    assert (error["code"], error["pointer"], error["status"]) == (code, pointer, 422)


def test_forms_that_are_none_name_their_part(place: Any) -> None:
    model, dataset, _ = place
    data, row = samples(dataset, 1)[0]
    columns = json.dumps(row)
    media_type = "multipart/form-data"
    cases = {
        ("missing", "/image"): form(("columns", columns)),
        ("unequal_counts", "/columns"): form(("image", data), ("image", data), ("columns", columns)),
        ("invalid_json", "/columns"): form(("image", data), ("columns", "{")),
        ("unknown_field", "/mask"): form(("image", data), ("columns", columns), ("mask", b"x")),
        ("unreadable_image", "/inputs/0/image"): form(("image", b"GIF8?"), ("columns", columns)),
        ("invalid_form", ""): form(("image", data), ("columns", columns), end=""),
        ("missing_column", "/inputs/0/columns/age"): form(("image", data), ("columns", '{"side": "left"}')),
    }
    for (code, pointer), request in cases.items():
        error = refused(model, request, media_type)
        assert (error["code"], error["pointer"]) == (code, pointer)
    assert (
        refused(model, form(("image", data), ("columns", columns)), media_type, boundary="")["code"] == "invalid_form"
    )


def test_images_are_brought_to_the_trained_size_one_by_one(place: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model, dataset, _ = place
    row = samples(dataset, 1)[0][1]
    data = png(np.arange(24 * 30).reshape(24, 30) % 251)
    held: list[tuple[int, int]] = []

    def watched(*arguments: Any) -> Any:
        found = read_image_rows(*arguments)
        held.extend(image.size for image in found.images)
        return found

    monkeypatch.setattr("worker.predict.read_image_rows", watched)
    (one,) = answered(model, form(("image", data), ("columns", json.dumps(row))), "multipart/form-data")
    assert held == [(6, 6)]
    whole = Image.open(io.BytesIO(data))
    (expected,) = load_model(model).predict(
        {"image": whole, "columns": {**row, "age": float(row["age"].replace(",", "."))}}
    )
    assert one["probabilities"] == expected["probabilities"]


def test_an_image_or_rows_alone_are_refused(place: Any) -> None:
    for media_type in ("image/png", "text/csv"):
        error = refused(place[0], b"x", media_type)
        assert (error["code"], error["status"]) == ("unsupported_media_type", 415)
        assert "columns" in error["message"]


def test_archives_whose_rows_and_images_differ_are_refused(place: Any) -> None:
    model = place[0]
    picture = png(np.zeros((6, 6)))
    table = "file;side;age\na.png;left;1,5\n"
    gone = zipped({"a.png": picture, "t.csv": table + "b.png;left;2\n"})
    error = refused(model, gone, "application/zip")
    assert (error["code"], error["pointer"]) == ("missing_image", "/inputs/1/file")
    assert "row 1 (line 3): no readable image 'b.png'" in error["message"]
    error = refused(model, zipped({"a.png": picture, "c.png": picture, "t.csv": table}), "application/zip")
    assert error["code"] == "image_without_row"
    assert refused(model, zipped({"a.png": picture}), "application/zip")["code"] == "many_tables"
    assert refused(model, zipped({"t.csv": table}), "application/zip")["code"] == "no_images"
    assert refused(model, b"PK\x03\x04", "application/zip")["status"] == 422
    lacking = zipped({"a.png": picture, "t.csv": "file;side\na.png;left\n"})
    assert refused(model, lacking, "application/zip")["code"] == "missing_column"


def test_an_archive_or_rows_with_labels_are_evaluated(place: Any) -> None:
    model, dataset, result = place
    whole, media_type = evaluate(model, archive(96), "application/zip", {})
    answer = json.loads(whole)
    assert (media_type, answer["samples"], answer["warnings"]) == ("application/json", 96, [])
    truth = np.asarray(dataset.targets)
    accuracy = float((result.model.answer_rows(dataset.inputs, np.arange(96)).argmax(1) == truth).mean())
    assert answer["metrics"]["accuracy"] == accuracy
    assert set(answer["ablation"]) == {"permutations", "without_image", "without_columns"}
    stored, _ = evaluate(model, b"{}", "application/json", {"dataset_folder": str(model.parent / "prepared")})
    assert json.loads(stored)["metrics"] == answer["metrics"]
    data, row = samples(dataset, 1)[0]
    one, _ = evaluate(model, document(as_json(data, {**row, "label": "no"})), "application/json", {})
    assert (json.loads(one)["samples"], json.loads(one)["ablation"]) == (1, None)
    with pytest.raises(BadInputError) as bad:
        evaluate(model, archive(96, first=4, labels=False), "application/zip", {})
    assert (bad.value.error["code"], bad.value.error["pointer"]) == ("missing_column", "/inputs/label")


def test_images_without_columns_are_not_evaluated(place: Any, tmp_path: Path) -> None:
    rows = "\n".join(f"{i}.png,{'no' if i % 2 else 'yes'}" for i in range(4))
    (tmp_path / "plain.zip").write_bytes(
        zipped({**{f"{i}.png": png(np.full((6, 6), i)) for i in range(4)}, "t.csv": f"file,label\n{rows}\n"})
    )
    prepare(tmp_path / "plain.zip", tmp_path / "prepared")
    with pytest.raises(BadInputError) as bad:
        evaluate(place[0], b"{}", "application/json", {"dataset_folder": str(tmp_path / "prepared")})
    assert bad.value.error["code"] == "needs_columns"
    assert "side, age" in bad.value.error["hint"].replace('"', "")

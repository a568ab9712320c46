"""What is to be predicted becomes the body that the service reads."""

from __future__ import annotations

import base64
import io
import json
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import polars
import pytest
import torch
from PIL import Image

from trainkit_client.inputs import encode_inputs

IMAGE = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8))


def samples(inputs: Any) -> Any:
    """The samples of a JSON body."""
    body = encode_inputs(inputs)
    assert body.media_type == "application/json"
    return json.loads(body.content, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))["inputs"]


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def test_rows_of_frames_are_plain_and_what_is_missing_is_null() -> None:
    columns: dict[str, Any] = {
        "number": [1.5, None],
        "text": ["ä", None],
        "time": [datetime(2026, 1, 31, 12, tzinfo=UTC), None],
        "flag": [True, False],
    }
    expected = [
        {"number": 1.5, "text": "ä", "time": "2026-01-31T12:00:00+00:00", "flag": True},
        {"number": None, "text": None, "time": None, "flag": False},
    ]
    frame = pandas.DataFrame(columns)
    assert (
        samples(frame)
        == samples(polars.DataFrame(columns))
        == samples(polars.DataFrame(columns).to_arrow())
        == expected
    )
    assert samples(frame.convert_dtypes()) == expected  # its missing values are pandas.NA
    assert samples(frame.astype({"text": "category"})) == expected
    assert samples([{"day": date(2026, 1, 31), "n": np.int64(3), "x": float("nan")}]) == [
        {"day": "2026-01-31", "n": 3, "x": None}
    ]


def test_arrays_have_samples_along_their_first_axis(tmp_path: Path) -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.save(tmp_path / "x.npy", array)
    np.savez(tmp_path / "x.npz", X=array, y=[0, 1])
    forms = [array, torch.from_numpy(array).requires_grad_(), tmp_path / "x.npy", tmp_path / "x.npz", array.tolist()]
    for form in forms:
        assert samples(form) == [[0, 1, 2], [3, 4, 5]]
    assert samples([array[0], array[1]]) == [[0, 1, 2], [3, 4, 5]]
    with pytest.raises(ValueError, match=r"first axis; got the shape \(6,\)"):
        encode_inputs(array.ravel())


def test_images_are_one_body_or_base64_in_a_list(tmp_path: Path) -> None:
    (tmp_path / "b.png").write_bytes(png(IMAGE))
    (tmp_path / "a.png").write_bytes(png(IMAGE.transpose(Image.Transpose.ROTATE_90)))
    single = encode_inputs(IMAGE)
    assert (single.content, single.media_type) == (png(IMAGE), "image/png")
    assert encode_inputs(tmp_path / "b.png") == single
    texts = samples([IMAGE, tmp_path / "b.png", str(tmp_path / "b.png"), png(IMAGE)])
    assert [base64.b64decode(text) for text in texts] == [png(IMAGE)] * 4
    in_folder = [base64.b64decode(text) for text in samples(tmp_path)]
    assert in_folder == [(tmp_path / name).read_bytes() for name in ("a.png", "b.png")]  # by name
    (multimodal,) = samples([{"image": IMAGE, "columns": {"age": 54}}])
    assert base64.b64decode(multimodal["image"]) == png(IMAGE)


@pytest.mark.parametrize(
    ("name", "media_type"),
    [
        ("rows.CSV", "text/csv"),
        ("rows.csv.gz", "text/csv"),
        ("rows.tsv", "text/tab-separated-values"),
        ("rows.parquet", "application/vnd.apache.parquet"),
        ("photo.JPG", "image/jpeg"),
    ],
)
def test_a_file_is_sent_as_it_is(tmp_path: Path, name: str, media_type: str) -> None:
    (tmp_path / name).write_bytes(b"content")
    body = encode_inputs(str(tmp_path / name))
    assert (body.content, body.media_type) == (b"content", media_type)


@pytest.mark.parametrize(
    ("inputs", "error", "message"),
    [
        ([], ValueError, "the list is empty"),
        (3, TypeError, "int cannot be predicted"),
        ([[float("inf")]], ValueError, "infinite"),
        ("missing.csv", FileNotFoundError, "missing.csv"),
        ("model.pt", ValueError, "'.pt' are not read"),
    ],
)
def test_what_cannot_be_predicted_is_said(inputs: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        encode_inputs(inputs)

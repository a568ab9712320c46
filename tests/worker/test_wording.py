"""Whatever is sent to predict or uploaded, the refusal is a sentence of our own, not what a library says of its inside."""

from __future__ import annotations

import gzip
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import trainkit as tk
from tests.support.fit_data import images, sequences, spec, table, vectors
from tests.support.hostile_files import mnist, npz, png, tarred, zipped
from trainkit.data import DataError, load_dataset
from worker.predict import BadInputError, predict

OF_LIBRARIES = (
    *("setting an array", "inhomogeneous", "could not convert", "could not broadcast", "dtype", "numpy", "ndarray"),
    *("torch", "Tensor", "Arrow", "magic bytes", "thrift", "zipfile", "central directory", "Errno", "Expecting"),
    *("char 0", "codec can't", "not supported between", "Error -", "not subscriptable", "object has no", "NoneType"),
    *("positional", "BytesIO", "<class", "invalid literal", "unhashable", "np.", "Traceback", "File is not", "zlib"),
    *("broken data stream", "image file is truncated", "CRC", "xml", "XML", "KeyError", "Buffer"),
)
VALUES: tuple[Any, ...] = (None, True, 0, 1.5, 2**70, "", "x", "1", [], {}, [[]], [None], {"a": 1}, [[1], [1, 2]])


def check_wording(text: str) -> None:
    assert len(text) > 8, text
    for phrase in OF_LIBRARIES:
        assert phrase not in text, (phrase, text)


MODELS: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
    "table": (table, spec({"kind": "linear"}, preprocess=[{"kind": "impute"}])),
    "arrays": (vectors, spec({"kind": "linear"})),
    "images": (images, spec({"kind": "cnn", "channels": [2]})),
    "sequences": (sequences, spec({"kind": "gru", "hidden": 2})),
}


def wrong_inputs(sample: Any) -> list[Any]:
    """Each value in place of all inputs, of a sample, and of the first entry at each depth of it."""
    found = [*VALUES, *([value] for value in VALUES), *([sample, value] for value in VALUES)]
    place = sample
    path: list[Any] = []
    while isinstance(place, list | dict) and place:
        path.append(0 if isinstance(place, list) else next(iter(place)))
        for value in VALUES:
            changed = json.loads(json.dumps(sample))
            inner = changed
            for step in path[:-1]:
                inner = inner[step]
            inner[path[-1]] = value
            found.append([changed])
        place = place[path[-1]]
    return found


@pytest.mark.parametrize("kind", MODELS)
def test_wrong_inputs_of_a_request(kind: str, tmp_path: Path) -> None:
    make, document = MODELS[kind]
    data = make()
    folder = tk.fit({**document, "train": {"epochs": 1, "threads": 1}}, data).model.save(tmp_path / "model")
    samples: dict[str, Any] = {
        "table": {"x": 1.0, "town": "Ulm"},
        "arrays": [0.5] * 6,
        "images": np.zeros((1, 8, 8)).tolist(),
        "sequences": [[0.5] * data.facts.input_shape[1]] * 3 if kind == "sequences" else None,
    }
    refused = 0
    for inputs in wrong_inputs(samples[kind]):
        try:
            predict(folder, json.dumps({"inputs": inputs}).encode(), "application/json", {})
        except BadInputError as error:
            refused += 1
            for item in error.error["errors"]:
                check_wording(item["message"])
                assert item["hint"] or kind == "table", item
    assert refused > 30
    for body, media_type in (
        (b'{"inputs": [1, }', "application/json"),
        (b"\xff", "application/json"),
        (b"not an image", "image/png"),
        (png("RGB", (40, 40))[:60], "image/png"),
        (png("RGB", (40, 40), kind="JPEG")[:300], "image/jpeg"),
        (b"PAR1 and no more", "application/vnd.apache.parquet"),
        (b"PK\x03\x04 and no more", "application/octet-stream"),
        (gzip.compress(b"x,town\n1,Ulm\n")[:-6], "text/csv"),
        (b'{"x": 1\n', "application/x-ndjson"),
        (b"[[1, 2], [3, 4]]", "application/x-ndjson"),
    ):
        with pytest.raises(BadInputError) as bad:
            predict(folder, body, media_type, {})
        for item in bad.value.error["errors"]:
            check_wording(item["message"])


def test_a_json_list_under_the_type_of_json_lines(tmp_path: Path) -> None:
    folder = tk.fit({**MODELS["table"][1], "train": {"epochs": 1}}, table()).model.save(tmp_path / "model")
    rows: list[dict[str, Any]] = [{"x": 1.0, "town": "Ulm"}, {"x": None, "town": "Kiel"}]
    lines = "\n".join(json.dumps(row) for row in rows).encode()
    expected = predict(folder, lines, "application/x-ndjson", {})
    assert predict(folder, json.dumps(rows).encode(), "application/x-ndjson", {}) == expected
    assert predict(folder, json.dumps(rows, indent=1).encode(), "application/x-ndjson", {}) == expected


def workbook() -> bytes:
    book, buffer = openpyxl.Workbook(), io.BytesIO()
    for row in (["a", "b"], *([i, i] for i in range(300))):
        book.active.append(row)
    book.save(buffer)
    return buffer.getvalue()


def without(raw: bytes, name: str) -> bytes:
    """The zip without one of its entries."""
    with zipfile.ZipFile(io.BytesIO(raw)) as bundle:
        return zipped({one: bundle.read(one) for one in bundle.namelist() if one != name})


def parquet_file() -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table({"a": list(range(2000)), "b": [str(i) for i in range(2000)]}), buffer)
    return buffer.getvalue()


def damaged(raw: bytes) -> list[bytes]:
    """The file cut off at several places, and with bytes of its middle and of its end changed."""
    cut = [raw[: len(raw) * part // 8 - 9] for part in (2, 4, 6)]
    changed = []
    for place in (len(raw) // 3, len(raw) // 2, len(raw) - 12):
        changed.append(raw[:place] + bytes(255 - byte for byte in raw[place : place + 8]) + raw[place + 8 :])
    return cut + changed


IMAGES = {f"{label}/{i}.png": png(size=(30, 20), colour=i) for label in "ab" for i in range(8)}
FILES: dict[str, Callable[[], bytes]] = {
    "npz": lambda: npz(X=np.random.default_rng(0).normal(size=(50, 4)), y=np.arange(50) % 2),
    "parquet": parquet_file,
    "xlsx": workbook,
    "xlsx without its sheet": lambda: without(workbook(), "xl/worksheets/sheet1.xml"),
    "zip": lambda: zipped(IMAGES),
    "tar": lambda: tarred(IMAGES),
    "tar.gz": lambda: gzip.compress(tarred(IMAGES)),
    "csv.gz": lambda: gzip.compress(b"a,b\n" + b"".join(b"%d,%d\n" % (i, i * i) for i in range(2000))),
    "idx": lambda: mnist(),
    "jsonl": lambda: b'{"a": 1}\n{"a": 2,}\n[1]\n{"a": "x\n' * 20,
    "json": lambda: b'[{"a": 1}, {"a": 2 "b": 3}]',
}


@pytest.mark.parametrize("kind", FILES)
def test_damaged_files(kind: str, tmp_path: Path) -> None:
    raw, refused = FILES[kind](), 0
    for bytes_of in [raw] * (kind in ("jsonl", "json", "xlsx without its sheet")) + damaged(raw):
        (tmp_path / "file").write_bytes(bytes_of)
        try:
            load_dataset(tmp_path / "file")
        except DataError as error:
            refused += 1
            for problem in error.problems:
                check_wording(problem.message)
    assert refused > 2

"""Uploaded weights: safetensors files, and errors that name damaged tensors."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from trainkit.data import DataError, prepare
from trainkit.data.weights import read_weights


def written(path: Path, header: Any, data: bytes = b"") -> Path:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + data)
    return path


def tensor(begin: int = 0, end: int = 8, shape: Any = (2,), dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


def test_read_weights_of_the_safetensors_library(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    tensors = {"a.weight": np.zeros((3, 4), np.float32), "a.bias": np.zeros(3, np.float16), "n": np.array(1)}
    save_file(tensors, path, {"made": "here"})
    facts, report = prepare(path, tmp_path / "prepared")
    assert (facts.kind, report["parameters"], report["tensor_count"]) == ("weights", 16, 3)
    shapes = {entry["name"]: (entry["dtype"], entry["shape"]) for entry in report["tensors"]}
    assert shapes == {"a.weight": ("F32", [3, 4]), "a.bias": ("F16", [3]), "n": ("I64", [])}


@pytest.mark.parametrize(
    ("header", "data", "named"),
    [
        (b"{}", b"", "no tensors"),
        (b"{,", b"", "not JSON"),
        (b"[" * 5000, b"", "not a safetensors"),
        ({"w": tensor(dtype="F99")}, bytes(8), "w: the tensor has an unknown dtype"),
        ({"w": 1}, bytes(8), "w: the tensor has an unknown dtype"),
        ({"w": {"dtype": "F32"}}, bytes(8), "w: the tensor has no valid shape"),
        ({"w": tensor(shape=[-1])}, bytes(8), "w: the tensor has no valid shape"),
        ({"w": tensor(end=4)}, bytes(4), "w: the tensor has 4 bytes, its shape needs 8"),
        ({"w": tensor()}, bytes(4), "w: the tensor's data ends beyond"),
        ({"w": tensor()}, bytes(12), "w: the tensor's data is followed by byte 12"),
        ({"v": tensor(), "w": tensor(4, 12)}, bytes(12), "v: the tensor's data is followed by byte 4 of 'w'"),
        ({"v": tensor(), "w": tensor(12, 20)}, bytes(20), "v: the tensor's data is followed by byte 12 of 'w'"),
    ],
)
def test_read_weights_errors_name_the_tensor(header: Any, data: bytes, named: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        read_weights(written(tmp_path / "w", header, data))
    problem = caught.value.problems[0]
    assert named in f"{problem.where}: {problem.message}"


def test_a_header_longer_than_the_file(tmp_path: Path) -> None:
    (tmp_path / "w").write_bytes(struct.pack("<Q", 2**40) + b"{}")
    with pytest.raises(DataError, match="not a safetensors file"):
        prepare(tmp_path / "w", tmp_path / "prepared", kind="weights")


@pytest.mark.parametrize(
    ("metadata", "classes"),
    [
        ({"classes": '["b", "a"]'}, {"b": 0, "a": 0}),
        ({"classes": '["a", "a"]'}, None),
        ({"classes": "[1]"}, None),
        ({"classes": "no JSON"}, None),
        ({"other": "x"}, None),
        (None, None),
    ],
)
def test_a_file_may_name_the_classes_of_its_head(
    metadata: dict[str, str] | None, classes: dict[str, int] | None, tmp_path: Path
) -> None:
    save_file({"w": np.zeros(2, np.float32)}, tmp_path / "w", metadata)
    assert read_weights(tmp_path / "w")[0].classes == classes

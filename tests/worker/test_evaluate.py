"""A worker evaluates a kept model on a prepared dataset, or on a file in one of the forms that an upload may have."""

from __future__ import annotations

import gzip
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import trainkit as tk
from tests.support.fit_data import spec
from trainkit.data import prepare
from worker.evaluate import evaluate
from worker.request_input import BadInputError

MLP = {"kind": "mlp", "hidden": [8]}


def answered(model: Path, request: bytes, media_type: str, **options: Any) -> dict[str, Any]:
    body, media = evaluate(model, request, media_type, options)
    assert media == "application/json"
    answer: dict[str, Any] = json.loads(body)
    return answer


def refused(model: Path, request: bytes, media_type: str, **options: Any) -> dict[str, Any]:
    with pytest.raises(BadInputError) as bad:
        evaluate(model, request, media_type, options)
    return bad.value.error


def png(level: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((6, 6), level, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def archive(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as bundle:
        for name, data in files.items():
            bundle.writestr(name, data)
    return buffer.getvalue()


def trained(tmp_path: Path, file: bytes, name: str, document: dict[str, Any]) -> tuple[Path, Path, dict[str, Any]]:
    """(model's folder, prepared dataset, the job's evaluation)."""
    upload, prepared = tmp_path / name, tmp_path / "prepared"
    upload.write_bytes(file)
    prepare(upload, prepared, target="y" if name.endswith("csv") else None)
    result = tk.fit(document, tk.Dataset.load(prepared))
    assert result.evaluation is not None
    return result.model.save(tmp_path / "model"), prepared, result.evaluation


def test_a_table(tmp_path: Path) -> None:
    lines = [f"{k % 3 + 0.1 * (k % 7)},{'abc'[k % 3]}" for k in range(60)]
    model, prepared, of_job = trained(tmp_path, ("x,y\n" + "\n".join(lines)).encode(), "t.csv", spec(MLP))
    found = answered(
        model, b"{}", "application/json", dataset_folder=str(prepared), part="test", is_training_dataset=True
    )
    assert {name: found[name] for name in of_job if name != "parts"} == {
        n: v for n, v in of_job.items() if n != "parts"
    }
    rows = [dict(zip("xy", line.split(","), strict=True)) for line in lines]
    forms = [
        (("y;x\n" + "".join(f"{row['y']};{row['x']}\n" for row in rows)).encode(), "text/csv"),
        (json.dumps({"inputs": rows}).encode(), "application/json"),
        ("\n".join(json.dumps(row) for row in rows).encode(), "application/x-ndjson"),
    ]
    answers = [answered(model, body, media_type) for body, media_type in forms]
    assert answers[0] == answers[1] == answers[2]
    assert answers[0]["samples"] == 60
    assert answered(model, gzip.compress(forms[0][0]), "application/gzip") == answers[0]
    bad = refused(model, b"x,y\n1,a\n2,d\n", "text/csv")
    assert (bad["code"], bad["pointer"]) == ("unknown_label", "/inputs/1/y")
    assert bad["message"].startswith('row 1 (line 3): the label "d" is none')
    assert refused(model, b"x\n1\n", "text/csv")["code"] == "missing_column"
    assert refused(model, archive({"a/1.png": png(0)}), "application/zip")["status"] == 415


def test_images_in_class_folders(tmp_path: Path) -> None:
    files = {f"{'dark' if k % 2 else 'light'}/{k}.png": png(20 + k if k % 2 else 220 - k) for k in range(30)}
    model, prepared, of_job = trained(tmp_path, archive(files), "i.zip", spec({"kind": "cnn", "channels": [4]}))
    whole = answered(model, b"{}", "application/json", dataset_folder=str(prepared))
    sent = answered(model, archive(files), "application/zip")
    assert sent == whole
    assert sent["samples"] == 30
    assert of_job["classes"] == sent["classes"] == ["dark", "light"]
    # only one of the classes, in larger colour images
    buffer = io.BytesIO()
    Image.fromarray(np.full((12, 12, 3), 30, np.uint8)).save(buffer, "PNG")
    one = answered(model, archive({"dark/a.png": buffer.getvalue(), "dark/b.png": png(30)}), "application/octet-stream")
    assert [row["support"] for row in one["per_class"]] == [2, 0]
    bad = refused(model, archive({"dark/a.png": png(1), "cat/b.png": png(2)}), "application/zip")
    assert bad["code"] == "unknown_label"
    assert '"cat" (1)' in bad["hint"]
    assert refused(model, b"not an archive \x00", "application/zip")["code"] == "unknown_kind"
    assert refused(model, b'{"inputs": []}', "application/json")["code"] == "not_a_table"


def test_arrays_with_few_whole_numbers_to_predict(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    buffer = io.BytesIO()
    np.savez(buffer, X=x, y=(x @ [1.0, 2.0, 3.0]).astype(np.float64))
    model, _, _ = trained(tmp_path, buffer.getvalue(), "a.npz", spec(MLP))
    few = io.BytesIO()
    np.savez(few, X=x[:4], y=np.array([1, 2, 1, 0]))
    found = answered(model, few.getvalue(), "application/octet-stream")
    assert set(found["metrics"]) == {"loss", "mse", "mae", "r2"}
    assert found["classes"] == []
    bad = refused(model, b"a,y\n1,2\n3,4\n", "text/csv")
    assert (bad["code"], bad["message"]) == ("wrong_kind", "the model reads arrays, and the data are a table")


def test_sequences_from_a_table_in_long_form(tmp_path: Path) -> None:
    lines = [
        f"s{k},{(1 if k % 2 else -1) * step},{'up' if k % 2 else 'down'}"
        for k in range(40)
        for step in range(4 + k % 3)
    ]
    upload, prepared = tmp_path / "s.csv", tmp_path / "prepared"
    upload.write_text("id,v,label\n" + "\n".join(lines) + "\n")
    prepare(upload, prepared, kind="sequences", target="label")
    result = tk.fit(spec({"kind": "gru", "hidden": 4}), tk.Dataset.load(prepared))
    assert result.evaluation is not None
    model = result.model.save(tmp_path / "model")
    sent = answered(model, upload.read_bytes(), "text/csv", target="label")
    assert sent == answered(model, b"{}", "application/json", dataset_folder=str(prepared))
    again = answered(
        model, b"{}", "application/json", dataset_folder=str(prepared), part="test", is_training_dataset=True
    )
    assert again["metrics"] == result.evaluation["metrics"]
    wrong = upload.read_bytes().replace(b"id,v", b"id,w")
    assert refused(model, wrong, "text/csv", target="label")["code"] == "wrong_columns"


def test_a_dataset_that_is_gone(tmp_path: Path) -> None:
    lines = "\n".join(f"{k},{'ab'[k % 2]}" for k in range(40))
    model, _, _ = trained(tmp_path, f"x,y\n{lines}".encode(), "t.csv", spec(MLP))
    bad = refused(model, b"{}", "application/json", dataset_folder=str(tmp_path / "gone"))
    assert (bad["status"], bad["code"], bad["pointer"]) == (409, "not_ready", "/dataset")

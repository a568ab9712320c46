"""Rows of a table without a target: in no part, counted, never counted as another class; or refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

import trainkit as tk
from trainkit.data import Dataset, prepare
from trainkit.data.errors import InputError
from trainkit.data.table.request_rows import read_request
from trainkit.fit.encoding.prepare import prepare as prepared
from trainkit.spec.problems import SpecError
from trainkit.spec.read_options import ReadOptions
from trainkit.spec.resolve import resolve

ROWS = 60
GAPS = (0, 7, 8, 31, 59)
SPEC: dict[str, Any] = {
    "dataset": {"id": "d", "target": "y"},
    "model": {"kind": "mlp", "hidden": [8]},
    "split": {"train": 6, "validation": 2, "test": 2},
    "train": {"epochs": 3, "batch_size": 8, "threads": 1},
}


def targets(kind: str) -> list[Any]:
    of_kind = {"text": lambda i: "ab"[i % 2], "whole": lambda i: i % 3, "number": lambda i: i * 1.5 + 0.25}
    return [None if i in GAPS else of_kind[kind](i) for i in range(ROWS)]


def records(kind: str) -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    return [{"x": round(float(x), 4), "y": y} for x, y in zip(rng.normal(size=ROWS), targets(kind), strict=True)]


def written(folder: Path, form: str, rows: list[dict[str, Any]]) -> Path:
    path = folder / "file"
    if form == "csv":
        path.write_text("x,y\n" + "".join(f"{row['x']},{'' if row['y'] is None else row['y']}\n" for row in rows))
    elif form == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def loaded(folder: Path, path: Path, target: str | None = "y", **reading: Any) -> tuple[Dataset, dict[str, Any]]:
    _, report = prepare(path, folder / "prepared", target=target, reading=ReadOptions.model_validate(reading))
    return Dataset.load(folder / "prepared"), report


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("kind", ["text", "whole", "number"])
def test_a_model_is_the_one_of_the_other_rows(form: str, kind: str, tmp_path: Path) -> None:
    """Trained with the gaps or without their rows: the same parts, so the same bits."""
    rows = records(kind)
    data, report = loaded(tmp_path, written(tmp_path, form, rows))
    with_gaps = tk.fit(SPEC, data)
    alone, _ = loaded(tmp_path, written(tmp_path, form, [row for row in rows if row["y"] is not None]))
    without = tk.fit(SPEC, alone)
    assert with_gaps.evaluation is not None
    assert without.evaluation is not None
    labelled = [number for number, row in enumerate(rows) if row["y"] is not None]
    for pair in without.evaluation.get("misclassified") or ():  # rows are counted as in the file
        pair["samples"] = [labelled[sample] for sample in pair["samples"]]
    assert with_gaps.evaluation == without.evaluation
    (found,) = [one for one in report["findings"] if one["code"] == "unlabelled_rows"]
    assert found["message"] == (
        "5 of 60 rows have no target (row 1, row 8, row 9, row 32, row 60): a job leaves them out"
    )
    warned = {one.code: one for one in resolve(SPEC, data.facts).warnings}
    assert '5 of 60 rows have no value in the target column "y"' in warned["unlabelled_rows"].message
    assert "unlabelled_rows" not in {one.code for one in resolve(SPEC, alone.facts).warnings}

    evaluation = tk.evaluate_model(with_gaps.model, data, part="test", is_training_dataset=True)
    assert {**evaluation, "warnings": []} == {
        **{name: value for name, value in with_gaps.evaluation.items() if name != "parts"},
        "warnings": [],
    }


def test_parts_hold_the_rows_of_the_file(tmp_path: Path) -> None:
    data, _ = loaded(tmp_path, written(tmp_path, "csv", records("text")))
    spec = resolve(SPEC, data.facts).spec
    parts = prepared(spec, data, torch.device("cpu"), lambda phase: None)
    assert parts.val is not None
    assert parts.test is not None
    rows = np.concatenate([parts.train.index, parts.val.index, parts.test.index])
    assert sorted(rows) == [row for row in range(ROWS) if row not in GAPS]
    labels = targets("text")
    for part in (parts.train, parts.val, parts.test):
        assert [labels[row] for row in part.index] == [parts.classes[label] for label in part.truth]


def test_shipped_parts_are_kept(tmp_path: Path) -> None:
    """As in competitions: the test part comes without targets, so that there is none."""
    rows = [{**row, "split": "test" if row["y"] is None else "train"} for row in records("text")]
    data, _ = loaded(tmp_path, written(tmp_path, "jsonl", rows))
    result = tk.fit(SPEC, data)
    assert result.evaluation["split"] == "val"
    with pytest.raises(InputError, match="the part test holds no samples"):
        tk.evaluate_model(result.model, data, part="test", is_training_dataset=True)


def refusals(document: dict[str, Any], data: Dataset) -> list[str]:
    with pytest.raises(SpecError) as refused:
        resolve(document, data.facts)
    return [problem.code for problem in refused.value.problems if problem.pointer == "/dataset/target"]


def test_refused_where_asked_or_where_most_are_missing(tmp_path: Path) -> None:
    data, _ = loaded(tmp_path, written(tmp_path, "csv", records("text")))
    refuse = {**SPEC, "dataset": {**SPEC["dataset"], "missing_target": "refuse"}}
    assert refusals(refuse, data) == ["missing_values"]

    rows = [{**row, "y": row["y"] if i < 24 else None} for i, row in enumerate(records("text"))]
    most, report = loaded(tmp_path, written(tmp_path, "csv", rows))
    assert refusals(SPEC, most) == ["missing_values"]
    assert "refuses the dataset" in next(
        one["message"] for one in report["findings"] if one["code"] == "unlabelled_rows"
    )
    left_out = {**SPEC, "dataset": {**SPEC["dataset"], "missing_target": "leave_out"}}
    assert tk.fit(left_out, most).evaluation["samples"] == 4

    nothing, _ = loaded(tmp_path, written(tmp_path, "jsonl", [{**row, "y": None} for row in rows]), target=None)
    assert "missing_values" in refusals(left_out, nothing)
    series = {**SPEC, "task": "forecasting"}
    gaps, _ = loaded(tmp_path, written(tmp_path, "csv", records("number")))
    assert refusals(series, gaps) == ["missing_values"]


def test_evaluation_of_rows_without_a_label(tmp_path: Path) -> None:
    """They are left out and counted; numbers of rows stay those of what was sent."""
    data, _ = loaded(tmp_path, written(tmp_path, "csv", records("text")))
    model = tk.fit(SPEC, data).model
    encoder = model.table_encoders[0]
    body = b"x,y\n0.1,a\n0.2,\n99,b\n0.3,a\n"
    found = tk.evaluate_model(model, read_request(encoder.format, body, "text/csv", encoder.names))
    alone = tk.evaluate_model(
        model, read_request(encoder.format, body.replace(b"0.2,\n", b""), "text/csv", encoder.names)
    )
    assert found["samples"] == 3
    assert found["metrics"] == alone["metrics"]
    counted, far = found["warnings"]
    assert (counted["code"], counted["rows"], counted["first_row"]) == ("unlabelled_rows", 1, 1)
    assert (far["code"], far["first_row"]) == ("out_of_range", 2)
    with pytest.raises(InputError) as refused:
        tk.evaluate_model(model, read_request(encoder.format, b"x,y\n0.1,a\n0.2,\nx,b\n", "text/csv", encoder.names))
    (problem,) = refused.value.problems
    assert problem.row == 2
    assert problem.message.startswith("row 2 (line 4)")


def test_a_leak_is_found_among_the_rows_with_a_target(tmp_path: Path) -> None:
    rows = [{"x": i / 8, "day": f"2024-01-{i % 28 + 1:02d}", "y": "ab"[i // 30 % 2]} for i in range(120)]
    rows = [{**row, "copy": row["y"], "y": None if i % 10 == 0 else row["y"]} for i, row in enumerate(rows)]
    _, report = loaded(tmp_path, written(tmp_path, "jsonl", rows))
    assert [one["where"] for one in report["findings"] if one["code"] == "target_leak"] == ["copy"]

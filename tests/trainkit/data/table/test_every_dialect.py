"""Whatever a table's file looks like, its cells are read right, and predict reads the same rows in the same way."""

from __future__ import annotations

import datetime
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, settings

import trainkit as tk
from tests.support.table_files import Written, written_tables
from trainkit.data import Dataset, TableInputs, prepare
from trainkit.data.table.request_rows import TableRows, read_request
from trainkit.fit.encoding.table_encoder import TableEncoder
from trainkit.spec.preprocess import Impute
from trainkit.spec.read_options import ReadOptions

QUICK = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)


def intake(folder: Path, table: Written) -> Dataset:
    (folder / "file").write_bytes(table.data)
    reading = ReadOptions(skip_rows=table.dialect.get("titles"))
    prepare(folder / "file", folder / "prepared", target=table.target, reading=reading)
    return Dataset.load(folder / "prepared")


def meaning(value: Any, table: Written) -> Any:
    """What a cell is in the prepared form."""
    if isinstance(value, bool):
        return table.dialect["true"][0 if value else 1] if table.dialect else str(value).lower()
    if isinstance(value, datetime.date):
        return datetime.datetime.combine(value, datetime.time(), datetime.UTC).timestamp()
    return value


def values(dataset: Dataset, name: str) -> list[Any]:
    assert isinstance(dataset.inputs, TableInputs)
    column = dataset.inputs.columns[name]
    if column.categories is None:
        return [None if np.isnan(value) else value for value in column.values.tolist()]
    return [None if code < 0 else column.categories[code] for code in column.values.tolist()]


@settings(QUICK, max_examples=150)
@given(written_tables())
def test_cells_are_read_right(table: Written) -> None:
    with tempfile.TemporaryDirectory() as folder:
        dataset = intake(Path(folder), table)
        assert dataset.facts.samples == len(table.columns[table.target])
        for name, cells in table.columns.items():
            assert values(dataset, name) == [meaning(value, table) for value in cells], (name, table.dialect)


@settings(QUICK, max_examples=150)
@given(written_tables())
def test_the_files_own_rows_are_encoded_as_in_training(table: Written) -> None:
    with tempfile.TemporaryDirectory() as folder:
        dataset = intake(Path(folder), table)
        assert isinstance(dataset.inputs, TableInputs)
        columns = [column for column in dataset.facts.columns or () if column.name != table.target]
        everything = np.arange(dataset.facts.samples)
        fitted = TableEncoder.fit(dataset.inputs, columns, Impute(), everything)
        encoder = TableEncoder.from_state(json.loads(json.dumps(fitted.state())))
        expected = fitted.encode(dataset.inputs, everything).numpy()
        rows = read_request(encoder.format, table.data, "application/octet-stream", encoder.names)
        encoded, warnings = encoder.parse(rows)
        assert np.array_equal(encoded.numpy(), expected)
        assert {warning["code"] for row in warnings for warning in row} <= {"imputed"}
        # the same values as JSON: numbers as numbers, true as true, dates as the file writes them
        cells = {
            name: [_as_json(value, table) for value in table.columns[name]]
            for name in table.columns
            if name != table.target
        }
        assert np.array_equal(encoder.parse(TableRows(cells, len(everything)))[0].numpy(), expected)


def _as_json(value: Any, table: Written) -> Any:
    if isinstance(value, datetime.date):
        return value.strftime(table.dialect.get("date", "%Y-%m-%d"))
    return value


@settings(QUICK, max_examples=12)
@given(written_tables())
def test_predict_answers_what_the_evaluation_had(table: Written) -> None:
    with tempfile.TemporaryDirectory() as folder:
        dataset = intake(Path(folder), table)
        spec = {"dataset": "d", "model": {"kind": "mlp", "hidden": [4]}, "train": {"epochs": 2, "threads": 1}}
        preprocess = [{"kind": "impute"}, {"kind": "z_score"}]
        tk.fit({**spec, "preprocess": preprocess}, dataset, workdir=folder)
        model = tk.load_model(Path(folder) / "model")
        (encoder,) = model.table_encoders
        rows = read_request(encoder.format, table.data, "application/octet-stream", encoder.names)
        answers = np.array([list(one["probabilities"].values()) for one in model.predict(rows)])
        assert np.array_equal(answers, model.answer_rows(dataset.inputs, np.arange(dataset.facts.samples)))

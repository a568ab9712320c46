"""Public files work untouched: what a user reads in the report is right, and predict answers as the evaluation did."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import openpyxl
import pytest

import trainkit as tk
from trainkit.data import Dataset, TableInputs, prepare
from worker.predict import predict

FILES = Path(__file__).parents[1] / "data" / "public"
ROWS = 100
XLSX = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"


@dataclass(frozen=True)
class PublicFile:
    """What is right of a file: its rows, the types and summaries of its columns, first values."""

    name: str
    target: str
    samples: int
    types: Mapping[str, str]
    summaries: Mapping[str, str] = field(default_factory=dict)
    spec: Mapping[str, Any] = field(default_factory=dict)
    ignore: tuple[str, ...] = ()
    first: Mapping[str, Any] = field(default_factory=dict)

    @property
    def body(self) -> bytes:
        data = (FILES / self.name).read_bytes()
        return gzip.decompress(data) if self.name.endswith(".gz") else data

    @property
    def head(self) -> bytes:
        """The file's first lines."""
        return b"".join(self.body.splitlines(keepends=True)[: ROWS + 1])


PUBLIC = (
    PublicFile(
        "titanic_all.csv",
        "survived",
        1313,
        {"name": "category", "class": "category", "age": "number", "sex": "category", "survived": "number"},
        {"age": "756 numbers; 557 times empty"},
        {"task": "classification"},
        ignore=("name",),
        first={"class": "1st", "age": 29.0, "sex": "female"},
    ),
    PublicFile(
        "penguins-raw.csv",
        "Species",
        344,
        {"Date Egg": "date", "Culmen Length (mm)": "number", "Sex": "category", "Stage": "category"},
        {"Culmen Length (mm)": "342 numbers; 2 times `NA`", "Sex": "333 values of text; 11 times `NA`"},
        ignore=("Individual ID",),
        first={"studyName": "PAL0708", "Stage": "Adult, 1 Egg Stage", "Culmen Length (mm)": 39.1, "Sex": "MALE"},
    ),
    PublicFile(
        "CGM.csv.gz",
        "glucose",
        52281,
        {"isig": "number", "datetime": "date", "glucose": "number"},
        {"isig": "51,220 numbers; 1,061 times `nil`"},
    ),
    PublicFile(
        "gapminder.csv.gz",
        "lifeExp",
        1704,
        {"country": "category", "year": "number", "pop": "number", "iso_alpha": "category", "iso_num": "number"},
        first={
            "country": "Afghanistan",
            "year": 1952.0,
            "pop": 8425333.0,
            "gdpPercap": 779.4453145,
            "iso_alpha": "AFG",
        },
    ),
    PublicFile(
        "unemployment.tsv",
        "rate",
        3218,
        {"id": "number", "rate": "number"},
        {"rate": "3,218 numbers"},
        first={"id": 1001.0, "rate": 0.097},
    ),
)


def workbook_of(head: bytes, delimiter: str, numbers: set[str]) -> bytes:
    """The same lines as a spreadsheet program would hold them: numbers in the columns of numbers, else text."""
    import csv

    book = openpyxl.Workbook()
    rows = list(csv.reader(io.StringIO(head.decode()), delimiter=delimiter))
    for place, row in enumerate(rows):
        cells: list[Any] = []
        for name, cell in zip(rows[0], row, strict=True):
            missing = cell in ("", "NA", "nil")
            cells.append(None if missing else float(cell) if place and name in numbers else cell)
        book.active.append(cells)
    buffer = io.BytesIO()
    book.save(buffer)
    return buffer.getvalue()


@pytest.mark.parametrize("public", PUBLIC, ids=[public.name for public in PUBLIC])
def test_a_public_file_is_read_trained_and_predicted(tmp_path: Path, public: PublicFile) -> None:
    facts, report = prepare(FILES / public.name, tmp_path / "prepared", target=public.target)
    assert facts.samples == public.samples
    assert not report["unreadable"]
    columns = {column["name"]: column for column in report["columns"]}
    assert {name: columns[name]["read_as"] for name in public.types} == public.types
    assert {name: columns[name]["summary"] for name in public.summaries} == public.summaries
    dataset = Dataset.load(tmp_path / "prepared")
    assert isinstance(dataset.inputs, TableInputs)
    for name, value in public.first.items():
        column = dataset.inputs.columns[name]
        assert (column.values[0] if column.categories is None else column.categories[column.values[0]]) == value

    spec = {
        "dataset": {"id": "d", "ignore": list(public.ignore)},
        "preprocess": [{"kind": "impute"}, {"kind": "z_score"}],
        "model": {"kind": "mlp", "hidden": [16]},
        "train": {"epochs": 1, "batch_size": 256, "threads": 1},
        **public.spec,
    }
    model = tk.fit(spec, dataset, workdir=tmp_path).model
    count = min(ROWS, facts.samples)
    expected = model.answer_rows(dataset.inputs, np.arange(count)).tolist()

    def ask(body: bytes, media_type: str) -> list[list[float]]:
        answer, _ = predict(tmp_path / "model", body, media_type, {})
        predictions = json.loads(answer)["predictions"]
        if model.classes is None:
            return [[one["value"]] for one in predictions]
        return [list(one["probabilities"].values()) for one in predictions]

    assert ask(public.head, "application/octet-stream") == expected
    numbers = {name for name, column in columns.items() if column["read_as"] == "number"}
    sheet = workbook_of(public.head, "\t" if public.name.endswith(".tsv") else ",", numbers)
    assert ask(sheet, XLSX) == expected

"""Tables from their file to an answer: intake, training, the model's files, and predict of the same bytes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import trainkit as tk
from trainkit.data import Dataset, prepare
from trainkit.spec import parse_spec, resolve
from trainkit.spec.read_options import ReadOptions
from worker.predict import predict
from worker.request_input import BadInputError

CASES = Path(__file__).parents[1] / "data" / "cases"
IMPUTE = {"preprocess": [{"kind": "impute"}, {"kind": "z_score"}]}


class Trained:
    """A dataset that was read from a file, and a model of it in a folder."""

    def __init__(
        self, folder: Path, file: Path, target: str, options: dict[str, Any] | None = None, **spec: Any
    ) -> None:
        reading = ReadOptions.model_validate(options or {})
        self.file = file
        self.facts, self.report = prepare(file, folder / "prepared", target=target, reading=reading)
        self.dataset = Dataset.load(folder / "prepared")
        document = {
            "dataset": "d",
            "model": {"kind": "mlp", "hidden": [16]},
            "train": {"epochs": 60, "batch_size": 8, "threads": 1},
            "optimizer": {"kind": "adam", "lr": 0.02},
            **(IMPUTE | spec),
        }
        self.result = tk.fit(document, self.dataset, workdir=folder)
        self.model = self.result.model
        self.folder = folder / "model"

    def column(self, name: str) -> dict[str, Any]:
        return next(column for column in self.report["columns"] if column["name"] == name)

    def values(self, name: str) -> list[Any]:
        column = self.dataset.inputs.columns[name]  # type: ignore[union-attr]
        if column.categories is None:
            return [None if np.isnan(value) else value for value in column.values.tolist()]
        return [None if code < 0 else column.categories[code] for code in column.values.tolist()]

    def findings(self, code: str) -> list[dict[str, str]]:
        return [found for found in self.report["findings"] if found["code"] == code]

    def ask(self, body: bytes | list[Any], media_type: str = "text/csv", **options: Any) -> list[dict[str, Any]]:
        if isinstance(body, list):
            body, media_type = json.dumps({"inputs": body}).encode(), "application/json"
        answer, _ = predict(self.folder, body, media_type, options)
        return json.loads(answer)["predictions"]  # type: ignore[no-any-return]

    def refused(self, body: bytes | list[Any], media_type: str = "text/csv", **options: Any) -> dict[str, Any]:
        with pytest.raises(BadInputError) as bad:
            self.ask(body, media_type, **options)
        return bad.value.error

    def labels(self, body: bytes | list[Any], media_type: str = "text/csv") -> list[str]:
        return [one["label"] for one in self.ask(body, media_type)]

    def answers_as_evaluated(self) -> None:
        """The file's own rows, sent to predict, give exactly the answers of the same rows of the dataset."""
        everything = np.arange(self.facts.samples)
        expected = self.model.answer_rows(self.dataset.inputs, everything).tolist()
        got = self.ask(self.file.read_bytes(), "application/octet-stream")
        if self.model.classes is None:
            assert [one["value"] for one in got] == [row[0] for row in expected]
        else:
            assert [list(one["probabilities"].values()) for one in got] == expected


def test_booleans_mean_at_predict_what_they_meant_in_training(tmp_path: Path) -> None:
    for number, name in enumerate(("bool.jsonl", "bool.parquet")):
        trained = Trained(tmp_path / str(number), CASES / name, "y")
        assert trained.labels([{"flag": True}, {"flag": False}]) == ["in", "out"]
        assert trained.labels([{"flag": "true"}, {"flag": "False"}]) == ["in", "out"]
        assert trained.labels(b"flag\nTrue\nFALSE\n") == ["in", "out"]
        trained.answers_as_evaluated()


def test_missing_columns_and_missing_words(tmp_path: Path) -> None:
    trained = Trained(tmp_path, CASES / "impute.csv", "y")
    trained.answers_as_evaluated()
    for inputs in ([{}], [{"foo": 1}]):
        error = trained.refused(inputs)
        assert [item["pointer"] for item in error["errors"]][:2] == ["/inputs/0/x", "/inputs/0/c"]
    assert "foo" in trained.refused([{"foo": 1}])["errors"][2]["message"]
    assert trained.refused(b"foo\n1\n")["code"] == "missing_header"
    assert trained.refused(b"x\n1\n")["errors"][0]["message"] == 'row 0 (line 2): the column "c" is missing'
    (words,) = trained.ask([{"x": "NA", "c": "NA"}])
    assert [(one["column"], one["code"]) for one in words["warnings"]] == [("x", "imputed"), ("c", "imputed")]
    assert trained.ask([{"x": None, "c": None}])[0]["probabilities"] == words["probabilities"]


def test_categories_are_single_values_and_unseen_ones_are_said(tmp_path: Path) -> None:
    trained = Trained(tmp_path, CASES / "cat_only.csv", "y", preprocess=[])
    assert trained.labels([{"c": "p"}, {"c": "q"}]) == ["in", "out"]
    assert trained.refused([{"c": ["q"]}])["pointer"] == "/inputs/0/c"
    assert trained.refused([{"c": "p"}, {"c": {"a": 1}}])["message"].startswith('row 1: "c" must be one value')
    (unseen,) = trained.ask([{"c": "r"}])
    assert [one["code"] for one in unseen["warnings"]] == ["unseen_category"]
    assert trained.refused([{"c": "NA"}])["message"] == (
        'row 0: "c" has no value ("NA" is a missing value), and the model was trained without impute'
    )


def test_blanks_after_commas(tmp_path: Path) -> None:
    trained = Trained(tmp_path / "1", CASES / "spaces.csv", "y", preprocess=[])
    trained.answers_as_evaluated()
    assert trained.labels(b"c\n  JAM\n USA\nJAM\n") == ["in", "out", "in"]
    assert trained.ask([{"c": " USA "}])[0]["warnings"] == []
    header = Trained(tmp_path / "2", CASES / "spaces_header.csv", "n", preprocess=[])
    header.answers_as_evaluated()
    assert header.labels([{"c": "JAM"}, {"c": "USA"}]) == ["1", "2"]
    quoted = tmp_path / "quoted.csv"
    quoted.write_text('"c", "n m"\n' + '"x, y", "in"\n"z", "out"\n' * 12)
    assert Trained(tmp_path / "3", quoted, "n m", preprocess=[]).labels(b'c\n"x, y"\nz\n') == ["in", "out"]


@pytest.mark.parametrize("name", ["euro.csv", "eurotab.tsv"])
def test_decimal_commas(name: str, tmp_path: Path) -> None:
    trained = Trained(tmp_path, CASES / name, "y")
    trained.answers_as_evaluated()
    assert (trained.values("a")[-1], trained.values("b")[7]) == (5.571, 2.333)
    assert trained.column("a")["decimal"] == ","
    by_text, by_number = trained.ask([{"a": "0,143", "b": "0,333"}, {"a": 0.143, "b": 0.333}])
    assert by_text == by_number


def test_thousands_separators(tmp_path: Path) -> None:
    trained = Trained(tmp_path / "1", CASES / "euro_dot_thousands.csv", "y")
    trained.answers_as_evaluated()
    assert (trained.values("a")[:2], trained.values("b")[1]) == ([1000.0, 1037.0], 0.25)
    assert "1.000 is 1 with decimal" in trained.findings("ambiguous_separator")[0]["message"]
    options = {"columns": {"a": {"decimal": ".", "thousands": ""}}}
    assert Trained(tmp_path / "2", CASES / "euro_dot_thousands.csv", "y", options).values("a")[:2] == [1.0, 1.037]
    trained = Trained(tmp_path / "3", CASES / "thousands.csv", "y")
    trained.answers_as_evaluated()
    assert trained.values("rev")[2:4] == [974.0, 1011.0]
    assert trained.ask(b'rev\n"1,011"\n') == trained.ask([{"rev": 1011}])
    assert trained.findings("ambiguous_separator")[0]["where"] == "rev"


def test_excels_missing_values(tmp_path: Path) -> None:
    trained = Trained(tmp_path / "1", CASES / "excel_na.csv", "y")
    trained.answers_as_evaluated()
    assert trained.values("x")[4:7] == [6.0, None, 9.0]
    assert trained.column("x")["summary"] == "23 numbers; once `#N/A`"
    for number, word in enumerate((".", "nil", "-", "#DIV/0!", "NULL")):
        file = tmp_path / f"{number}.csv"
        file.write_text((CASES / "excel_na.csv").read_text().replace("#N/A", word))
        assert Trained(tmp_path / f"w{number}", file, "y", train={"epochs": 1}).column("x")["missing_words"] == {
            word: 1
        }


def test_words_of_a_text_column_are_values(tmp_path: Path) -> None:
    trained = Trained(tmp_path, CASES / "none_class.csv", "damage")
    trained.answers_as_evaluated()
    assert trained.model.classes == ("Minor", "None")
    assert trained.values("damage")[:2] == ["None", "Minor"]


def test_labels_keep_the_files_text(tmp_path: Path) -> None:
    for number, (name, target, labels) in enumerate(
        [
            ("zip.csv", "zip", ["00501", "01002"]),
            ("bigid.csv", "user", ["9007199254740992", "9007199254740993"]),
        ]
    ):
        trained = Trained(tmp_path / str(number), CASES / name, target)
        trained.answers_as_evaluated()
        assert trained.labels([{"x": 0}, {"x": 1}]) == labels
    floats = tmp_path / "floats.csv"
    floats.write_text("x,y\n" + "0,1.0\n1,2.0\n" * 12)
    assert Trained(tmp_path / "floats", floats, "y").labels([{"x": 0}, {"x": 1}]) == ["1.0", "2.0"]


def test_labels_of_an_image_table_keep_their_zeros(tmp_path: Path) -> None:
    facts, _ = prepare(CASES / "image_table_zero_labels.zip", tmp_path / "prepared")
    assert facts.classes == {"01": 1, "02": 1}


def test_dates(tmp_path: Path) -> None:
    trained = Trained(tmp_path / "1", CASES / "dates.parquet", "y")
    trained.answers_as_evaluated()
    assert trained.column("day")["read_as"] == "date"
    assert [one["warnings"] for one in trained.ask([{"day": "2024-01-05"}, {"day": "2024-01-05T00:00:00Z"}])] == [
        [],
        [],
    ]
    assert "must be a date such as 2024-01-31, got 19727" in trained.refused([{"day": 19727}])["message"]
    assert trained.ask([{"day": "2030-01-01"}])[0]["warnings"][0]["code"] == "out_of_range"
    for number, written in enumerate(("2024-01-{:02d}", "{:02d}.01.2024", "01/{:02d}/2024", "2024-01-{:02d} 12:30")):
        file = tmp_path / f"{number}.csv"
        file.write_text(
            "day,y\n" + "".join(f"{written.format(day)},{'a' if day < 13 else 'b'}\n" for day in range(1, 25))
        )
        text = Trained(tmp_path / f"d{number}", file, "y")
        text.answers_as_evaluated()
        assert text.column("day")["read_as"] == "date"
        assert text.labels(f"day\n{written.format(2)}\n{written.format(23)}\n".encode()) == ["a", "b"]


def test_excels_separator_line(tmp_path: Path) -> None:
    trained = Trained(tmp_path, CASES / "sep.csv", "y")
    trained.answers_as_evaluated()
    assert [column.name for column in trained.facts.columns or ()] == ["a", "y"]
    assert trained.report["delimiter"] == ";"


def test_a_target_that_never_changes(tmp_path: Path) -> None:
    facts, report = prepare(CASES / "const_target.csv", tmp_path / "table", target="y")
    np.savez(tmp_path / "a.npz", X=np.random.default_rng(0).normal(size=(30, 2)), y=np.full(30, 0.5))
    arrays, arrays_report = prepare(tmp_path / "a.npz", tmp_path / "arrays")
    for known, listed, pointer in ((facts, report, "/dataset/target"), (arrays, arrays_report, "/dataset")):
        assert "constant_target" in [found["code"] for found in listed["findings"]]
        spec = parse_spec({"dataset": "d", "model": {"kind": "mlp"}})
        warned = {warning.code: warning.pointer for warning in resolve(spec, known).warnings}
        assert warned["constant_target"] == pointer


@pytest.mark.parametrize("number", ["1e39", "1e400", "Infinity", "-Infinity", "NaN", "1" + "0" * 400])
def test_numbers_that_no_float32_holds(number: str, tmp_path: Path) -> None:
    file = tmp_path / "f.csv"
    file.write_text("x,y\n" + "".join(f"{i},{i * 0.5}\n" for i in range(24)))
    trained = Trained(tmp_path, file, "y", train={"epochs": 1})
    body = (CASES / "inf_input.json").read_text().replace("1e39", number).encode()
    error = trained.refused(body, "application/json")
    assert (error["status"], error["pointer"]) == (422, "/inputs/0/x")
    assert error["message"].startswith('row 0: "x" is ')


@pytest.mark.parametrize("delimiter", [",", ";"])
def test_sequences_in_long_form(delimiter: str, tmp_path: Path) -> None:
    """Rows of one id need not stand together; the sequences keep their order of appearance."""
    file, lines = tmp_path / "long.csv", []
    for step in range(8):
        for number in range(24):
            slope, label = (1, "01") if number % 2 else (-1, "02")
            value = f"{slope * step + number / 8:.2f}".replace(".", "," if delimiter == ";" else ".")
            lines.append(delimiter.join((f"s{number}", value, "1", label)))
    file.write_text("\n".join([delimiter.join(("id", "up", "b", "label")), *lines]))
    facts, _ = prepare(file, tmp_path / "prepared", kind="sequences")
    data = Dataset.load(tmp_path / "prepared")
    assert facts.classes == {"01": 12, "02": 12}
    tk.fit({"dataset": "d", "model": {"kind": "gru", "hidden": 4}, "train": {"epochs": 20}}, data, workdir=tmp_path)
    model = tk.load_model(tmp_path / "model")
    answer, _ = predict(tmp_path / "model", file.read_bytes(), "text/csv", {})
    got = [list(one["probabilities"].values()) for one in json.loads(answer)["predictions"]]
    assert got == model.answer_rows(data.inputs, np.arange(24)).tolist()
    bad = file.read_text().replace(f"s5{delimiter}", f"s5{delimiter}x", 1).encode()
    for body, pointer in ((bad, "/inputs/5/up"), (delimiter.join(("id", "up")).encode() + b"\n1;1\n", "/inputs/0")):
        with pytest.raises(BadInputError) as refused:
            predict(tmp_path / "model", body, "text/csv", {})
        assert refused.value.error["pointer"].startswith(pointer)

"""Images labelled by a table: names in any form, labels, parts, and rows without an image."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from trainkit.data import DataError, Dataset, ImageInputs, load_dataset, prepare
from trainkit.data.image_table import read_image_table
from trainkit.spec.facts import MOST_CATEGORIES
from trainkit.spec.read_options import ColumnOptions, ReadOptions


def picture(level: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (3, 2), level).save(buffer, "PNG")
    return buffer.getvalue()


def image_table(tmp_path: Path, text: str, images: int = 3) -> Path:
    with zipfile.ZipFile(tmp_path / "d.zip", "w") as bundle:
        for i in range(images):
            bundle.writestr(f"data/images/{i}.png", picture(i))
        bundle.writestr("data/labels.csv", text)
    return tmp_path / "d.zip"


def levels(dataset: Dataset) -> list[int]:
    assert isinstance(dataset.inputs, ImageInputs)
    return np.asarray(dataset.inputs.pixels[:, 0, 0, 0]).tolist()


@pytest.mark.parametrize("form", ["{}.png", "images/{}.png", "data/images/{}.png", "{}", "images\\{}.png", "./{}.png"])
def test_read_image_table_matches_tails_of_paths(form: str, tmp_path: Path) -> None:
    rows = "\n".join(f"{form.format(i)},{label}" for i, label in ((2, "b"), (0, "a"), (1, "b")))
    dataset = load_dataset(image_table(tmp_path, f"file,label\n{rows}\n"))
    assert dataset.facts.kind == "image_table"
    assert levels(dataset) == [2, 0, 1]
    assert dataset.facts.classes == {"a": 1, "b": 2}


def test_read_image_table_parts_labels_and_targets(tmp_path: Path) -> None:
    text = "age,file,split,kind\n1.5,0.png,train,x\n2.5,1.png,train,y\n3.5,2.png,test,x\n"
    dataset, details = read_image_table(image_table(tmp_path, text), target="age")
    assert dataset.facts.target_type == "number"
    assert dataset.facts.splits == {"train": 2, "validation": 0, "test": 1}
    assert (details["file_column"], details["label_column"]) == ("file", "age")
    assert read_image_table(image_table(tmp_path, text), target="kind")[0].facts.classes == {"x": 2, "y": 1}
    with pytest.raises(DataError, match="ambiguous"):
        read_image_table(image_table(tmp_path, text))


def test_read_image_table_reports_rows_without_an_image(tmp_path: Path) -> None:
    rows = "\n".join(f"{i}.png,{'ab'[i % 2]}" for i in range(40))
    dataset, details = read_image_table(image_table(tmp_path, f"file,label\n{rows}\ngone.png,a\n", images=41))
    assert dataset.facts.samples == 40
    assert details["unreadable"] == [{"where": "row 41", "reason": "no readable image 'gone.png'"}]
    assert details["unlabelled"] == 1


@pytest.mark.parametrize(("first", "second"), [("a", "b"), ("1.5", "2.5"), ("3", "4")])
def test_rows_without_a_label_are_left_out_and_counted(first: str, second: str, tmp_path: Path) -> None:
    path = image_table(tmp_path, f"file,label\n0.png,{first}\n1.png,\n2.png,{second}\n3.png,{first}\n", images=4)
    facts, report = prepare(path, tmp_path / "prepared")
    assert facts.samples == 3
    assert levels(Dataset.load(tmp_path / "prepared")) == [0, 2, 3]
    assert report["unreadable"] == []
    (found,) = [one for one in report["findings"] if one["code"] == "unlabelled_rows"]
    assert found["message"] == '1 of 4 rows have no value in the label column "label" (row 2): they are left out'


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("file,label\n0.png,a\n1.png,b\ngone.png,a\n", "bad_row"),
        ("file,label\n0.png,a\n1.png,\n2.png,\n", "missing_labels"),
        ("file,label\n0.png,1.5\n1.png,inf\n2.png,2\n", "bad_row"),
        ("file,label\nx.png,a\ny.png,b\n", "no_file_column"),
        ("file\n0.png\n1.png\n", "missing_target"),
        ("file,u,v\n0.png,a,c\n1.png,b,d\n", "missing_target"),
    ],
)
def test_refusals(text: str, code: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        read_image_table(image_table(tmp_path, text))
    assert caught.value.problems[0].code == code


def test_read_image_table_ambiguous_names_match_no_image(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "d.zip", "w") as bundle:
        for folder in "ab":
            bundle.writestr(f"{folder}/0.png", picture(0))
        bundle.writestr("t.csv", "file,label\n0.png,x\na/0.png,y\n")
    with pytest.raises(DataError, match=r"row 1: no readable image '0\.png'"):
        read_image_table(tmp_path / "d.zip")


def findings(path: Path, folder: Path, code: str, **options: Any) -> list[dict[str, str]]:
    _, report = prepare(path, folder, **options)
    return [found for found in report["findings"] if found["code"] == code]


def test_further_columns_are_features_beside_the_image(tmp_path: Path) -> None:
    text = "age,file,split,label,sex\n1.5,0.png,train,x,m\n2.5,1.png,train,y,f\n3.5,2.png,test,x,f\n"
    path = image_table(tmp_path, text)
    facts, report = prepare(path, tmp_path / "p")
    assert facts.target == "label"
    assert [(column.name, column.type) for column in facts.columns or ()] == [
        ("age", "numeric"),
        ("sex", "categorical"),
    ]
    assert report["columns"][0]["summary"] == "3 numbers"
    assert [entry["name"] for entry in report["columns"]] == ["age", "sex", "file", "split", "label"]
    (found,) = [found for found in report["findings"] if found["code"] == "feature_columns"]
    assert (found["severity"], found["where"]) == ("info", "age")
    assert "2 columns (age, sex)" in found["message"]
    loaded = Dataset.load(tmp_path / "p")
    assert isinstance(loaded.inputs, ImageInputs)
    assert loaded.inputs.columns is not None
    assert loaded.inputs.columns.columns["age"].values.tolist() == [1.5, 2.5, 3.5]
    assert loaded.inputs.columns.format is not None
    assert loaded.inputs.columns.format.names == ["age", "file", "split", "label", "sex"]


def test_a_table_of_files_and_labels_has_no_features(tmp_path: Path) -> None:
    facts, report = prepare(image_table(tmp_path, "file,label\n0.png,x\n1.png,y\n2.png,x\n"), tmp_path / "q")
    assert facts.columns is None
    assert {found["code"] for found in report["findings"]}.isdisjoint({"feature_columns", "unused_columns"})


def test_columns_are_read_as_the_options_say_and_follow_the_rows_that_are_kept(tmp_path: Path) -> None:
    rows = "\n".join(f"{i}.png,{'ab'[i % 2]},{'-' if i == 3 else f'{i}.0'}" for i in range(40))
    path = image_table(tmp_path, f"file,label,dose\n{rows}\ngone.png,a,99.0\n", images=40)
    options = ReadOptions(columns={"dose": ColumnOptions(type="number", missing=("-",))})
    facts, report = prepare(path, tmp_path / "p", reading=options)
    (dose,) = facts.columns or ()
    assert (dose.type, dose.missing, dose.unique) == ("numeric", 1, 39)
    assert dose.categories is not None
    assert "99.0" not in dose.categories  # the row without an image is left out
    assert dose.categories["7.0"] == 1
    assert next(entry for entry in report["columns"] if entry["name"] == "dose")["missing_words"] == {"-": 1}


def test_columns_that_cannot_be_inputs_are_named_in_a_finding(tmp_path: Path) -> None:
    count = MOST_CATEGORIES + 2
    rows = "\n".join(f"{i % 3}.png,{'ab'[i % 2]},person {i}," for i in range(count))
    path = image_table(tmp_path, f"file,label,patient,empty\n{rows}\n")
    found = findings(path, tmp_path / "p", "unused_columns")
    assert [(one["severity"], one["where"]) for one in found] == [("warning", "patient"), ("warning", "empty")]
    assert f"{count} different texts" in found[0]["message"]


def test_a_column_that_tells_the_class_alone_is_a_finding(tmp_path: Path) -> None:
    rows = "\n".join(f"{i}.png,{'ab'[i % 2]},{i % 2 + 0.5},{i % 7}" for i in range(60))
    path = image_table(tmp_path, f"file,label,outcome,day\n{rows}\n", images=60)
    (found,) = findings(path, tmp_path / "p", "target_leak")
    assert found["where"] == "outcome"


def test_the_same_image_with_other_columns_is_no_duplicate(tmp_path: Path) -> None:
    path = image_table(
        tmp_path, "file,label,side\n0.png,a,left\n0.png,b,right\n1.png,a,left\n2.png,b,left\n2.png,b,left\n"
    )
    _, report = prepare(path, tmp_path / "p")
    codes = {found["code"]: found["message"] for found in report["findings"]}
    assert "conflicting_labels" not in codes
    assert codes["duplicates"].startswith("1 samples are exact duplicates")
    assert codes["repeated_images"].startswith("1 samples have the image of another one")


def test_a_table_beside_class_folders_is_named_in_a_finding(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "d.zip", "w") as bundle:
        for i in range(6):
            bundle.writestr(f"{'ab'[i % 2]}/{i}.png", picture(i))
        bundle.writestr("meta.csv", "file,age\n0.png,3\n")
    (found,) = findings(tmp_path / "d.zip", tmp_path / "p", "unused_table")
    assert (found["severity"], found["where"]) == ("warning", "meta.csv")

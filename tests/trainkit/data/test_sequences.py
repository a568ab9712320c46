"""Long tables as sequences: grouped by id in order of appearance, with one label each."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainkit.data import DataError, SequenceInputs, load_dataset
from trainkit.data.sequences import read_long_csv


def written(tmp_path: Path, text: str) -> Path:
    (tmp_path / "t.csv").write_text(text)
    return tmp_path / "t.csv"


def test_rows_are_grouped_by_id(tmp_path: Path) -> None:
    path = written(tmp_path, "id,x,y,label\nb,1,10,up\na,2,20,down\nb,3,30,up\nb,5,50,up\n")
    dataset = load_dataset(path, kind="sequences", target="label")
    inputs = dataset.inputs
    assert isinstance(inputs, SequenceInputs)
    assert inputs.values.tolist() == [[1, 10], [3, 30], [5, 50], [2, 20]]
    assert inputs.offsets.tolist() == [0, 3, 4]
    assert dataset.facts.classes == {"down": 1, "up": 1}
    assert dataset.targets is not None
    assert dataset.targets.tolist() == [1, 0]
    assert (dataset.facts.input_shape, dataset.facts.lengths) == ((3, 2), (1, 3))


def test_whole_numbers_are_classes_and_others_numbers(tmp_path: Path) -> None:
    whole = read_long_csv(written(tmp_path, "id,x,y\n1,0,7\n2,0,3\n"), target="y")[0]
    assert whole.facts.classes == {"3": 1, "7": 1}
    number = read_long_csv(written(tmp_path, "id,x,y\n1,0,7.5\n2,0,3\n"), target="y")[0]
    assert number.facts.target_type == "number"
    assert number.targets is not None
    assert number.targets.tolist() == [7.5, 3.0]


def test_a_label_column_is_known_by_its_name_where_it_never_changes(tmp_path: Path) -> None:
    found, details = read_long_csv(written(tmp_path, "id,x,Label\n1,0,up\n1,1,up\n2,0,down\n"), target=None)
    assert (found.facts.classes, details["label_column"]) == ({"down": 1, "up": 1}, "Label")
    series, details = read_long_csv(written(tmp_path, "id,y\n1,0\n1,1\n2,0\n"), target=None)
    assert (series.targets, details["features"]) == (None, ["y"])


def test_a_split_column_holds_one_part_a_sequence(tmp_path: Path) -> None:
    path = written(tmp_path, "id,x,split\n1,0,train\n1,1,train\n2,0,test\n")
    dataset = read_long_csv(path, target=None)[0]
    assert dataset.split is not None
    assert dataset.split.tolist() == [0, 2]
    with pytest.raises(DataError, match='row 2: "split" changes'):
        read_long_csv(written(tmp_path, "id,x,split\n1,0,train\n1,1,test\n"), target=None)


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("x,y\n1,2\n", "t.csv"),
        ("id,x,y\n1,0,a\n,1,a\n", "id"),
        ("id,x,y\n1,0,a\n1,1,\n", "row 2"),
        ("id,x,y\n1,0,\n2,1,\n", "y"),
        ("id,x,y\n1,0,2\n2,1,inf\n", "y"),
        ("id,x,y\n1,0,a\n1,1,b\n", "row 2"),
        ("id,x,y\n1,0,a\n1,,a\n", "x"),
        ("id,x,y\n1,0,a\n1,word,a\n", "x"),
        ("id,x,y\n1,inf,a\n1,1,a\n", "x"),
        ("id,y\n1,a\n2,b\n", "t.csv"),
    ],
)
def test_refusals_name_the_column_or_row(text: str, where: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        read_long_csv(written(tmp_path, text), target="y")
    assert caught.value.problems[0].where == where


@pytest.mark.parametrize(("up", "down"), [("up", "down"), ("1.5", "2.5"), ("3", "7")])
def test_sequences_without_a_label_are_left_out_and_counted(up: str, down: str, tmp_path: Path) -> None:
    text = f"id,x,y,split\nb,1,{up},train\na,2,,train\nb,3,{up},train\nc,5,{down},test\n"
    dataset, details = read_long_csv(written(tmp_path, text), target="y")
    assert isinstance(dataset.inputs, SequenceInputs)
    assert (dataset.inputs.values.tolist(), dataset.inputs.offsets.tolist()) == ([[1], [3], [5]], [0, 2, 3])
    assert dataset.split is not None
    assert dataset.split.tolist() == [0, 2]
    complete, _ = read_long_csv(written(tmp_path, text.replace("a,2,,train\n", "")), target="y")
    assert (dataset.facts, dataset.targets.tolist()) == (complete.facts, complete.targets.tolist())
    (found,) = [one for one in details["column_findings"] if one["code"] == "unlabelled_rows"]
    assert found["message"] == '1 of 3 sequences have no value in the label column "y" (row 2): they are left out'
    with pytest.raises(DataError, match="2 of 3 sequences have no value"):
        read_long_csv(written(tmp_path, f"id,x,y\n1,0,{up}\n2,0,\n3,0,\n"), target="y")
    with pytest.raises(DataError, match='row 2: "y" changes'):
        read_long_csv(written(tmp_path, f"id,x,y\n1,0,{up}\n1,0,\n"), target="y")

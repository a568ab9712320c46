"""Read options override detection."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainkit.data import DataError, load_dataset, prepare
from trainkit.data.dataset import TableInputs
from trainkit.spec.read_options import ReadOptions


def columns(path: Path, text: bytes, **options: object) -> dict[str, list[object]]:
    (path / "t.csv").write_bytes(text)
    dataset = load_dataset(path / "t.csv", reading=ReadOptions.model_validate(options))
    assert isinstance(dataset.inputs, TableInputs)
    return {
        name: [column.categories[code] for code in column.values] if column.categories else column.values.tolist()
        for name, column in dataset.inputs.columns.items()
    }


def test_the_delimiter(tmp_path: Path) -> None:
    text = b"a;b,c\n1;2,3\n4;5,6\n"
    assert list(columns(tmp_path, text, delimiter=",")) == ["a;b", "c"]
    assert columns(tmp_path, text, delimiter=";") == {"a": [1.0, 4.0], "b,c": [2.3, 5.6]}
    assert list(columns(tmp_path, b"x\ty\n1\t2\n", delimiter="tab")) == ["x", "y"]


def test_the_header(tmp_path: Path) -> None:
    words = b"one,two\nthree,four\n"
    assert list(columns(tmp_path, words)) == ["one", "two"]
    assert columns(tmp_path, words, header=False) == {"column_1": ["one", "three"], "column_2": ["two", "four"]}
    assert list(columns(tmp_path, b"2019,2020\n1,2\n", header=True)) == ["2019", "2020"]


def test_the_encoding(tmp_path: Path) -> None:
    text = "ort\nKöln\nUlm\n"
    assert columns(tmp_path, text.encode("latin-1"), encoding="latin-1") == {"ort": ["Köln", "Ulm"]}
    assert columns(tmp_path, text.encode("utf-16-le"), encoding="utf-16-le") == {"ort": ["Köln", "Ulm"]}
    with pytest.raises(DataError, match="line 2: not utf-8"):
        columns(tmp_path, text.encode("latin-1"), encoding="utf-8")


def test_the_report_says_it(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"a|b\n1|2\n")
    _, report = prepare(tmp_path / "t.csv", tmp_path / "p", reading=ReadOptions(delimiter="|", header=False))
    assert (report["delimiter"], report["header"]) == ("|", False)


@pytest.mark.parametrize(("image_size", "size"), [("64", (64, 64)), ("32x16", (16, 32)), (None, None)])
def test_image_sizes_are_width_by_height(image_size: str | None, size: tuple[int, int] | None) -> None:
    assert ReadOptions(image_size=image_size).size == size

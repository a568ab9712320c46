"""A spec means the same to the client as to the service."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from service.errors import HttpProblem
from service.request_body import parse
from trainkit_client import Client, documents
from trainkit_client.documents import SpecFileError

SPECS = sorted((Path(__file__).parents[2] / "examples" / "specs").glob("*.yaml"))
SCALARS = [
    *(
        "1e-3",
        "1E5",
        "1.",
        ".5",
        "-.5e-7",
        "+3",
        "0x1F",
        "0o17",
        "017",
        "1_000",
        "1:30",
        "2026-01-31",
        "yes",
        "no",
        "on",
    ),
    *(
        "true",
        "False",
        "TRUE",
        "~",
        "null",
        "Null",
        "",
        ".inf",
        "-.Inf",
        "1e400",
        "'1'",
        '"no"',
        "=",
        "<<",
        "y",
        "0.1.2",
    ),
]


@pytest.mark.parametrize("scalar", SCALARS)
def test_scalars_are_read_as_the_service_reads_them(scalar: str) -> None:
    text = f"value: {scalar}\nlist: [{scalar or 'null'}, a]\n"
    try:
        expected: Any = parse(text.encode(), "application/yaml")
    except HttpProblem:
        with pytest.raises(SpecFileError):
            reject_what_json_cannot_hold(documents.read_yaml(text))
        return
    read = documents.read_yaml(text)
    assert read == expected
    assert [type(value) for value in read.values()] == [type(value) for value in expected.values()]


def reject_what_json_cannot_hold(document: Any) -> None:
    """As `body_of` does when it writes JSON."""
    try:
        documents.body_of(document, {})
    except ValueError as error:
        raise SpecFileError(str(error)) from None
    if isinstance(document.get("value"), float) and not math.isfinite(document["value"]):
        raise SpecFileError("not finite")


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_the_examples_are_read_as_the_service_reads_them(path: Path) -> None:
    assert documents.mapping_of(path) == parse(path.read_bytes(), "application/yaml")
    assert documents.body_of(path, {}) == (path.read_bytes(), "application/yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: mlp\nmodel: cnn\n", "'model' is there twice"),
        ("model: {kind: mlp, kind: cnn}\nx: 1", "'kind' is there twice"),
        ("- a\n- b\n", "must be a mapping"),
        ("model: [\n", "not YAML"),
        ("model: !!python/object/apply:os.system ['true']\nx: 1", "not YAML"),
    ],
)
def test_what_is_no_spec_is_named(text: str, message: str) -> None:
    with pytest.raises(SpecFileError, match=message):
        documents.mapping_of(text)


def test_a_missing_file_and_another_type_are_named(tmp_path: Path) -> None:
    with pytest.raises(SpecFileError, match="cannot be read"):
        documents.mapping_of(tmp_path / "missing.yaml")
    with pytest.raises(SpecFileError, match="got int"):
        documents.mapping_of(3)  # type: ignore[arg-type]


def test_fields_replace_those_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text("dataset: d\nmodel: mlp\noptimizer: {kind: sgd, lr: 1e-1}\n")
    assert documents.body_of(path, {"optimizer": {"kind": "adam"}, "name": "n"}) == (
        b'{"dataset": "d", "model": "mlp", "optimizer": {"kind": "adam"}, "name": "n"}',
        "application/json",
    )


def test_a_closed_client_says_so() -> None:
    client = Client("http://127.0.0.1:1", "tk_test")
    client.close()
    with pytest.raises(RuntimeError, match="closed"):
        client.info()

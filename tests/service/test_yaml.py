"""YAML bodies: the core schema of YAML 1.2, and nothing that is more than plain data."""

from __future__ import annotations

from typing import Any

import pytest

from service.errors import HttpProblem
from service.request_body import parse


def read(text: str) -> Any:
    return parse(text.encode(), "application/yaml")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("1E5", 1e5),
        ("+.5", 0.5),
        ("5.", 5.0),
        ("-0", 0),
        ("-17", -17),
        ("017", 17),
        ("0x1F", 31),
        ("0o17", 15),
        ("true", True),
        ("False", False),
        ("~", None),
        ("", None),
        ("no", "no"),
        ("on", "on"),
        ("1:30", "1:30"),
        ("1_000", "1_000"),
        ("2026-01-31", "2026-01-31"),
        ("2026-01-31T12:00:00Z", "2026-01-31T12:00:00Z"),
        ("<<", "<<"),
        ("=", "="),
        ("'5'", "5"),
        ("!!str 5", "5"),
        ("|\n  5\n", "5\n"),
    ],
)
def test_plain_scalars(text: str, value: Any) -> None:
    found = read(f"a: {text}")["a"]
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("a: " + "9" * 5000, "number_too_large"),
        ("a: 0x" + "f" * 5000, "number_too_large"),
        ("a: 0o" + "7" * 100_000, "number_too_large"),
        ("a: 9223372036854775808", "number_too_large"),
        ("a: 1e400", "not_finite"),
        ("a: .nan", "not_finite"),
        ("a: -.INF", "not_finite"),
        ("a: !!bool 5", "yaml_tag"),
        ("a: !!int abc", "yaml_tag"),
        ("a: !!binary aGk=", "yaml_tag"),
        ("a: !!set {b, c}", "yaml_tag"),
        ("a: !!python/object/apply:os.system [id]", "yaml_tag"),
        ("a: !local x", "yaml_tag"),
        ("a: &x [1]\nb: *x", "yaml_alias"),
        ("a: 1\na: 2", "duplicate_key"),
        ("5: a", "key_not_text"),
        ("? [1, 2]\n: 3", "not_yaml"),
        ("[" * 100_000, "too_deep"),
        ("a:\n\t- b", "not_yaml"),
        ("a: b\n---\nc: d", "not_yaml"),
        ("%YAML 9.9\n---\na: b", "not_yaml"),
        ("a: '\ud800'".encode("utf-8", "surrogatepass").decode("latin-1"), "not_yaml"),
    ],
)
def test_what_is_refused(text: str, code: str) -> None:
    with pytest.raises(HttpProblem) as caught:
        read(text)
    assert (caught.value.status, caught.value.code) == (422, code)
    for word in ("int()", "float", "Python", "datetime", "NoneType"):
        assert word not in caught.value.detail

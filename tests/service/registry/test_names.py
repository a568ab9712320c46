"""What may be a name, and what a reference means."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.database import new_id
from service.registry.names import Reference, as_name, check_name, parse_reference


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("digits", Reference("digits")),
        ("digits:3", Reference("digits", version=3)),
        ("digits@production", Reference("digits", alias="production")),
        ("a: b:12", Reference("a: b", version=12)),
        ("10:30 run", Reference("10:30 run")),
        ("digits:v3", Reference("digits:v3")),
        (":3", Reference(":3")),
        ("digits:" + "9" * 10, Reference("digits:" + "9" * 10)),
        ("digits@", Reference("digits", alias="")),
    ],
)
def test_a_reference_is_split(text: str, expected: Reference) -> None:
    assert parse_reference(text) == expected


@pytest.mark.parametrize("name", ["digits", "Ziffern 2024", "数字", "a:b", "ds_train", "job_7", "v1.2-rc"])
def test_names_that_may_be_given(name: str) -> None:
    assert check_name(name) == name == as_name(name)
    assert parse_reference(name) == Reference(name)


@pytest.mark.parametrize(
    ("name", "reason", "instead"),
    [
        ("ds_" + "0" * 26, "form of an id", "ds-" + "0" * 26),
        ("mdl_06a1b2c3d4e5f6g7h8j9k0m1n2", "form of an id", "mdl-06a1b2c3d4e5f6g7h8j9k0m1n2"),
        ("digits:3", "ends like a version", "digits-3"),
        ("me@home", "control character or one of", "me-home"),
        ("a/b\\c", "control character or one of", "a-b-c"),
        ("a\nb", "control character or one of", "a-b"),
        ("..", "part of an address", ""),
        (" padded ", "spaces around", "padded"),
        ("", "part of an address", ""),
    ],
)
def test_names_that_a_reference_could_not_name(name: str, reason: str, instead: str) -> None:
    with pytest.raises(ValueError, match=reason):
        check_name(name)
    assert as_name(name) == instead


def test_ids_are_never_names() -> None:
    for prefix in ("ds", "mdl", "job", "exp"):
        with pytest.raises(ValueError, match="form of an id"):
            check_name(new_id(prefix))


@given(st.text(max_size=300))
def test_whatever_a_job_is_called_its_model_has_a_name_or_none(text: str) -> None:
    name = as_name(text)
    assert name == "" or check_name(name) == name
    assert len(name) <= 200
    assert as_name(name) == name
    if name:
        assert parse_reference(name) == Reference(name)
        assert parse_reference(f"{name}:7") == Reference(name, version=7)
        assert parse_reference(f"{name}@prod") == Reference(name, alias="prod")

"""How filters, sorts, cursors and fields are read from a query string."""

from __future__ import annotations

import base64
from contextlib import suppress
from typing import Any
from urllib.parse import parse_qsl

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import HttpProblem
from service.jobs.routes import JOBS
from service.listing.filters import BadFilterError, MetricFilter, NumberFilter, parse_comparison
from service.listing.query import Position
from service.models.routes import MODELS
from service.models.tables import Model


def parse(text: str) -> Any:
    return JOBS.parse(parse_qsl(text, keep_blank_values=True))


def conditions(text: str) -> list[tuple[Any, ...]]:
    return [(one.filter, one.operator, one.value) for one in parse(text).conditions]


def errors(text: str) -> list[tuple[str, str]]:
    with pytest.raises(HttpProblem) as raised:
        parse(text)
    assert raised.value.status == 422
    assert all(error["hint"] and error["message"] for error in raised.value.errors)
    return [(error["pointer"], error["code"]) for error in raised.value.errors]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("state=running", ("state", "in", ("running",))),
        ("state=queued,running", ("state", "in", ("queued", "running"))),
        ("state=queued&state=running&state=queued", ("state", "in", ("queued", "running"))),
        ("name=digits", ("name", "in", ("digits",))),
        ("name=digits*", ("name", "prefix", "digits")),
        ("name=*digits", ("name", "suffix", "digits")),
        ("name=*digits*", ("name", "contains", "digits")),
        ("name=*50%25_*", ("name", "contains", "50%_")),
        ("group=a&group=b", ("group", "in", ("a", "b"))),
        ("label.team=vision", ("label", "in", ("vision",))),
    ],
)
def test_each_filter_has_one_form(text: str, expected: tuple[Any, ...]) -> None:
    assert conditions(text) == [expected]


def test_a_star_alone_is_every_name() -> None:
    assert conditions("name=*") == conditions("name=**") == []


@pytest.mark.parametrize(
    ("text", "operator", "number"),
    [
        ("metric.accuracy>=0.9", ">=", 0.9),
        ("metric.accuracy>0.9", ">", 0.9),
        ("metric.accuracy<=0.9", "<=", 0.9),
        ("metric.accuracy<0.9", "<", 0.9),
        ("metric.accuracy=0.9", "in", (0.9,)),
        ("metric.accuracy%3E%3D0.9", ">=", 0.9),
        ("metric.accuracy%3E=0.9", ">=", 0.9),
        ("metric.accuracy%3E%3D=0.9", ">=", 0.9),
        ("metric.accuracy%3C0.9", "<", 0.9),
        ("metric.accuracy=%3E0.9", ">", 0.9),
        ("metric.accuracy=<=0.9", "<=", 0.9),
        ("metric.accuracy>=-1e+3", ">=", -1000.0),
        ("metric.accuracy >= 0.9", ">=", 0.9),
    ],
)
def test_a_comparison_is_read_however_it_is_encoded(text: str, operator: str, number: Any) -> None:
    (one,) = MODELS.parse(parse_qsl(text, keep_blank_values=True)).conditions
    assert (one.key, one.operator, one.value) == ("accuracy", operator, number)


@given(st.sampled_from([">=", ">", "<=", "<", "="]), st.floats(allow_nan=False, allow_infinity=False))
@settings(max_examples=200, deadline=None)
def test_every_number_comes_through_a_query_string(operator: str, number: float) -> None:
    (pair,) = parse_qsl(f"x{operator}{number!r}", keep_blank_values=True)
    assert parse_comparison("x", pair) == ("in" if operator == "=" else operator, number)


@given(st.text(max_size=12), st.text(max_size=12))
@settings(max_examples=300, deadline=None)
def test_no_text_breaks_a_comparison(name: str, value: str) -> None:
    filters = [MetricFilter(column=Model.metrics, known=("accuracy", "f1")), NumberFilter("bytes", Model.bytes)]
    for pair in ((f"metric.{name}", value), (f"bytes{name}", value)):
        for one in filters:
            if one.accepts(pair[0]):
                with suppress(BadFilterError):
                    (condition,) = one.read([pair])
                    assert condition.operator in ("in", ">", ">=", "<", "<=")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("state=runing", ("query/state", "unknown_value")),
        ("state=", ("query/state", "unknown_value")),
        ("name=a*b", ("query/name", "bad_pattern")),
        ("name=a&name=b", ("query/name", "given_twice")),
        ("name=", ("query/name", "empty")),
        ("group=", ("query/group", "empty")),
        (f"group={'x' * 201}", ("query/group", "string_too_long")),
        ("created_after=yesterday", ("query/created_after", "bad_time")),
        ("created_after=1e300", ("query/created_after", "bad_time")),
        ("created_after=0001-01-01T00:00:00%2B14:00", ("query/created_after", "bad_time")),
        ("limit=0", ("query/limit", "bad_limit")),
        ("limit=1001", ("query/limit", "bad_limit")),
        ("limit=ten", ("query/limit", "bad_limit")),
        ("limit=1&limit=2", ("query/limit", "given_twice")),
        ("sort=color", ("query/sort", "unknown_sort")),
        ("sort=--name", ("query/sort", "unknown_sort")),
        ("fields=id,metrics.bst", ("query/fields", "unknown_field")),
        ("fields=id,,name", ("query/fields", "unknown_field")),
        ("fields=name.first", ("query/fields", "unknown_field")),
        ("after=%25", ("query/after", "bad_cursor")),
        ("after=abc", ("query/after", "bad_cursor")),
        ("label.%20=x", ("query/label. ", "bad_label")),
    ],
)
def test_what_cannot_be_meant_is_refused_at_its_place(text: str, expected: tuple[str, str]) -> None:
    assert errors(text) == [expected]


def test_everything_wrong_is_said_at_once() -> None:
    assert [place for place, _ in errors("limit=0&state=x&fields=y&sort=z")] == [
        "query/limit",
        "query/sort",
        "query/fields",
        "query/state",
    ]


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("state=runing", 'Did you mean "running"?'),
        ("fields=metric.best", 'Did you mean "metrics.best"?'),
        ("sort=create_at", 'Did you mean "created_at"?'),
    ],
)
def test_the_nearest_name_is_suggested(text: str, hint: str) -> None:
    with pytest.raises(HttpProblem) as raised:
        parse(text)
    assert raised.value.errors[0]["hint"] == hint


def test_a_time_without_percent_encoding_or_zone_is_understood() -> None:
    texts = ("12:00:00Z", "14:00:00+02:00", "14:00:00%2B02:00", "12:00:00", "12:00:00.000")
    times = {conditions(f"created_after=2026-01-31T{text}")[0][2] for text in texts}
    assert len(times) == 1


TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=200)


@given(st.none() | TEXT, st.text("abc_0", min_size=1))
@settings(max_examples=100, deadline=None)
def test_a_cursor_comes_back_as_it_was(value: str | None, identifier: str) -> None:
    query = parse("sort=name")
    cursor = query.cursor(Position(value, identifier))
    assert parse(f"sort=name&after={cursor}").after == Position(value, identifier)
    assert errors(f"sort=-name&after={cursor}") == [("query/after", "cursor_of_another_sort")]


@given(st.binary(max_size=60))
@settings(max_examples=200, deadline=None)
def test_no_cursor_breaks_the_service(raw: bytes) -> None:
    assert errors(f"sort=name&after={base64.urlsafe_b64encode(raw).decode().rstrip('=')}")[0][0] == "query/after"

"""Rows survive their columnar body bit by bit."""

from __future__ import annotations

import json
import math
import struct

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from service.metrics.chunks import MetricRow, columns_of, decode_columns, encode_columns, joined

NAMES = st.sampled_from(["loss", "accuracy", "lr", "größe"])
ROWS = st.lists(
    st.builds(
        MetricRow,
        split=st.sampled_from(["train", "val", "test"]),
        name=NAMES,
        step=st.integers(-(2**62), 2**62),
        epoch=st.integers(0, 2**31 - 1),
        value=st.floats(),
        at=st.floats(0, 4e9),
    ),
    max_size=40,
)


def encode(rows: list[MetricRow]) -> bytes:
    return encode_columns(columns_of(rows))


def decode(body: bytes) -> list[MetricRow]:
    columns = decode_columns(body)
    return columns.rows(np.arange(len(columns.index)))


def bits(row: MetricRow) -> tuple[object, ...]:
    return row.split, row.name, row.step, row.epoch, struct.pack("<d", row.value), row.at


@given(ROWS)
def test_rows_come_back_exactly(rows: list[MetricRow]) -> None:
    assert [bits(row) for row in decode(encode(rows))] == [bits(row) for row in rows]


def test_nan_and_infinities_survive() -> None:
    rows = [MetricRow("val", "loss", 1, 1, value, 0.0) for value in (math.nan, math.inf, -math.inf, -0.0)]
    back = [row.value for row in decode(encode(rows))]
    assert math.isnan(back[0])
    assert back[1:3] == [math.inf, -math.inf]
    assert math.copysign(1, back[3]) == -1


def test_a_row_costs_what_its_numbers_need() -> None:
    # step: 2 bytes, at: 4 (some seconds in steps of 2^-22 s), value: 4; series and epoch are the same everywhere
    rows = [MetricRow("val", "loss", step, 1, 0.5 + step / 1024, 1.7e9 + step / 100) for step in range(1000)]
    assert 10 * 1000 < len(encode(rows)) < 10 * 1000 + 250
    rows[7] = MetricRow("val", "loss", 7, 1, 0.1, 1.7e9)  # needs all bits of a float64
    assert len(encode(rows)) > 14 * 1000


def test_a_body_of_the_first_version_reads_as_it_did() -> None:
    columns = [[1, 0], [10, 2**40], [1, -1], [0.1, math.inf], [1.7e9, 1.7e9 + 0.25]]
    header = json.dumps({"n": 2, "series": [["val", "loss"], ["train", "lr"]]}).encode()
    kinds = ("<u2", "<i8", "<i4", "<f8", "<f8")
    arrays = [np.asarray(column, kind).tobytes() for column, kind in zip(columns, kinds, strict=True)]
    assert decode(struct.pack("<I", len(header)) + header + b"".join(arrays)) == [
        MetricRow("train", "lr", 10, 1, 0.1, 1.7e9),
        MetricRow("val", "loss", 2**40, -1, math.inf, 1.7e9 + 0.25),
    ]


@given(st.lists(ROWS, min_size=1, max_size=5))
def test_joined_bodies_hold_the_rows_of_all_in_order(parts: list[list[MetricRow]]) -> None:
    whole = encode_columns(joined([decode_columns(encode(rows)) for rows in parts]))
    assert [bits(row) for row in decode(whole)] == [bits(row) for rows in parts for row in rows]


def test_columns_name_each_series_once() -> None:
    columns = decode_columns(encode([MetricRow("val", "loss", n, 1, 1.0, 0.0) for n in range(3)]))
    assert columns.series == [("val", "loss")]
    assert columns.step.tolist() == [0, 1, 2]

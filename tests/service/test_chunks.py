"""Rows survive their columnar body bit by bit."""

from __future__ import annotations

import math
import struct

from hypothesis import given
from hypothesis import strategies as st

from service.metrics.chunks import Row, decode, decode_columns, encode

NAMES = st.sampled_from(["loss", "accuracy", "lr", "größe"])
ROWS = st.lists(
    st.builds(
        Row,
        split=st.sampled_from(["train", "val", "test"]),
        name=NAMES,
        step=st.integers(0, 2**62),
        epoch=st.integers(0, 2**31 - 1),
        value=st.floats(),
        at=st.floats(0, 4e9),
    ),
    max_size=40,
)


def bits(row: Row) -> tuple[object, ...]:
    return row.split, row.name, row.step, row.epoch, struct.pack("<d", row.value), row.at


@given(ROWS)
def test_rows_come_back_exactly(rows: list[Row]) -> None:
    assert [bits(row) for row in decode(encode(rows))] == [bits(row) for row in rows]


def test_nan_and_infinities_survive() -> None:
    rows = [Row("val", "loss", 1, 1, value, 0.0) for value in (math.nan, math.inf, -math.inf, -0.0)]
    back = [row.value for row in decode(encode(rows))]
    assert math.isnan(back[0])
    assert back[1:3] == [math.inf, -math.inf]
    assert math.copysign(1, back[3]) == -1


def test_a_row_costs_thirty_bytes() -> None:
    rows = [Row("val", "loss", step, 1, 0.5, 0.0) for step in range(1000)]
    assert len(encode(rows)) < 30 * 1000 + 100


def test_columns_name_each_series_once() -> None:
    columns = decode_columns(encode([Row("val", "loss", n, 1, 1.0, 0.0) for n in range(3)]))
    assert columns.series == [("val", "loss")]
    assert columns.step.tolist() == [0, 1, 2]

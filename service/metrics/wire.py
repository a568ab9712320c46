"""Rows as JSON text. Written straight from the columns: a page of 500 rows, or a stream to a thousand readers, is
mostly this."""

from __future__ import annotations

import json
from math import isfinite

import numpy as np
from numpy.typing import NDArray

from service.metrics.service import Slice

BOOLEANS = ("false", "true")


def texts(piece: Slice) -> list[str]:
    """One JSON object a row. A value that JSON cannot hold is null, and `nonfinite` says which it was; `at` in UTC."""
    columns, places = piece.columns, piece.places
    attempt = f'"attempt": {piece.attempt}, '
    series = [
        f'{attempt}"split": {json.dumps(split)}, "name": {json.dumps(name)}, "step": ' for split, name in columns.series
    ]
    rows = zip(
        piece.seq[places].tolist(),
        columns.index[places].tolist(),
        columns.step[places].tolist(),
        columns.epoch[places].tolist(),
        columns.value[places].tolist(),
        times(columns.at[places]),
        piece.superseded[places].tolist(),
        strict=True,
    )
    return [
        f'{{"seq": {seq}, {series[index]}{step}, "epoch": {epoch}, "value": {value!r}, "at": "{at}", '
        f'"superseded": {BOOLEANS[again]}}}'
        if isfinite(value)
        else f'{{"seq": {seq}, {series[index]}{step}, "epoch": {epoch}, "value": null, "at": "{at}", '
        f'"superseded": {BOOLEANS[again]}, "nonfinite": "{value}"}}'
        for seq, index, step, epoch, value, at, again in rows
    ]


def times(at: NDArray[np.float64]) -> list[str]:
    """Unix seconds as RFC 3339 with `Z`, to the millisecond."""
    moments = np.rint(at * 1e6).astype("datetime64[us]").astype("datetime64[ms]")
    return [text + "Z" for text in np.datetime_as_string(moments).tolist()]

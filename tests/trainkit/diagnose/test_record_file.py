"""A record survives the way through a file, so that both sides give the same diagnosis."""

from __future__ import annotations

import json
import math
from dataclasses import fields
from pathlib import Path

import numpy as np

from tests.support.diagnosis_records import falling, record
from trainkit.diagnose import record_file
from trainkit.diagnose.attainable import Attainable
from trainkit.diagnose.diagnosis import diagnose


def test_a_record_comes_back_as_it_was(tmp_path: Path) -> None:
    attainable = Attainable(
        "accuracy",
        0.9,
        0.85,
        0.95,
        "boosting",
        ({"name": "boosting", "value": 0.9},),
        200,
        1600,
        1.0,
        3.0,
        20.0,
        True,
        "k",
    )
    losses = [*falling(2.3, 0.1), math.nan, math.inf]
    written = record(
        train_loss=losses,
        val_loss=[2.0] * len(losses),
        layers_grad_norm__head=falling(1, 0.1),
        attainable=attainable,
        evaluation={"split": "test", "confusion_matrix": [[1, 2], [3, 4]]},
        report={"findings": [{"code": "leakage", "message": "2 samples"}]},
    )
    record_file.save(tmp_path / "r.json", {"record": record_file.as_json(written)})
    read = record_file.from_json(json.loads((tmp_path / "r.json").read_bytes())["record"])
    for field in fields(written):
        if field.name != "series":
            assert getattr(read, field.name) == getattr(written, field.name), field.name
    assert read.series.keys() == written.series.keys()
    for name, series in written.series.items():
        for column in ("step", "epoch", "value"):
            np.testing.assert_array_equal(getattr(read.series[name], column), getattr(series, column))
            assert getattr(read.series[name], column).dtype == getattr(series, column).dtype
    assert json.dumps(diagnose(read).as_dict()) == json.dumps(diagnose(written).as_dict())

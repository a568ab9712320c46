from __future__ import annotations

import numpy as np
import pytest

from tests.support.fit_data import spec
from trainkit.data import Column, TableInputs
from trainkit.data.dataset import categories_of, make_dataset
from trainkit.fit.encoding.targets import TargetScaler, read_targets
from trainkit.spec import JobSpec, resolve


def table(target: Column):
    n = len(target.values)
    columns = {"x": Column(np.arange(n, dtype=np.float64)), "y": target}
    return make_dataset("table", TableInputs(columns), None, None, None, target="y")


def read(target: Column, **fields: object):
    data = table(target)
    resolved = resolve(JobSpec.model_validate(spec({"kind": "mlp"}, split="1:0:0", **fields)), data.facts)
    return read_targets(resolved.spec, data)


def test_text_columns_are_classes():
    targets = read(categories_of(["b", "a", "b", "c"]))
    assert targets.classes == ("a", "b", "c")
    assert targets.values.tolist() == [1, 0, 1, 2]


def test_few_whole_numbers_are_classes_by_their_value():
    targets = read(Column(np.array([10.0, 2.0, 10.0, 3.0])))
    assert [targets.classes[k] for k in targets.values] == ["10", "2", "10", "3"]


def test_numbers_stay_numbers_when_asked():
    targets = read(Column(np.array([10.0, 2.0, 10.0])), task="regression")
    assert targets.classes is None
    assert targets.values.tolist() == [[10.0], [2.0], [10.0]]


@pytest.mark.parametrize("kind", ["none", "z_score", "min_max"])
def test_scaling_is_undone(kind):
    y = np.array([[1.0, 5.0], [3.0, 5.0], [8.0, 5.0]])
    scaler = TargetScaler.fit(kind, y)
    again = TargetScaler.from_state(scaler.state())
    assert again.invert(scaler.apply(y)) == pytest.approx(y)
    scaled = scaler.apply(y)
    if kind == "z_score":
        assert (scaled[:, 0].mean(), scaled[:, 0].std()) == pytest.approx((0, 1), abs=1e-6)
        assert not scaled[:, 1].any(), "a constant target is only shifted"
    if kind == "min_max":
        assert scaled[:, 0].tolist() == pytest.approx([0, 2 / 7, 1])

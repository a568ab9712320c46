"""A forecasting spec meets its dataset: windows, widths and parts are known before anything is cut."""

from __future__ import annotations

import numpy as np
import pytest

from trainkit.data import Column, Dataset, SequenceInputs, TableInputs
from trainkit.data.dataset import make_dataset
from trainkit.fit.encoding.forecast import as_windows
from trainkit.spec import DatasetFacts, SpecError, resolve
from trainkit.spec.forecasting import windowed


def table(rows: int, target: str | None = None, gap: bool = False) -> Dataset:
    price = np.arange(float(rows))
    if gap:
        price[1] = np.nan
    columns = {
        "load": Column(np.arange(float(rows))),
        "town": Column(np.zeros(rows, np.int32), ("Ulm",)),
        "price": Column(price),
    }
    return make_dataset("table", TableInputs(columns), None, None, None, target=target)


def series(*lengths: int) -> Dataset:
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return make_dataset("sequences", SequenceInputs(np.zeros((offsets[-1], 2), np.float32), offsets), None, None, None)


def document(**dataset: object) -> dict[str, object]:
    return {"dataset": {"id": "d", **dataset}, "model": {"kind": "lstm"}, "task": "forecasting"}


CASES = {
    "one series": (series(100), {}),
    "equal series": (series(40, 40, 40), {"window": 5, "horizon": 3}),
    "a table": (table(60), {}),
    "a table's column": (table(60, "price"), {"window": 4}),
    "arrays": (Dataset.from_arrays(np.zeros((50, 3))), {}),
    "arrays and y": (Dataset.from_arrays(np.zeros((50, 3)), np.linspace(0, 1, 50)), {"horizon": 2}),
}


@pytest.mark.parametrize("name", CASES)
def test_the_facts_are_those_of_the_windows_that_will_be_cut(name: str) -> None:
    data, dataset = CASES[name]
    done = resolve(document(**dataset), data.facts)
    cut = as_windows(done.spec, data).facts
    facts = windowed(done.spec, data.facts)
    values_decide = {"constant_target"}  # the facts of a series do not hold its values
    assert facts.model_dump(exclude=values_decide) == cut.model_dump(exclude=values_decide)
    assert done.spec.dataset.window == cut.input_shape[0]
    assert resolve(done.spec, cut).spec == done.spec


def refusals(data: Dataset, **changes: object) -> list[tuple[str, str]]:
    with pytest.raises(SpecError) as caught:
        resolve({**document(), **changes}, data.facts)
    return [(problem.pointer, problem.code) for problem in caught.value.problems]


def test_what_is_no_series_is_refused() -> None:
    classes = Dataset.from_arrays(np.zeros((50, 3)), ["a", "b"] * 25)
    assert ("/task", "target_not_numbers") in refusals(classes)
    assert refusals(series(9), dataset={"id": "d", "window": 9}) == [("/dataset/window", "series_too_short")]
    assert refusals(table(60, gap=True)) == [("/dataset/ignore", "missing_values")]
    assert refusals(table(60), dataset={"id": "d", "features": ["town"]}) == [("/dataset/features", "no_features")]
    assert ("/task", "target_not_numbers") in refusals(table(60), dataset={"id": "d", "target": "town"})
    assert refusals(series(50), task=None) == [("/task", "no_target")]


def test_images_are_no_series_but_arrays_of_any_shape_are() -> None:
    facts = DatasetFacts(
        kind="images", samples=99, input_shape=(1, 8, 8), classes={"a": 50, "b": 49}, target_type="class"
    )
    with pytest.raises(SpecError) as caught:
        resolve(document(), facts.model_copy(update={"target_type": "none", "classes": None}))
    assert [problem.code for problem in caught.value.problems] == ["not_a_series"]
    steps = Dataset.from_arrays(np.zeros((20, 3, 8)), np.linspace(0, 1, 20))
    assert resolve(document(window=2), steps.facts).sample.shape == (2, 25)

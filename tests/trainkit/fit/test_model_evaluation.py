"""A model evaluated on labelled data: the job's own evaluation for the same samples, refusals for what does not fit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import trainkit as tk
from tests.support.fit_data import images, numbers, sequences, spec, table, vectors
from trainkit.data import Column, Dataset, ImageInputs, TableInputs
from trainkit.data.dataset import categories_of, make_dataset
from trainkit.data.errors import InputError
from trainkit.data.table.request_rows import read_request

MLP = {"kind": "mlp", "hidden": [8]}
CASES: dict[str, tuple[Callable[[], Dataset], dict[str, Any]]] = {
    "arrays, class weights and label smoothing": (
        vectors,
        spec(
            MLP,
            balance="class_weights",
            preprocess=[{"kind": "z_score"}, {"kind": "pca", "components": 3}],
            regularize={"label_smoothing": 0.1},
        ),
    ),
    "regression": (numbers, spec(MLP)),
    "cnn, augmented": (images, spec({"kind": "cnn", "channels": [4]}, augment=[{"kind": "noise", "std": 0.1}])),
    "gru": (sequences, spec({"kind": "gru", "hidden": 6})),
    "table": (table, spec(MLP, preprocess=[{"kind": "impute"}], split={"duplicates": "drop"})),
}


def without_warnings(evaluation: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in evaluation.items() if name not in ("warnings", "parts")}


@pytest.mark.parametrize("case", CASES)
def test_the_test_part_gives_the_evaluation_of_the_job(case: str, tmp_path: Path) -> None:
    make, document = CASES[case]
    data = make()
    result = tk.fit(document, data)
    assert result.evaluation is not None
    model = tk.load_model(result.model.save(tmp_path / "model"))
    found = tk.evaluate_model(model, data, part="test", is_training_dataset=True)
    assert without_warnings(found) == {**without_warnings(result.evaluation), "split": "test"}
    assert not {"trained_on"} & {warning["code"] for warning in found["warnings"]}


def test_the_same_rows_as_a_file_give_the_evaluation_of_the_job(tmp_path: Path) -> None:
    """The test rows alone, as text, in another order of columns, through the reader of predict."""
    rng = np.random.default_rng(0)
    kinds = ["001", "01", "1.0"]
    lines = []
    for row in range(150):
        label = row % 3
        value = "nil" if row % 11 == 0 else f"{label + rng.normal():.3f}".replace(".", ",")
        lines.append(f"{value};{['a', 'b', 'c'][int(rng.integers(3))]};{kinds[label]};2024-01-{1 + row % 28:02d}")
    path = tmp_path / "train.csv"
    path.write_text("size;place;kind;day\n" + "\n".join(lines) + "\n")
    from trainkit.spec.read_options import ReadOptions

    reading = ReadOptions.model_validate({"columns": {"kind": {"type": "category"}}})
    data = tk.load_dataset(path, target="kind", reading=reading)
    result = tk.fit(spec(MLP, preprocess=[{"kind": "impute"}]), data)
    assert result.evaluation is not None
    from trainkit.data import split_indices
    from trainkit.spec.split import SplitSpec

    labels = np.asarray(data.with_target("kind").targets)
    test = split_indices(SplitSpec(), 150, labels).test
    body = "day;kind;place;size\n"
    for row in test:
        size, place, kind, day = lines[row].split(";")
        body += f"{day};{kind};{place};{size}\n"
    encoder = result.model.table_encoders[0]
    rows = read_request(encoder.format, body.encode(), "text/csv", encoder.names)
    found = tk.evaluate_model(result.model, rows)
    # rows of a file have no position in a dataset
    assert without_warnings(found) == {**without_warnings(result.evaluation), "split": "all", "misclassified": []}
    imputed = sum("nil" in lines[row] for row in test)
    assert [(w["code"], w["column"], w["rows"]) for w in found["warnings"]] == [("imputed", "size", imputed)] * (
        imputed > 0
    )


def test_an_ensemble_gives_its_evaluation() -> None:
    data = vectors()
    members = [tk.fit(spec(MLP, train={"seed": seed}), data).model for seed in (0, 1)]
    ensemble = {"kind": "ensemble", "members": ["job_0", "job_1"]}
    result = tk.fit(spec(ensemble), data, source=members)
    assert result.evaluation is not None
    found = tk.evaluate_model(result.model, data, part="test", is_training_dataset=True)
    assert without_warnings(found) == {**without_warnings(result.evaluation), "split": "test"}


def test_classes_are_matched_by_name_and_not_by_number() -> None:
    data = images(90, classes=2)
    model = tk.fit(spec({"kind": "cnn", "channels": [4]}), data).model
    pixels = data.inputs.pixels
    targets = np.asarray(data.targets)
    turned = make_dataset("images", ImageInputs(pixels), 1 - targets, ["class 1", "class 0"], None)
    assert tk.evaluate_model(model, turned)["metrics"] == tk.evaluate_model(model, data)["metrics"]
    only = targets == 1
    one = make_dataset("images", ImageInputs(pixels[only]), np.zeros(only.sum(), np.int64), ["class 1"], None)
    found = tk.evaluate_model(model, one)
    assert [row["support"] for row in found["per_class"]] == [0, int(only.sum())]
    assert [warning["code"] for warning in found["warnings"]] == ["absent_class"]


def test_unknown_labels_are_refused_with_their_rows() -> None:
    data = images(40)
    model = tk.fit(spec({"kind": "cnn", "channels": [4]}), data).model
    targets = np.asarray(data.targets).copy()
    targets[[3, 7]] = 2
    other = make_dataset("images", data.inputs, targets, ["class 0", "class 1", "dog"], None)
    with pytest.raises(InputError) as refused:
        tk.evaluate_model(model, other)
    assert [(one.code, one.row) for one in refused.value.problems] == [("unknown_label", 3), ("unknown_label", 7)]
    assert 'row 3: the label "dog" is none of the model\'s classes' in refused.value.problems[0].message
    assert refused.value.problems[0].hint.startswith('Unknown labels, with their rows counted: "dog" (2).')


def with_columns(data: Dataset, **columns: Column | None) -> Dataset:
    held = {**data.inputs.columns, **columns}
    kept = {name: column for name, column in held.items() if column is not None}
    return make_dataset("table", TableInputs(kept), None, None, None, target="y" if "y" in kept else None)


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        ({"town": None}, "missing_column", '"town" is missing'),
        ({"y": None}, "missing_column", 'the target column "y" is missing'),
        ({"z": Column(np.zeros(90))}, "unknown_column", 'no column "z"'),
        ({"y": categories_of(["low", "top", *["mid"] * 88])}, "unknown_label", 'row 1: the label "top"'),
        ({"y": categories_of(["low", *[None] * 50, *["mid"] * 39])}, "missing_label", "50 of 90 rows have no label"),
        ({"x": categories_of(["one", *["2"] * 89])}, "invalid_input", 'row 0: "x" must be a number, got "one"'),
    ],
)
def test_a_table_that_does_not_fit_is_refused(changes: dict[str, Any], code: str, words: str) -> None:
    data = table()
    model = tk.fit(spec(MLP, preprocess=[{"kind": "impute"}]), data).model
    with pytest.raises(InputError) as refused:
        tk.evaluate_model(model, with_columns(data, **changes))
    first = refused.value.problems[0]
    assert first.code == code
    assert words in first.message


def test_another_name_of_the_target_is_given() -> None:
    data = table()
    model = tk.fit(spec(MLP, preprocess=[{"kind": "impute"}]), data).model
    renamed = with_columns(data, y=None, answer=data.inputs.columns["y"])
    found = tk.evaluate_model(model, renamed, target="answer", ignore_extra=True)
    assert found["metrics"] == tk.evaluate_model(model, data)["metrics"]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda data: Dataset.from_arrays(np.zeros((4, 5), np.float32), [0, 1, 2, 0]), "wrong_shape"),
        (lambda data: images(12), "wrong_kind"),
        (lambda data: replace(data, targets=None), "no_labels"),
        (lambda data: Dataset.from_arrays(np.full((3, 6), np.nan, np.float32), [0, 1, 2]), "not_finite"),
        (lambda data: numbers(12, 6), "unknown_label"),
    ],
)
def test_other_data_are_refused(change: Callable[[Dataset], Dataset], code: str) -> None:
    data = vectors()
    model = tk.fit(spec(MLP), data).model
    with pytest.raises(InputError) as refused:
        tk.evaluate_model(model, change(data))
    assert refused.value.problems[0].code == code


def test_parts_are_those_of_the_job_or_shipped() -> None:
    data = vectors()
    model = tk.fit(spec(MLP), data).model
    with pytest.raises(InputError) as refused:
        tk.evaluate_model(model, data, part="test")
    assert refused.value.problems[0].code == "no_such_part"
    x, y = data.inputs.values, np.asarray(data.targets)
    shipped = Dataset.from_arrays(x, y, split=np.repeat([0, 2], 60))
    assert tk.evaluate_model(model, shipped, part="test")["samples"] == 60
    everything = tk.evaluate_model(model, data, is_training_dataset=True)
    assert everything["samples"] == 120
    assert [warning["code"] for warning in everything["warnings"]] == ["trained_on"]


def test_pixels_of_another_type_or_colour() -> None:
    data = images(40)
    model = tk.fit(spec({"kind": "cnn", "channels": [4]}), data).model
    grey = tk.evaluate_model(model, data)
    colour = make_dataset(
        "images", ImageInputs(np.repeat(data.inputs.pixels, 3, 3)), data.targets, ["class 0", "class 1"], None
    )
    assert tk.evaluate_model(model, colour)["metrics"] == grey["metrics"]
    floats = Dataset.from_arrays(np.zeros((2, 1, 8, 8), np.float32), np.array(["class 0", "class 1"]))
    with pytest.raises(InputError, match="uint8"):
        tk.evaluate_model(model, floats)
    with pytest.raises(InputError, match="8 x 8 pixels, these were brought to 9 x 9"):
        tk.evaluate_model(model, images(12, side=9))
    trained_on_floats = tk.fit(spec(MLP), vectors()).model
    whole = Dataset.from_arrays(np.ones((3, 6), np.int64), [0, 1, 2])
    assert "other_type" in {warning["code"] for warning in tk.evaluate_model(trained_on_floats, whole)["warnings"]}


def test_numbers_that_look_like_classes_are_numbers_for_a_regression() -> None:
    data = numbers(60)
    model = tk.fit(spec(MLP), data).model
    few = Dataset.from_arrays(data.inputs.values[:5], np.array([100, 130, 100, 70, 130]))
    assert few.facts.target_type == "class"
    found = tk.evaluate_model(model, few)
    predicted = np.array([one["value"] for one in model.predict(data.inputs.values[:5])])
    assert found["metrics"]["mse"] == pytest.approx(
        float(((predicted - [100, 130, 100, 70, 130]) ** 2).mean()), rel=1e-6
    )


FORECASTER = spec({"kind": "gru", "hidden": 4}, task="forecasting")


def wave(steps: int = 200, shift: float = 0.0) -> dict[str, Any]:
    time = np.arange(steps) / 5 + shift
    return {"load": np.sin(time), "heat": np.cos(time) + time / 10, "wind": np.sin(time / 3)}


def series_table(columns: dict[str, Any], target: str | None) -> Dataset:
    held = {name: Column(np.asarray(values, np.float64)) for name, values in columns.items()}
    return make_dataset("table", TableInputs(held), None, None, None, target=target)


SERIES: dict[str, Callable[[], Dataset]] = {
    "a table with a target": lambda: series_table(wave(), "heat"),
    "a table without one": lambda: series_table(wave(), None),
    "arrays": lambda: Dataset.from_arrays(np.stack(list(wave().values()), axis=1)),
    "arrays with y": lambda: Dataset.from_arrays(np.stack([wave()["load"]], axis=1), wave()["heat"]),
}


@pytest.mark.parametrize("case", SERIES)
def test_a_forecaster_is_evaluated_on_new_series(case: str, tmp_path: Path) -> None:
    data = SERIES[case]()
    result = tk.fit({**FORECASTER, "dataset": {"id": "d", "window": 8, "horizon": 3}}, data)
    assert result.evaluation is not None
    model = tk.load_model(result.model.save(tmp_path / "model"))
    found = tk.evaluate_model(model, data, part="test", is_training_dataset=True)
    assert without_warnings(found) == {**without_warnings(result.evaluation), "split": "test"}
    everything = tk.evaluate_model(model, data)
    assert everything["samples"] == 200 - 8 - 3 + 1
    with pytest.raises(InputError, match="no part test"):
        tk.evaluate_model(model, data, part="test")


def test_the_evaluation_of_a_new_series_is_that_of_its_forecasts() -> None:
    model = tk.fit(
        {**FORECASTER, "dataset": {"id": "d", "window": 8, "horizon": 3}}, series_table(wave(), "heat")
    ).model
    later = wave(60, shift=7.0)
    found = tk.evaluate_model(model, series_table({"extra": np.ones(60), **later}, "heat"))
    steps = np.stack([later["load"], later["wind"], later["heat"]], axis=1).astype(np.float32)
    forecasts = [model.predict(steps[start : start + 8].tolist())[0]["value"] for start in range(60 - 8 - 3 + 1)]
    errors = np.array(forecasts) - later["heat"].astype(np.float32)[10:]
    assert found["metrics"]["mse"] == pytest.approx(float((errors**2).mean()), rel=1e-4)
    turned = dict(reversed(later.items()))
    assert tk.evaluate_model(model, series_table(turned, None))["metrics"] == found["metrics"], "columns by their names"


@pytest.mark.parametrize(
    ("columns", "target", "code", "words"),
    [
        ({"load": np.ones(60), "heat": np.ones(60)}, None, "missing_column", 'no column "wind"'),
        (wave(60) | {"wind": np.full(60, np.nan)}, None, "not_a_series", "without gaps"),
        (wave(60), "load", "wrong_target", 'forecasts "heat"'),
        (wave(9), None, "series_too_short", "need 11 steps"),
    ],
)
def test_a_series_that_does_not_fit_is_refused(
    columns: dict[str, Any], target: str | None, code: str, words: str
) -> None:
    model = tk.fit(
        {**FORECASTER, "dataset": {"id": "d", "window": 8, "horizon": 3}}, series_table(wave(), "heat")
    ).model
    with pytest.raises(InputError, match=words) as refused:
        tk.evaluate_model(model, series_table(columns, None), target=target)
    assert refused.value.problems[0].code == code

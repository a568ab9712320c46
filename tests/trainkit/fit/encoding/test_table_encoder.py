from __future__ import annotations

import json
import math

import numpy as np
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.preprocessing import StandardScaler

from trainkit.data import Column, TableInputs
from trainkit.data.dataset import categories_of, column_facts
from trainkit.data.errors import InputError
from trainkit.fit.encoding.encode import Encoded
from trainkit.fit.encoding.preprocessing import Preprocessing
from trainkit.fit.encoding.table_encoder import TableEncoder
from trainkit.spec.preprocess import Impute, MinMax, Pca, ZScore

NAN = math.nan
TABLE = TableInputs(
    {
        "age": Column(np.array([1.0, 2.0, NAN, 6.0, 100.0])),
        "town": categories_of(["Bonn", "Ulm", None, "Ulm", "Kiel"]),
    }
)
TRAIN = np.array([0, 1, 2, 3])  # Kiel and the age of 100 are not among them


def encoder(impute: Impute | None) -> TableEncoder:
    facts = [column_facts(name, column) for name, column in TABLE.columns.items()]
    return TableEncoder.fit(TABLE, facts, impute, TRAIN)


def test_vocabulary_and_fill_come_from_the_training_part_alone():
    fitted = encoder(Impute(numeric="mean"))
    assert fitted.feature_names() == ["age", "town=Bonn", "town=Ulm", "town=?"]
    rows = fitted.encode(TABLE, np.arange(5)).tolist()
    assert rows == [[1, 1, 0, 0], [2, 0, 1, 0], [3, 0, 0, 1], [6, 0, 1, 0], [100, 0, 0, 0]]


def test_z_score_equals_scikit_learns_scaler_of_the_numeric_columns():
    random = np.random.default_rng(0)
    ages = random.normal(40, 12, 300)
    towns = random.choice(["Bonn", "Ulm", "Kiel", "Hof"], 300, p=[0.6, 0.3, 0.09, 0.01])
    table = TableInputs({"town": categories_of(towns.tolist()), "age": Column(ages)})
    rows = np.arange(300)
    fitted = TableEncoder.fit(table, [column_facts(name, one) for name, one in table.columns.items()], None, rows)
    x = fitted.encode(table, rows)
    assert fitted.indicators.tolist() == [True] * 4 + [False]
    scaled = Preprocessing.fit([ZScore()], Encoded(x), "vector", indicators=fitted.indicators)
    reference = ColumnTransformer([("scale", StandardScaler(), [4])], remainder="passthrough").fit_transform(x.numpy())
    np.testing.assert_allclose(scaled(x).numpy(), np.roll(reference, -1, axis=1), atol=1e-6)
    # in a second step too, and not where a step before it has mixed the columns
    twice = Preprocessing.fit([MinMax(), ZScore()], Encoded(x), "vector", indicators=fitted.indicators)
    np.testing.assert_allclose(twice(x).numpy(), scaled(x).numpy(), atol=1e-5)
    mixed = Preprocessing.fit([Pca(components=2), ZScore()], Encoded(x), "vector", indicators=fitted.indicators)
    np.testing.assert_allclose(mixed(x).numpy().std(0), 1, atol=1e-4)


@pytest.mark.parametrize(("numeric", "fill"), [("mean", 3.0), ("median", 2.0), ("zero", 0.0)])
def test_numeric_fill(numeric, fill):
    assert encoder(Impute(numeric=numeric)).encode(TABLE, np.array([2]))[0, 0] == fill


def test_most_frequent_category_fills():
    fitted = encoder(Impute(categorical="most_frequent"))
    assert fitted.feature_names() == ["age", "town=Bonn", "town=Ulm"]
    assert fitted.encode(TABLE, np.array([2]))[0].tolist() == [2.0, 0.0, 1.0]


def test_rows_of_a_client():
    fitted = encoder(Impute())

    def parsed(x):
        return fitted.parse(x)[0].tolist()

    assert fitted.parse({"age": 5, "town": "Ulm", "other": 1}, ignore_extra=True)[0].tolist() == [[5, 0, 1, 0]]
    rows = [{"age": "5", "town": None}, {"town": "Rome", "age": None}]
    assert parsed(rows) == [[5, 0, 0, 1], [2, 0, 0, 0]]
    assert parsed([[5, "Bonn"]]) == parsed([5, "Bonn"]) == [[5, 1, 0, 0]]
    assert parsed([{"age": np.float32(5), "town": np.str_("Bonn")}]) == [[5, 1, 0, 0]]
    assert fitted.parse([])[0].shape == (0, 4)
    with pytest.raises(InputError, match='row 1: "age" must be a number'):
        fitted.parse([{"age": 1, "town": "Ulm"}, {"age": "old", "town": "Ulm"}])
    with pytest.raises(InputError, match="3 values for 2 columns: age, town"):
        fitted.parse([[1, 2, 3]])
    with pytest.raises(InputError, match='row 0: the model knows no column "other"'):
        fitted.parse({"age": 5, "town": "Ulm", "other": 1})


def test_what_is_said_of_a_row():
    _, warnings = encoder(Impute()).parse(
        [
            {"age": 1, "town": "Ulm"},
            {"age": 11, "town": "Bonn"},
            {"age": 11.1, "town": "Kiel"},
            {"age": -4.5, "town": None},
            {"age": None, "town": "Ulm"},
        ]
    )
    assert [[(w["column"], w["code"]) for w in row] for row in warnings] == [
        [],
        [],
        [("age", "out_of_range"), ("town", "unseen_category")],
        [("age", "out_of_range"), ("town", "imputed")],
        [("age", "imputed")],
    ]
    assert warnings[2][0]["message"] == '"age" is 11.1, far outside the range of the training part, 1 to 6'
    assert warnings[4][0]["message"] == '"age" has no value: filled with 2'


def test_gaps_without_impute_are_errors():
    for row, column in (({"age": None, "town": "Ulm"}, "age"), ({"age": 1, "town": None}, "town")):
        with pytest.raises(
            InputError, match=f'row 0: "{column}" has no value, and the model was trained without impute'
        ):
            encoder(None).parse([row])


def test_clients_and_datasets_rows_agree_after_a_round_trip_through_json():
    fitted = TableEncoder.from_state(json.loads(json.dumps(encoder(Impute()).state())))
    rows = [{"age": 1.0, "town": "Bonn"}, {"age": 2, "town": "Ulm"}, {"age": NAN, "town": None}]
    assert np.array_equal(fitted.parse(rows)[0], encoder(Impute()).encode(TABLE, np.arange(3)))

"""Drift between datasets from their reports alone: against the statistics of the samples, and over HTTP."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ks_2samp

from service.datasets.drift import QUARTILES, drift_between, ks_at_least
from service.datasets.tables import DatasetVersion
from tests.support.api import Served, assert_problem
from trainkit.data.drift import psi

SQLITE = pytest.mark.parametrize("migrated_url", ["sqlite"], indirect=True)


def quartiles(values: np.ndarray) -> list[float]:
    return [float(one) for one in np.quantile(values, [0, 0.25, 0.5, 0.75, 1], method="inverted_cdf")]


def report(rng: np.random.Generator, n: int = 1000, moved: float = 0.0, share: float = 0.5) -> dict[str, Any]:
    """A report of a table as a worker writes it, of columns `x` (numbers) and `colour` (categories)."""
    x = rng.normal(moved, 1, n)
    statistics = {"mean": float(x.mean()), "std": float(x.std()), **dict(zip(QUARTILES, quartiles(x), strict=True))}
    red = int(rng.binomial(n, share))
    return {
        "samples": n,
        "classes": {"yes": n // 2, "no": n - n // 2},
        "columns": [
            {"name": "x", "type": "numeric", "missing": n // 10, "categories": None},
            {"name": "colour", "type": "categorical", "missing": 0, "categories": {"red": red, "blue": n - red}},
        ],
        "column_statistics": {"x": statistics},
    }


@given(st.integers(0, 10_000), st.floats(-2, 2), st.floats(0.2, 3), st.integers(5, 300), st.integers(5, 300))
def test_the_bound_is_below_the_statistic_of_the_samples(seed: int, moved: float, scale: float, n: int, m: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.normal(0, 1, n), np.round(rng.normal(moved, scale, m), 1)
    assert ks_at_least(quartiles(a), quartiles(b)) <= ks_2samp(a, b, method="asymp").statistic + 1e-12
    assert ks_at_least(quartiles(a), quartiles(a)) == 0


def test_samples_that_do_not_overlap_are_as_far_apart_as_can_be() -> None:
    assert ks_at_least([0, 1, 2, 3, 4], [5, 6, 7, 8, 9]) == 1
    assert ks_at_least([5, 6, 7, 8, 9], [0, 1, 2, 3, 4]) == 1


def test_chance_is_no_drift_and_a_shift_is() -> None:
    rng = np.random.default_rng(0)
    assert not [
        row["name"]
        for _ in range(50)
        for row in drift_between(report(rng), report(rng, 500))["columns"]
        if row["drifted"]
    ]
    before, after = report(rng), report(rng, moved=0.5, share=0.15)
    rows = {row["name"]: row for row in drift_between(before, after)["columns"]}
    assert [name for name, row in rows.items() if row["drifted"]] == ["x", "colour"]
    assert rows["x"]["shift"] == pytest.approx(0.5, abs=0.1)
    assert (rows["x"]["missing_before"], rows["class"]["psi"]) == (0.1, 0)
    counts = [np.array(list(one["columns"][1]["categories"].values())) for one in (before, after)]
    assert rows["colour"]["psi"] == pytest.approx(psi(*counts))


def test_columns_that_came_went_and_changed_their_type() -> None:
    rng = np.random.default_rng(1)
    before, after = report(rng), report(rng)
    after["columns"] = [{**after["columns"][0], "type": "categorical"}, {"name": "new", "type": "numeric"}]
    found = drift_between(before, after)
    assert (found["added"], found["removed"]) == (["new"], ["colour"])
    assert found["columns"][0]["drifted"]
    assert (found["columns"][0]["name"], found["columns"][0]["kind"]) == ("x", "categorical")


def test_channels_and_constants() -> None:
    bright = {"samples": 9, "channel_means": [0.8, 0.5], "channel_stds": [0.2, 0.0]}
    dark = {"samples": 9, "channel_means": [0.3, 0.5], "channel_stds": [0.2, 0.0]}
    first, second = drift_between(dark, bright)["columns"]
    assert (first["name"], first["shift"], first["drifted"]) == ("channel 0", pytest.approx(2.5), True)
    assert (second["shift"], second["drifted"]) == (0, False)


@SQLITE
def test_over_http_by_name_and_version(service: Served) -> None:
    rng = np.random.default_rng(2)
    ids = [service.ready_dataset(name="table") for _ in range(2)]
    with service.sessions.begin() as session:
        for id, document in zip(ids, (report(rng), report(rng, moved=1)), strict=True):
            row = session.get(DatasetVersion, id)
            assert row is not None
            row.report = document
    found = service.client.get("/v1/datasets/table:2/drift", params={"against": "table:1"})
    assert found.status_code == 200, found.text
    body = found.json()
    assert (body["before"], body["after"]) == tuple(ids)
    assert body["columns"][0]["name"] == "x"
    assert body["columns"][0]["drifted"]
    waiting = service.client.put("/v1/datasets?name=later", content=b"x,y\n1,2\n").json()["id"]
    answer = service.client.get(f"/v1/datasets/{ids[0]}/drift", params={"against": waiting})
    assert_problem(answer, 409, "not_checked_yet")
    assert_problem(service.client.get(f"/v1/datasets/{ids[0]}/drift", params={"against": "nothing"}), 404, "not_found")

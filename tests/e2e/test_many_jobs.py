"""Experiments on a whole stack: scikit-learn's figures on the same folds, and a sweep whose processes die."""

from __future__ import annotations

import csv
import io
import signal
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from scipy.special import expit, logit
from scipy.stats import t as student_t
from sklearn.datasets import load_diabetes, load_iris
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import KFold, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tests.support.api_steps import upload
from tests.support.stack import Stack, wait_for
from trainkit.data import split_indices
from trainkit.spec.split import SplitSpec

ENDED = ("succeeded", "stopped", "failed")


def table(file: Path, columns: list[str], rows: list[Any]) -> Path:
    text = io.StringIO()
    csv.writer(text).writerows([columns, *rows])
    file.write_text(text.getvalue())
    return file


def submit(client: httpx.Client, kind: str, **plan: Any) -> str:
    answer = client.post("/v1/experiments", json={"kind": kind, **plan})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def ended(client: httpx.Client, experiment: str, seconds: float = 300) -> dict[str, Any]:
    def ask() -> dict[str, Any] | None:
        document = client.get(f"/v1/experiments/{experiment}").json()
        return document if document["state"] in ENDED else None

    return wait_for(ask, seconds=seconds, what=f"{experiment} to end")


def trials(client: httpx.Client, experiment: str) -> list[dict[str, Any]]:
    answer = client.get(f"/v1/experiments/{experiment}/results")
    assert answer.status_code == 200, answer.text
    return list(answer.json()["data"])


@pytest.mark.parametrize("stack", ["sqlite"], indirect=True)
def test_folds_of_linear_models_are_scikit_learn_s(stack: Stack, tmp_path: Path) -> None:
    iris, numbers = load_iris(), load_diabetes()
    names = iris.target_names[iris.target]
    flowers = [[*map(repr, map(float, x)), y] for x, y in zip(iris.data, names, strict=True)]
    sugar = [[*map(repr, map(float, x)), float(y)] for x, y in zip(numbers.data, numbers.target, strict=True)]
    split = {"train": 7, "validation": 1, "test": 2, "seed": 5}
    spec: dict[str, Any] = {
        "model": {"kind": "linear"},
        "preprocess": [{"kind": "z_score"}],
        "split": split,
        "optimizer": {"kind": "nesterov", "lr": 0.3, "momentum": 0.95},
        "train": {"epochs": 1500, "batch_size": 1000, "log_stats": "none", "log_every_steps": 1000},
    }
    spec["train"]["evaluate_every_epochs"] = 1500
    with stack.client() as client:
        first = upload(client, table(tmp_path / "iris.csv", [*"abcd", "label"], flowers), target="label")
        second = upload(client, table(tmp_path / "sugar.csv", [*"abcdefghij", "y"], sugar), target="y")
        softmax = {**spec, "dataset": first, "regularize": {"l2": 1.0}}
        slower = {**spec["optimizer"], "lr": 0.1}  # the squared error's curvature is twice the correlations' largest
        line = {**spec, "dataset": {"id": second, "target": "y"}, "task": "regression", "optimizer": slower}
        both = [submit(client, "kfold", folds=5, spec=softmax), submit(client, "kfold", folds=5, spec=line)]
        classes, regression = (ended(client, one) for one in both)
        assert classes["state"] == regression["state"] == "succeeded", (classes, regression)
        by_class, by_number = (trials(client, one) for one in both)

    # One test part, drawn by the seed alone; scikit-learn's folds of all the other rows, in their order.
    whole = SplitSpec(train=8, validation=0, test=2, seed=5)
    held = split_indices(whole, len(names), np.unique(names, return_inverse=True)[1]).test
    rest = np.setdiff1d(np.arange(len(names)), held)
    # l2 / 2n sum w^2 beside the mean loss is scikit-learn's C = 1 / l2
    reference = make_pipeline(StandardScaler(), LogisticRegression(C=1.0, tol=1e-10, max_iter=10_000))
    folds = StratifiedKFold(5, shuffle=True, random_state=5).split(rest, names[rest])
    expected: dict[str, list[float]] = {"val_accuracy": [], "test_accuracy": []}
    for row, (train, validation) in zip(by_class, folds, strict=True):
        reference.fit(iris.data[rest[train]], names[rest[train]])
        for part, rows in (("val", rest[validation]), ("test", held)):
            chances, score = reference.predict_proba(iris.data[rows]), reference.score(iris.data[rows], names[rows])
            assert row["metrics"][f"{part}_accuracy"] == pytest.approx(score, abs=1e-6)
            assert row["metrics"][f"{part}_loss"] == pytest.approx(log_loss(names[rows], chances), abs=2e-4)
            expected[f"{part}_accuracy"].append(score)
    assert [one["metric"] for one in classes["summaries"]] == ["val_accuracy", "test_accuracy"]
    for one in classes["summaries"]:
        values = expected[one["metric"]]
        assert one["mean"] == pytest.approx(np.mean(values))
        assert one["sd"] == pytest.approx(np.std(values, ddof=1))
        # a fold of 24 validates what 96 have trained; the test part is the same for all
        error = np.std(values, ddof=1) * np.sqrt(1 / 5 + (24 / 96 if one["metric"] == "val_accuracy" else 0))
        mean = np.mean(values)
        interval = (mean, mean)
        if error:
            interval = expit(student_t.interval(0.95, 4, logit(mean), error / (mean * (1 - mean))))
        assert (one["low"], one["high"]) == pytest.approx(interval)

    plain = LinearRegression()
    held = split_indices(whole, len(numbers.target)).test
    rest = np.setdiff1d(np.arange(len(numbers.target)), held)
    cuts = KFold(5, shuffle=True, random_state=5).split(rest)
    for row, (train, validation) in zip(by_number, cuts, strict=True):
        plain.fit(numbers.data[rest[train]], numbers.target[rest[train]])
        for part, rows in (("val", rest[validation]), ("test", held)):
            score = plain.score(numbers.data[rows], numbers.target[rows])
            assert row["metrics"][f"{part}_r2"] == pytest.approx(score, abs=2e-3)


SWEEP: dict[str, Any] = {
    "space": {"/optimizer/lr": {"low": 1e-4, "high": 0.3, "log": True}, "/model/hidden": [[8], [16], [32, 16]]},
    "trials": 6,
    "startup_trials": 2,
    "parallel": 2,
    "seed": 11,
}


@pytest.mark.parametrize("deaths", [(3,), pytest.param((3, 5), marks=pytest.mark.soak)], ids=["once", "twice"])
def test_a_sweep_that_is_killed_goes_on_with_the_identical_trials(
    fragile: Stack, data: Path, deaths: tuple[int, ...]
) -> None:
    spec = {
        "model": {"kind": "mlp"},
        "preprocess": [{"kind": "z_score"}],
        "train": {"epochs": 15, "checkpoint_seconds": 0},
        "split": {"seed": 2},
    }
    with fragile.client() as client:
        spec["dataset"] = upload(client, data / "cancer.csv", target="diagnosis")
        undisturbed = submit(client, "tpe", spec=spec, **SWEEP)
        assert ended(client, undisturbed)["state"] == "succeeded"
        expected = trials(client, undisturbed)
        assert len(expected) == SWEEP["trials"]

        disturbed = submit(client, "tpe", spec=spec, **SWEEP)
        for count in deaths:  # the worker with its training processes and with the planner
            wait_for(lambda count=count: len(trials(client, disturbed)) >= count, what=f"{count} trials")
            victims = fragile.descendants()
            fragile.kill("worker", signal.SIGKILL)
            for victim in victims:
                if victim.is_running() and victim.ppid() == 1:
                    victim.kill()
            fragile.start_worker("worker")
        experiment = ended(client, disturbed, seconds=400)
        assert experiment["state"] == "succeeded", experiment
        again = trials(client, disturbed)
        assert [row["params"] for row in again] == [row["params"] for row in expected]
        # resumed to the last bit, so the same values led to the same draws
        assert [row["value"] for row in again] == [row["value"] for row in expected]
        assert [row["number"] for row in again] == list(range(SWEEP["trials"]))

"""What each kind of experiment makes of its plan, over HTTP on both databases."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from service.metrics.chunks import MetricRow
from tests.support.api import Served
from tests.support.simulated_training import SPEC, by_lr, get, post, run_all, run_one, tick, waiting


def test_repeated_random_sub_sampling_draws_anew_beside_one_test_part_and_names_the_best(service: Served) -> None:
    dataset = service.ready_dataset()
    split = {"test": 3, "seed": 5}
    experiment = post(service, "monte_carlo", draws=3, spec={**SPEC, "dataset": dataset, "split": split})
    splits = [job["spec"]["split"] for job in waiting(service)]
    shares = {"train": 7.2, "validation": 1.8}  # 80 % of what is not test
    assert splits == [{**split, **shares, "resample_seed": seed} for seed in (5, 6, 7)]
    accuracy = [0.5, 0.9, 0.7]
    run_all(
        service,
        lambda spec: {
            "val": {"accuracy": accuracy[spec["split"]["resample_seed"] - 5]},
            "test": {"accuracy": 0.6 + spec["split"]["resample_seed"] / 100},
        },
    )
    ended = get(service, experiment["id"])
    assert (ended["best"]["number"], ended["best"]["chosen_by"]) == (1, "val_accuracy")
    assert ended["best"]["value"] == pytest.approx(0.66), "the chosen trial's figure on the common test part"
    means = {one["metric"]: one["mean"] for one in ended["summaries"]}
    assert means == {"val_accuracy": pytest.approx(0.7), "test_accuracy": pytest.approx(0.66)}
    with_test_part = {**SPEC, "dataset": dataset, "split": "8:1:1"}
    post(service, "monte_carlo", draws=2, spec=with_test_part)
    split_shares = {"train": 8.0, "validation": 1.0, "test": 1.0}
    assert [job["spec"]["split"] for job in waiting(service)] == [
        {**split_shares, "resample_seed": seed} for seed in (0, 1)
    ]


def test_a_grid_tries_every_combination_in_the_order_that_was_written(service: Served) -> None:
    space = {"/optimizer/lr": [0.1, 0.001, 1e-5], "/model/hidden": [[4], [4, 4]]}
    experiment = post(service, "grid", space=space, parallel=2)
    assert experiment["jobs"] == {"queued": 2}
    run_all(service, by_lr)
    rows = get(service, f"{experiment['id']}/results")["data"]
    expected = [(lr, hidden) for lr in space["/optimizer/lr"] for hidden in space["/model/hidden"]]
    assert [(row["params"]["/optimizer/lr"], row["params"]["/model/hidden"]) for row in rows] == expected
    ended = get(service, experiment["id"])
    assert (ended["state"], ended["metric"], ended["direction"]) == ("succeeded", "val_loss", "min")
    assert ended["best"]["number"] == 2
    assert ended["best"]["value"] == 0


def test_baselines_stand_beside_the_spec_and_need_no_model_to_be_the_best(service: Served) -> None:
    vectors = service.ready_dataset(kind="arrays", input_shape=[12], input_dtype="float32")
    experiment = post(service, "baselines", spec={**SPEC, "dataset": vectors})
    names = ["spec", "linear", "linear_svm", "small_mlp", "gradient_boosting", "rbf_svm"]
    assert [job["name"].rpartition(" ")[2] for job in waiting(service)] == names
    accuracy = {"mlp": 0.8, "gradient_boosting": 0.9}

    def measured(spec: dict[str, Any]) -> dict[str, dict[str, float]]:
        value = accuracy.get(spec["model"]["kind"], 0.5)
        return {"val": {"accuracy": value}, "test": {"accuracy": value - 0.05}}

    run_all(service, measured)
    ended = get(service, experiment["id"])
    rows = get(service, f"{experiment['id']}/results")["data"]
    assert [row["params"]["baseline"] for row in rows] == names
    assert (ended["state"], ended["metric"]) == ("succeeded", "test_accuracy")
    assert rows[ended["best"]["number"]]["params"] == {"baseline": "gradient_boosting"}


def train(service: Served, course: Callable[[dict[str, Any]], list[float]]) -> dict[str, Any] | None:
    """A worker trains the next job, and its validation loss goes that way."""
    if not waiting(service):
        return None
    claimed = service.claim()
    spec = dict(service.job(claimed.job_id)["spec"])
    losses = course(spec)
    for epoch, loss in enumerate(losses, start=1):
        values = {("train", "loss"): 0.9 * 0.8**epoch, ("val", "loss"): loss, ("val", "loss_se"): 0.01}
        service.append(
            claimed, *(MetricRow(split, name, 10 * epoch, epoch, v, 0.0) for (split, name), v in values.items())
        )
    parts = {"val": {"loss": min(losses)}, "test": {"loss": min(losses), "accuracy": 1 - min(losses) / 2}}
    service.finish(claimed, evaluation={"split": "test", "samples": 10, "metrics": {}, "parts": parts})
    return spec


def over_fitted(spec: dict[str, Any]) -> list[float]:
    """Over-fits unless the weights decay or units drop out."""
    tamed = bool(spec.get("regularize", {}).get("weight_decay")) or bool(spec["model"].get("dropout"))
    return [0.5, 0.4, 0.3, 0.2, 0.19, 0.18, 0.18, 0.18] if tamed else [0.5, 0.4, 0.3, 0.25, 0.35, 0.5, 0.7, 0.9]


def test_autopilot_applies_what_the_diagnosis_says_and_gives_an_account(service: Served) -> None:
    spec = {**SPEC, "dataset": service.ready_dataset(), "train": {"epochs": 8}}
    experiment = post(service, "autopilot", jobs=4, spec=spec)
    assert experiment["jobs"] == {"queued": 1}
    specs = []
    while (one := train(service, over_fitted)) is not None:
        specs.append(one)
        tick(service)
    results = get(service, f"{experiment['id']}/results")
    assert (results["state"], len(specs), len(results["data"])) == ("succeeded", 4, 4)
    assert {key: specs[0][key] for key in spec} == spec
    steps = results["steps"]
    assert steps[0]["verdicts"][0] == "overfitting"
    assert (steps[1]["kind"], steps[1]["code"], steps[1]["from"]) == ("recommendation", "overfitting", 0)
    assert all(step["text"] for step in steps)
    assert results["best"]["chosen_value"] == 0.18
    assert results["data"][1]["why"]["patch"] == steps[1]["patch"]
    assert get(service, experiment["id"])["reason"] == "the budget of jobs is spent"

    again = post(service, "autopilot", jobs=4, spec=spec)
    while (one := train(service, over_fitted)) is not None:
        tick(service)
    documents = [row["why"]["patch"] for row in get(service, f"{again['id']}/results")["data"]]
    assert documents == [row["why"]["patch"] for row in results["data"]]


def test_an_ensemble_trains_members_and_averages_those_that_have_a_model(service: Served) -> None:
    experiment = post(service, "ensemble", members=3)
    assert [job["spec"]["train"] for job in waiting(service)] == [{"seed": 0}, {"seed": 1}, {"seed": 2}]
    for member in range(3):
        run_one(service, (lambda spec: None) if member == 1 else by_lr)
    tick(service)
    (joined,) = waiting(service)
    rows = get(service, f"{experiment['id']}/results")["data"]
    assert joined["spec"]["model"]["members"] == [rows[0]["job"], rows[2]["job"]]
    run_all(service, lambda spec: {"val": {"loss": 0.01}, "test": {"loss": 0.02}})
    ended = get(service, experiment["id"])
    assert (ended["state"], ended["best"]["number"]) == ("succeeded", 3)

    grid = post(service, "grid", space={"/optimizer/lr": [0.1, 0.001, 0.01]})
    refused = post(service, "ensemble", experiment=grid["id"], status=422)
    assert refused["errors"][0]["code"] == "not_ended"
    run_all(service, by_lr)
    taken = post(service, "ensemble", experiment=grid["id"], members=2)
    rows = get(service, f"{grid['id']}/results")["data"]
    (joined,) = waiting(service)
    assert joined["spec"]["model"]["members"] == [rows[1]["job"], rows[2]["job"]]
    run_all(service, lambda spec: {"val": {"loss": 0.01}})
    assert get(service, taken["id"])["state"] == "succeeded"


def test_folds_become_an_ensemble_that_is_measured_on_their_common_test_part(service: Served) -> None:
    dataset = service.ready_dataset()
    folds = post(service, "kfold", folds=3, spec={**SPEC, "dataset": dataset})
    # the best by validation is the worst by test
    accuracy = [0.7, 0.9, 0.8]
    run_all(
        service,
        lambda spec: {
            "val": {"accuracy": accuracy[spec["split"]["fold"]], "loss": 1 - accuracy[spec["split"]["fold"]]},
            "test": {"accuracy": 1 - accuracy[spec["split"]["fold"]]},
        },
    )
    rows = get(service, f"{folds['id']}/results")["data"]
    experiment = post(service, "ensemble", experiment=folds["id"], members=2, metric="test_accuracy")
    (joined,) = waiting(service)
    assert joined["spec"]["model"]["members"] == [rows[1]["job"], rows[2]["job"]], "the test part chooses nothing"
    assert joined["spec"]["split"]["folds"] == 3, "so that its worker leaves validation out"
    run_all(service, lambda spec: {"test": {"accuracy": 0.95}})
    ended = get(service, experiment["id"])
    assert ended["state"] == "succeeded"
    assert ended["summaries"][0]["mean"] == 0.95

    without = post(service, "kfold", folds=2, spec={**SPEC, "dataset": dataset, "split": {"test": 0}})
    run_all(service, lambda spec: {"val": {"accuracy": 0.5, "loss": 0.5}})
    refused = post(service, "ensemble", experiment=without["id"], status=422)
    assert refused["errors"][0]["code"] == "no_test_part"

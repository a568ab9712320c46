"""Jobs that differ in seeds and folds alone, as groups: means, paired tests, and why there are none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.stats import ttest_rel

from service.jobs.replicates import replicate_key
from tests.support.api import Served
from tests.support.simulated_training import SPEC, by_fold, get, post, run_all

SQLITE = pytest.mark.parametrize("migrated_url", ["sqlite"], indirect=True)
SEEDS = range(4)


def accuracy(spec: dict[str, Any]) -> float:
    """As if a wider network were a little better, and seeds made a difference to both."""
    seed = spec["train"]["seed"]
    wider = spec["model"]["hidden"] != [8]
    return 0.8 + 0.02 * (seed % 3) + (0.03 + 0.004 * (-1) ** seed if wider else 0.0)


def by_seed(spec: dict[str, Any]) -> dict[str, dict[str, float]]:
    return {"val": {"accuracy": accuracy(spec), "loss": 1 - accuracy(spec)}, "test": {"accuracy": 0.7}}


def submit(service: Served, dataset: str, seed: int, hidden: int = 8, **changes: Any) -> str:
    spec = {
        **SPEC,
        "name": f"h{hidden}-{seed}",
        "dataset": dataset,
        "model": {"kind": "mlp", "hidden": [hidden]},
        "train": {"seed": seed, "epochs": 2},
        **changes,
    }
    answer = service.client.post("/v1/jobs", json=spec)
    assert answer.status_code in (201, 202), answer.text
    job: str = answer.json()["id"]
    return job


def compare(service: Served, jobs: list[str], status: int = 200, **query: Any) -> Any:
    params = {"jobs": ",".join(jobs), "metric": "val_accuracy", **query}
    answer = service.client.get("/v1/metrics/comparison", params=params)
    assert answer.status_code == status, answer.text
    return answer.json()


def test_seeds_are_pairs_and_the_test_is_scipys(service: Served) -> None:
    dataset = service.ready_dataset()
    narrow, wide = ([submit(service, dataset, seed, hidden) for seed in SEEDS] for hidden in (8, 16))
    run_all(service, by_seed)
    keys = {service.job(job)["replicate_key"] for job in narrow}
    assert len(keys) == 1
    rows = service.client.get("/v1/jobs", params={"fields": "id,replicate_key"}).json()["data"]
    assert {row["id"] for row in rows if row["replicate_key"] in keys} == set(narrow)

    found = compare(service, [*narrow, *wide])
    base, other = found["groups"]
    assert (found["baseline"], found["better"]) == (base["key"], "max")
    assert (base["name"], base["n"], base["comparison"], base["not_compared"]) == ("h8", 4, None, None)
    a, b = ([accuracy(service.job(job)["spec"]) for job in jobs] for jobs in (narrow, wide))
    assert (base["mean"], base["sd"]) == pytest.approx((np.mean(a), np.std(a, ddof=1)))
    test = ttest_rel(b, a)
    interval = test.confidence_interval(0.95)
    measured = other["comparison"]
    assert (measured["a"], measured["b"], measured["verdict"], measured["n"]) == ("h8", "h16", "better", 4)
    assert (measured["p"], measured["low"], measured["high"]) == pytest.approx((test.pvalue, *interval))
    assert measured["test_share"] is None, "one split: no training samples are shared between pairs of seeds"
    assert other["p_adjusted"] == measured["p"]

    # the other way round, and in another order, the same with the opposite sign
    turned = compare(service, [*wide[::-1], *narrow], baseline=narrow[2])
    assert [group["comparison"] for group in turned["groups"] if group["key"] == other["key"]] == [measured]
    opposite = compare(service, [*narrow, *wide], baseline=wide[0])["groups"][0]["comparison"]
    assert opposite["difference"] == pytest.approx(-measured["difference"])
    assert (opposite["verdict"], opposite["p"]) == ("worse", pytest.approx(measured["p"]))


def test_several_groups_have_p_values_that_hold_together(service: Served) -> None:
    dataset = service.ready_dataset()
    jobs = [submit(service, dataset, seed, hidden) for hidden in (8, 16, 32) for seed in SEEDS]
    run_all(service, by_seed)
    groups = compare(service, jobs)["groups"]
    p = [group["comparison"]["p"] for group in groups[1:]]
    assert p[0] == pytest.approx(p[1])
    assert [group["p_adjusted"] for group in groups] == [None, *(pytest.approx(2 * one) for one in p)]


def test_folds_are_compared_as_their_experiment_does(service: Served) -> None:
    wider = {"model": {"hidden": [16]}}
    experiment = post(service, "kfold", name="cv", folds=4, variants={"wide": wider}, parallel=100)
    run_all(service, by_fold)
    ended = get(service, experiment["id"])
    (expected,) = ended["comparisons"]
    trials = get(service, f"{experiment['id']}/results")["data"]
    found = compare(service, [trial["job"] for trial in trials])
    base, other = found["groups"]
    names = {"a", "b", "summary"}
    shown = {name: value for name, value in other["comparison"].items() if name not in names}
    assert shown == {name: value for name, value in expected.items() if name not in names}
    summary = next(one for one in ended["summaries"] if (one["variant"], one["metric"]) == ("base", "val_accuracy"))
    assert [base[name] for name in ("mean", "low", "high")] == [summary[name] for name in ("mean", "low", "high")]


@SQLITE
def test_without_pairs_it_says_why(service: Served) -> None:
    dataset, elsewhere = service.ready_dataset(), service.ready_dataset(name="elsewhere")
    base = [submit(service, dataset, seed) for seed in (0, 1)]
    other_seeds = [submit(service, dataset, seed, 16) for seed in (2, 3)]
    other_data = [submit(service, elsewhere, seed, 16) for seed in (0, 1)]
    one = submit(service, dataset, 0, 32)
    again = submit(service, dataset, 1)  # the same bits as base[1]: no further run
    run_all(service, by_seed)
    waits = submit(service, dataset, 1, 64)
    groups = compare(service, [*base, again, *other_seeds, *other_data, one, waits])["groups"]
    assert [group["n"] for group in groups] == [2, 2, 2, 1, 0]
    assert groups[0]["jobs"] == [*base, again]
    reasons = [group["not_compared"] for group in groups]
    assert "seed and the split" in reasons[1]
    assert "different datasets" in reasons[2]
    assert reasons[3] is None
    single = groups[3]["comparison"]
    assert (single["n"], single["p"], single["verdict"]) == (1, None, "cannot_tell")
    assert "cannot be tested" in single["summary"]
    assert "has ended with val_accuracy" in reasons[4]

    assert compare(service, base, 422, metric="val_nonsense")["code"] == "unknown_metric"
    assert compare(service, base, 422, baseline=one)["code"] == "bad_jobs"
    assert compare(service, [], 422)["code"] == "bad_jobs"
    assert compare(service, [*base, "job_none"], 404)["code"] == "not_found"


def test_only_seeds_folds_and_descriptions_are_left_out_of_the_key() -> None:
    spec = {"dataset": "ds_1", "model": {"kind": "mlp", "hidden": [8]}, "train": {"epochs": 3}, "split": {"train": 8.0}}
    same: list[dict[str, Any]] = [
        {"name": "another", "labels": {"a": "b"}, "group": "g", "notes": "n"},
        {"train": {"epochs": 3, "seed": 7}},
        {"split": {"train": 8.0, "seed": 7, "resample_seed": 3}},
    ]
    for changes in same:
        assert replicate_key({**spec, **changes}) == replicate_key(spec), changes
    folds = [{**spec, "split": {"folds": 3, "fold": fold}} for fold in range(3)]
    assert len({replicate_key(one) for one in folds}) == 1
    without_train = {name: value for name, value in spec.items() if name != "train"}
    assert replicate_key({**without_train, "train": {"seed": 5}}) == replicate_key(without_train)
    others: list[dict[str, Any]] = [
        {"dataset": "ds_2"},
        {"train": {"epochs": 4}},
        {"split": {"train": 9.0}},
        {"split": {"folds": 3, "fold": 0}},
        {"optimizer": {"kind": "adam", "lr": 0.1}},
    ]
    keys = [replicate_key({**spec, **changes}) for changes in [{}, *others]]
    assert len(set(keys)) == len(keys)

"""Experiments over HTTP on both databases; the jobs' training is played by functions of their specs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.special import expit, logit
from scipy.stats import t as student_t
from sqlalchemy import delete

from service.database import make_engine
from service.experiments import repository, scheduler
from service.experiments.tables import Experiment, Trial
from service.jobs.tables import Job
from tests.support.api import Served, error_of
from tests.support.simulated_training import SPEC, by_fold, by_lr, get, post, run_all, tick, waiting


def test_folds_are_jobs_and_their_figures_a_mean_with_an_interval(service: Served) -> None:
    experiment = post(service, "kfold", folds=5, name="cv", labels={"team": "vision"})
    assert (experiment["state"], experiment["metric"], experiment["jobs"]) == (
        "running",
        "test_accuracy",
        {"queued": 5},
    )
    jobs = waiting(service)
    folds = [{"folds": 5, "fold": fold, "resample_seed": 0} for fold in range(5)]
    assert [job["spec"]["split"] for job in jobs] == folds
    assert {job["group"] for job in jobs} == {experiment["id"]}
    assert jobs[2]["name"] == "cv: fold 2"
    assert jobs[2]["labels"] == {"team": "vision"}
    run_all(service, by_fold)
    ended = get(service, experiment["id"])
    values = [0.8, 0.81, 0.82, 0.83, 0.84]
    validation, test = ended["summaries"]
    assert ended["state"] == "succeeded"
    assert (validation["metric"], test["metric"]) == ("val_accuracy", "test_accuracy")
    # of 1000 samples 100 are test; a fold of the others is 180, and 720 train on mostly the same samples
    cases = ((test, np.array(values), None), (validation, np.array(values) + 0.02, 180 / 720))
    for summary, measured, share in cases:
        mean, sd = np.mean(measured), np.std(measured, ddof=1)
        error = sd * np.sqrt(1 / 5 + (share or 0))
        assert summary["mean"] == pytest.approx(mean)
        assert summary["sd"] == pytest.approx(sd)
        assert (summary["se"], summary["test_share"]) == pytest.approx((error, share))
        interval = student_t.interval(0.95, 4, logit(mean), error / (mean * (1 - mean)))
        assert (summary["low"], summary["high"]) == pytest.approx(expit(interval))
        assert summary["models"] == "one_per_trial"
    assert ended["best"]["number"] == 4  # by the validation part
    rows = get(service, f"{experiment['id']}/results")["data"]
    assert [row["value"] for row in rows] == pytest.approx(values)
    assert [row["params"] for row in rows] == [{"fold": fold} for fold in range(5)]
    other = get(service, f"{experiment['id']}/results?metric=test_loss")
    assert [row["value"] for row in other["data"]] == pytest.approx([1 - value for value in values])
    get(service, f"{experiment['id']}/results?metric=test_nonsense", 422)


def test_variants_are_compared_in_pairs_and_so_are_experiments_on_the_same_cuts(service: Served) -> None:
    wider = {"model": {"hidden": [16]}}
    experiment = post(service, "kfold", folds=4, variants={"wide": wider}, parallel=100)
    run_all(service, by_fold)
    ended = get(service, experiment["id"])
    (found,) = ended["comparisons"]
    assert (found["a"], found["b"], found["verdict"], found["n"]) == ("base", "wide", "better", 4)
    assert found["difference"] == pytest.approx(0.05)
    assert found["metric"] == "val_accuracy", "on one common test part the pairs would share its chance"
    # of 1000 samples 100 are test; a fold of the others is 225, and 675 train
    assert found["test_share"] == pytest.approx(225 / 675)
    summarized = [(line["variant"], line["metric"]) for line in ended["summaries"]]
    assert summarized == [(one, metric) for one in ("base", "wide") for metric in ("val_accuracy", "test_accuracy")]

    spec = experiment["plan"]["spec"]
    again = post(service, "kfold", folds=4, spec={**spec, "model": {"kind": "mlp", "hidden": [16]}}, parallel=100)
    run_all(service, by_fold)
    between = get(service, f"{experiment['id']}/comparison?with={again['id']}")
    assert (between["verdict"], between["n"]) == ("better", 4)
    assert between["difference"] == pytest.approx(found["difference"])
    other_cut = post(service, "kfold", folds=3, spec=spec, parallel=100)
    assert "differently" in get(service, f"{experiment['id']}/comparison?with={other_cut['id']}", 409)["detail"]


def test_without_a_test_part_folds_report_their_validation_parts(service: Served) -> None:
    spec = {**SPEC, "dataset": service.ready_dataset(), "split": {"test": 0}}
    experiment = post(service, "kfold", folds=3, spec=spec)
    assert experiment["metric"] == "val_accuracy"
    run_all(service, lambda spec: {"val": by_fold(spec)["val"]})
    (summary,) = get(service, experiment["id"])["summaries"]
    assert (summary["metric"], summary["n"]) == ("val_accuracy", 3)


SPACE = {
    "/optimizer/lr": {"low": 1e-5, "high": 1.0, "log": True},
    "/model/hidden": [[4], [8, 8]],
    "/train/epochs": {"low": 1, "high": 9, "type": "int"},
}


def drawn(service: Served, experiment: str) -> list[dict[str, Any]]:
    return [row["params"] for row in get(service, f"{experiment}/results")["data"]]


def test_a_sweep_goes_on_with_the_same_trials_whatever_dies_and_whichever_ends_first(service: Served) -> None:
    dataset = service.ready_dataset()
    plan = {"space": SPACE, "trials": 14, "startup_trials": 4, "seed": 7, "spec": {**SPEC, "dataset": dataset}}
    first = post(service, "tpe", **plan)
    assert first["jobs"] == {}  # the API draws nothing: housekeeping does
    tick(service)
    run_all(service, by_lr)
    expected = drawn(service, first["id"])
    assert len(expected) == 14
    assert len({str(params) for params in expected}) == 14

    second = post(service, "tpe", **plan)
    tick(service)
    random = np.random.default_rng(3)
    while get(service, second["id"])["state"] == "running":
        # jobs end in another order, ticks come when they come
        held = [service.claim() for _ in waiting(service)]
        for claimed in random.permutation(np.arange(len(held))):
            spec = service.job(held[claimed].job_id)["spec"]
            parts = by_lr(spec)
            service.finish(held[claimed], evaluation={"split": "test", "samples": 1, "metrics": {}, "parts": parts})
            if random.random() < 0.5:
                tick(service)
        tick(service)
    assert drawn(service, second["id"]) == expected


def test_a_planner_that_dies_in_the_midst_of_a_step_leaves_nothing_half_done(
    service: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = post(service, "random", space=SPACE, trials=6, parallel=3, seed=1)

    class Killed(BaseException):
        pass

    for place in ("experiment_after_job", "experiment_after_trial"):

        def die(name: str, place: str = place) -> None:
            if name == place:
                raise Killed

        with monkeypatch.context() as patched:
            patched.setattr(scheduler, "fp", die)
            with pytest.raises(Killed):
                tick(service)
        assert waiting(service) == []
        assert drawn(service, experiment["id"]) == []
    tick(service)
    assert len(waiting(service)) == 3
    tick(service)
    assert len(waiting(service)) == 3
    run_all(service, by_lr)
    twin = post(service, "random", space=SPACE, trials=6, parallel=1, seed=1, spec=experiment["plan"]["spec"])
    tick(service)
    run_all(service, by_lr)
    assert drawn(service, twin["id"]) == drawn(service, experiment["id"])  # independent draws do not hang on `parallel`


def test_a_trial_that_fails_or_is_refused_is_counted_and_the_others_go_on(service: Served) -> None:
    space = {"/optimizer/lr": [0.1, 0.001]}
    experiment = post(service, "grid", space=space)
    run_all(service, lambda spec: None if spec["optimizer"]["lr"] == 0.1 else by_lr(spec))
    ended = get(service, experiment["id"])
    assert (ended["state"], ended["jobs"]) == ("succeeded", {"failed": 1, "succeeded": 1})
    rows = get(service, f"{experiment['id']}/results")["data"]
    error = rows[0]["error"]
    assert (error["code"], error["message"], error["layer"]) == ("loss_not_finite", "it diverged", "spec")
    assert rows[0]["value"] is None

    # neither value is wrong by itself, both together are
    both = {"/model": [{"kind": "mlp"}, {"kind": "cnn"}], "/preprocess": [[], [{"kind": "pca", "components": 4}]]}
    experiment = post(service, "grid", space=both)
    run_all(service, lambda spec: {"val": {"loss": 0.5}})
    ended = get(service, experiment["id"])
    assert ended["jobs"] == {"succeeded": 3, "refused": 1}, ended
    refused = [row for row in get(service, f"{experiment['id']}/results")["data"] if row["state"] == "refused"]
    assert refused[0]["error"]["evidence"]["errors"][0]["pointer"] == "/preprocess"

    experiment = post(service, "grid", space=space)
    run_all(service, lambda spec: None)
    ended = get(service, experiment["id"])
    assert (ended["state"], ended["error"]["code"]) == ("failed", "no_trial_succeeded")


@pytest.mark.parametrize(("running", "ends"), [("stop", "stopping"), ("cancel", "running"), ("finish", "running")])
def test_a_stop_of_the_whole(service: Served, running: str, ends: str) -> None:
    experiment = post(service, "grid", space={"/optimizer/lr": [0.1, 0.01, 0.001, 1e-4]}, parallel=2)
    claimed = service.claim()
    stopped = service.client.post(f"/v1/experiments/{experiment['id']}/stop", json={"running": running})
    assert (stopped.status_code, stopped.json()["state"]) == (200, "stopping")
    job = service.job(claimed.job_id)
    assert job["state"] == ends
    assert waiting(service) == []  # the one that waited has been cancelled
    tick(service)
    assert get(service, experiment["id"])["state"] == "stopping"
    service.finish(claimed, evaluation={"split": "val", "samples": 1, "metrics": {}, "parts": {"val": {"loss": 1.0}}})
    tick(service)
    ended = get(service, experiment["id"])
    assert (ended["state"], sum(ended["jobs"].values())) == ("stopped", 2)
    again = service.client.post(f"/v1/experiments/{experiment['id']}/stop")
    assert again.json()["state"] == "stopped"


def test_it_waits_for_its_dataset_and_says_when_that_is_of_no_use(service: Served) -> None:
    answer = service.client.put("/v1/datasets?name=late", content=b"late bytes")
    experiment = post(service, "kfold", folds=3, spec={**SPEC, "dataset": answer.json()["id"]})
    assert (experiment["state"], experiment["metric"], waiting(service)) == ("waiting", None, [])
    tick(service)
    assert get(service, experiment["id"])["state"] == "waiting"
    from service.datasets import intake

    with service.sessions.begin() as session:
        claimed = intake.claim(session, "tests", 30)
        assert claimed is not None
        intake.invalid(session, claimed.claim, error_of("x", "nothing in it"), {})
    tick(service)
    ended = get(service, experiment["id"])
    assert (ended["state"], ended["error"]["code"]) == ("failed", "invalid_dataset")


@pytest.mark.parametrize(
    ("plan", "pointer", "code"),
    [
        ({"kind": "kfolds"}, "/kind", "unknown_kind"),
        ({"kind": "kfold", "folds": 1}, "/folds", "greater_than_equal"),
        ({"kind": "kfold", "spec": {"group": "mine"}}, "/spec/group", "set_by_the_service"),
        ({"kind": "kfold", "spec": {"optimizer": {"kind": "adan"}}}, "/spec/optimizer/kind", "unknown_kind"),
        ({"kind": "kfold", "metric": "test_mse"}, "/metric", "not_measured"),
        ({"kind": "kfold", "variants": {"b": {"model": {"kind": "lstm"}}}}, "/variants/b", "needs_sequence"),
        ({"kind": "kfold", "variants": {"b": {"split": {"seed": 1}}}}, "/variants/b", "different_rows"),
        ({"kind": "monte_carlo", "variants": {"b": {"split": "6:2:2"}}}, "/variants/b", "different_rows"),
        ({"kind": "kfold", "variants": {"b": {"split": {"seed": -1}}}}, "/variants/b", "greater_than_equal"),
        ({"kind": "monte_carlo", "spec": {"split": "8:2"}}, "/spec/split/validation", "no_validation"),
        ({"kind": "grid", "space": {"/model/hiden": [1]}}, "/space/~1model~1hiden", "unknown_field"),
        ({"kind": "grid", "space": {"/augment/0/p": [1]}}, "/space/~1augment~10~1p", "no_such_place"),
        ({"kind": "tpe", "space": {"/optimizer/lr": {"low": -1, "high": 1}}}, "/space/~1optimizer~1lr", "greater_than"),
        ({"kind": "random", "space": {"/optimizer/lr": [0.1]}, "metric": "test_loss"}, "", "invalid_value"),
        (
            {"kind": "grid", "space": {"/train/seed": list(range(40)), "/split/seed": list(range(40))}},
            "",
            "too_many_jobs",
        ),
        ({"kind": "asha", "space": {"/optimizer/lr": [0.1]}, "spec": {"split": "8:2"}}, "/spec/split", "no_validation"),
        ({"kind": "ensemble"}, "", "invalid_value"),
        ({"kind": "ensemble", "experiment": "exp_nothere"}, "/experiment", "unknown_experiment"),
    ],
)
def test_what_is_wrong_is_told_at_once_and_nothing_is_made(
    service: Served, plan: dict[str, Any], pointer: str, code: str
) -> None:
    if plan["kind"] != "ensemble":
        plan = {**plan, "spec": {**SPEC, "dataset": service.ready_dataset(), **plan.get("spec", {})}}
    answer = service.client.post("/v1/experiments", json=plan)
    assert answer.status_code == 422, answer.text
    found = {(error["pointer"], error["code"]) for error in answer.json()["errors"]}
    assert (pointer, code) in found
    assert waiting(service) == []
    assert service.client.get("/v1/experiments").json()["data"] == []


def test_a_full_queue_holds_a_plan_up_and_loses_nothing(service: Served) -> None:
    object.__setattr__(service.context.settings, "max_queued_jobs", 2)
    experiment = post(service, "kfold", folds=5)
    assert experiment["jobs"] == {"queued": 2}
    run_all(service, by_fold)
    assert get(service, experiment["id"])["jobs"] == {"succeeded": 5}


def test_housekeeping_looks_at_those_alone_that_have_something_to_do(service: Served) -> None:
    experiment = post(service, "grid", space={"/optimizer/lr": [0.1, 0.01, 0.001]}, parallel=2)
    tick(service)

    def due() -> bool:
        with service.sessions() as session:
            return experiment["id"] in [row.id for row in repository.due(session)]

    assert not due()
    claimed = service.claim()
    assert not due()
    service.finish(claimed)
    assert due()
    tick(service)
    assert not due()
    run_all(service, by_lr)
    assert get(service, experiment["id"])["state"] == "succeeded"


def test_jobs_may_go_and_what_they_showed_stays(service: Served) -> None:
    experiment = post(service, "kfold", folds=2)
    run_all(service, by_fold)
    before = get(service, experiment["id"])
    for row in get(service, f"{experiment['id']}/results")["data"]:
        assert service.client.delete(f"/v1/jobs/{row['job']}").status_code == 204
    tick(service)
    assert get(service, experiment["id"]) == before
    assert service.client.delete(f"/v1/experiments/{experiment['id']}").status_code == 204
    get(service, experiment["id"], 404)


def test_a_job_that_goes_before_its_end_was_seen_is_said_to_be_deleted(service: Served) -> None:
    experiment = post(service, "kfold", folds=2)
    with service.sessions.begin() as session:
        session.execute(delete(Job).where(Job.id == waiting(service)[0]["id"]))
    run_all(service, by_fold)
    tick(service)
    ended = get(service, experiment["id"])
    assert (ended["state"], ended["jobs"]) == ("succeeded", {"deleted": 1, "succeeded": 1})


def test_whose_it_is_the_same_request_twice_and_lists(service: Served) -> None:
    dataset = service.ready_dataset()
    plan = {"kind": "kfold", "folds": 2, "spec": {**SPEC, "dataset": dataset}}
    first = service.client.post("/v1/experiments", json=plan, headers={"Idempotency-Key": "k"})
    again = service.client.post("/v1/experiments", json=plan, headers={"Idempotency-Key": "k"})
    assert again.headers["Idempotency-Replayed"] == "true"
    assert first.json()["id"] == again.json()["id"]
    other = service.client.post("/v1/experiments", json={**plan, "folds": 3}, headers={"Idempotency-Key": "k"})
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_mismatch")
    as_job = service.client.post("/v1/jobs", json=plan["spec"], headers={"Idempotency-Key": "k"})
    assert as_job.json()["code"] == "idempotency_mismatch"
    stranger = service.client_for("other")
    path = f"/v1/experiments/{first.json()['id']}"
    for answer in (
        stranger.get(path),
        stranger.get(f"{path}/results"),
        stranger.post(f"{path}/stop"),
        stranger.delete(path),
    ):
        assert answer.status_code == 404
    assert stranger.get("/v1/experiments").json()["data"] == []
    listed = service.client.get("/v1/experiments?kind=kfold&state=running").json()
    assert [one["id"] for one in listed["data"]] == [first.json()["id"]]
    assert service.client.delete(path).status_code == 409


def test_a_plan_that_cannot_be_read_any_more_ends_and_holds_nobody_up(service: Served) -> None:
    broken, sound = post(service, "kfold", folds=2), post(service, "kfold", folds=2)
    with make_engine(service.context.settings.database_url).begin() as connection:
        from sqlalchemy import update

        from service.experiments.tables import Experiment

        changed = update(Experiment).where(Experiment.id == broken["id"]).values(plan={"kind": "no such kind"})
        connection.execute(changed)
    run_all(service, by_fold)
    assert get(service, sound["id"])["state"] == "succeeded"
    with service.sessions() as session:
        row = session.get_one(scheduler.Experiment, broken["id"])
        assert (row.state, (row.error or {})["code"]) == ("failed", "internal_error")
        assert session.query(Trial).filter_by(experiment_id=broken["id"]).count() == 2


def test_an_experiment_whose_plan_is_not_valid_any_more_can_be_read(service: Served) -> None:
    experiment = post(service, "grid", space={"/optimizer/lr": [0.1, 0.2]}, metric="val_accuracy")
    run_all(service, by_lr)
    before, table = get(service, experiment["id"]), get(service, f"{experiment['id']}/results")
    assert before["plan_error"] is None
    with service.sessions.begin() as session:
        row = session.get_one(Experiment, experiment["id"])
        row.plan = {**row.plan, "no_such_field": 1}
    after = get(service, experiment["id"])
    assert after["plan_error"].startswith("This version of the service cannot carry out the plan: ")
    assert "no_such_field" in after["plan_error"]
    same = ("state", "reason", "jobs", "metric", "best", "summaries")
    assert {name: after[name] for name in same} == {name: before[name] for name in same}
    assert get(service, f"{experiment['id']}/results")["data"] == table["data"]
    get(service, f"{experiment['id']}/comparison?with={experiment['id']}", 409)
    assert service.client.get("/v1/experiments").json()["data"][0]["id"] == experiment["id"]


def test_an_open_experiment_whose_plan_is_not_valid_any_more_ends_and_says_why(service: Served) -> None:
    experiment = post(service, "random", space={"/optimizer/lr": {"low": 0.1, "high": 0.2}}, trials=3, parallel=1)
    with service.sessions.begin() as session:
        row = session.get_one(Experiment, experiment["id"])
        row.plan = {**row.plan, "no_such_field": 1}
    tick(service)
    ended = get(service, experiment["id"])
    assert ended["state"] == "failed"
    assert "no_such_field" in ended["error"]["message"]

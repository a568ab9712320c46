"""Probes: the run's bits stay the same, their own are those of plain torch and of a run of their own; wishes, resumes."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import trainkit as tk
from tests.support.fit_data import images, numbers, sequences, spec, vectors
from tests.support.resume import CASES, InterruptAt, digest, rows
from trainkit.fit import sanity_checks
from trainkit.fit.loop.nonfinite import LossNotFiniteError
from trainkit.nn.build import build_model
from trainkit.nn.network import count_parameters
from trainkit.spec import JobSpec, resolve
from trainkit.spec.checks.training import why_sanity_check_skipped
from trainkit.spec.models import smaller_model
from trainkit.spec.problems import SpecError

BOTH = ["first_batch", "small_model"]


def probing(document: dict[str, Any], *checks: str) -> dict[str, Any]:
    return {**document, "train": {**document["train"], "sanity_checks": checks or BOTH}}


def fit_with_events(document: dict[str, Any], data: Any, **options: Any) -> tuple[tk.FitResult, list[dict[str, Any]]]:
    events: list[dict[str, Any]] = []
    return tk.fit(document, data, on_event=events.append, **options), events


def series(events: list[dict[str, Any]], name: str, split: str = "sanity_check") -> dict[int, float]:
    found = [
        (e["step"], v) for e in events if e["type"] == "metrics" for s, n, v in e["rows"] if (s, n) == (split, name)
    ]
    assert len(found) == len(dict(found)), f"{name} is told twice at a step"
    return dict(found)


@pytest.mark.parametrize("name", CASES)
def test_the_run_does_not_notice(name: str) -> None:
    make, document = CASES[name]
    without, events = fit_with_events(document, make())
    beside, more = fit_with_events(probing(document), make())
    assert digest(without.model) == digest(beside.model)
    assert {key: value for key, value in rows(more).items() if key[1] != "sanity_check"} == rows(events)
    assert series(more, "first_batch_loss")
    assert series(more, "small_model_loss") or any("smaller" in e.get("message", "") for e in more)


def test_the_first_batch_is_plain_torch() -> None:
    """The fresh network, the batch that the first epoch begins with, the spec's optimizer: a loop by hand."""
    document = spec({"kind": "mlp", "hidden": [16]}, optimizer={"kind": "sgd", "lr": 0.05}, early_stop=[])
    document["regularize"] = {"l2": 3.0, "weight_decay": 0.1, "max_norm": 1.0}
    seen: dict[str, Any] = {}
    data = vectors()

    def watch(job: Any, rows_of: Any) -> None:
        order = job.data.draw[sanity_checks.epoch_order(len(job.data.draw), 0, 1)][:16]
        seen.update(network=copy.deepcopy(job.network), x=job.data.train.x[order], y=job.data.train.targets[order])
        return original(job, rows_of)

    original, sanity_checks.SANITY_CHECKS["first_batch"] = sanity_checks.SANITY_CHECKS["first_batch"], watch
    try:
        _, events = fit_with_events(probing(document, "first_batch"), data)
    finally:
        sanity_checks.SANITY_CHECKS["first_batch"] = original
    network, losses, right = seen["network"].train(), {}, {}
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05)
    found, accuracy = series(events, "first_batch_loss"), series(events, "first_batch_accuracy")
    for step in range(max(found) + 1):
        z = network(seen["x"])
        loss = nn.functional.cross_entropy(z, seen["y"])
        losses[step], right[step] = loss.item(), (z.argmax(1) == seen["y"]).float().mean().item()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert found == pytest.approx({step: losses[step] for step in found}, rel=1e-5)
    assert accuracy == pytest.approx({step: right[step] for step in accuracy})
    assert series(events, "first_batch_samples") == {max(found): 16.0}
    assert list(accuracy.values())[-1] >= 0.99 or max(found) == 200


@pytest.mark.parametrize(
    ("data", "model", "least"),
    [
        (images, {"kind": "cnn", "channels": [16, 16], "dropout": 0.5, "spatial_dropout": 0.5}, 0.99),
        (sequences, {"kind": "lstm", "hidden": 24, "layers": 2, "dropout": 0.6}, 0.99),
        (numbers, {"kind": "mlp", "hidden": [64], "dropout": 0.5}, 0.9),
    ],
    ids=["cnn", "lstm", "numbers"],
)
def test_a_sound_network_learns_a_batch_by_heart_dropout_or_not(data: Any, model: Any, least: float) -> None:
    _, events = fit_with_events(probing(spec(model, train={"epochs": 1}), "first_batch"), data())
    learnt = series(events, "first_batch_r2" if data is numbers else "first_batch_accuracy")
    assert list(learnt.values())[-1] >= least
    assert list(learnt.values())[-1] > next(iter(learnt.values()))


@pytest.mark.parametrize("name", ["mlp with dropout and noise", "cnn with batch norm", "lstm"])
def test_the_small_model_is_a_run_of_its_own(name: str) -> None:
    """Its rows are the training rows of a job with that model and Adam, to the last bit."""
    make, document = CASES[name]
    wide = {"mlp": {"hidden": [200, 100]}, "cnn": {"channels": [40, 40]}, "lstm": {"hidden": 64, "layers": 2}}
    model = {"kind": document["model"]["kind"], **wide[document["model"]["kind"]]}
    changed = {**document, "model": model, "train": {**document["train"], "epochs": 5}}
    _, events = fit_with_events(probing(changed, "small_model"), make())
    small = smaller_model(JobSpec.model_validate(changed).model)
    assert small is not None
    small_spec = {
        "model": small.model_dump(mode="json"),
        "optimizer": {"kind": "adam"},
        "schedule": {"kind": "constant"},
    }
    plain = {**changed, **small_spec, "regularize": {}, "early_stop": []}
    plain["train"] = {**plain["train"], "clip_norm": None, "evaluate_every_epochs": 1}
    _, alone = fit_with_events(plain, make())
    for metric in ("loss", "accuracy"):
        assert series(events, f"small_model_{metric}") == series(alone, metric, "train")
    (size,) = series(events, "small_model_parameters").values()
    assert size == next(e["parameters"] for e in alone if e["type"] == "runtime")


def test_an_epoch_longer_than_the_bound_is_cut_into_quarters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sanity_checks, "MOST", 9)
    document = spec({"kind": "mlp", "hidden": [200, 100]}, train={"batch_size": 4, "epochs": 1})
    _, events = fit_with_events(probing(document, "small_model"), vectors())
    assert list(series(events, "small_model_loss")) == [2, 4, 6, 8]


@pytest.mark.parametrize(
    "model",
    [
        {"kind": "mlp", "hidden": [500, 500]},
        {"kind": "mlp", "hidden": [4, 4, 4]},
        {"kind": "cnn"},
        {"kind": "residual_cnn"},
        {"kind": "lstm"},
        {"kind": "gru", "bidirectional": True, "layers": 3},
        {"kind": "torchvision"},
    ],
)
def test_smaller_is_smaller(model: dict[str, Any]) -> None:
    whole = JobSpec.model_validate({"dataset": "d", "model": model}).model
    small = smaller_model(whole)
    assert small is not None
    shape = {"mlp": (64,), "lstm": (9, 4), "gru": (9, 4)}.get(model["kind"], (3, 32, 32))
    sizes = [count_parameters(build_model(one, shape, 10, 0))[0] for one in (small, whole)]
    assert sizes[0] < sizes[1]
    assert count_parameters(build_model(small, shape, 10, 0))[0] > 0


@pytest.mark.parametrize("model", [{"kind": "linear"}, {"kind": "linear_svm"}, {"kind": "mlp", "hidden": [8]}])
def test_what_makes_no_sense_is_left_out_and_said_so(model: dict[str, Any]) -> None:
    document = probing(spec(model, train={"epochs": 1}), "small_model")
    resolved = resolve(document, vectors().facts)
    assert [(w.pointer, w.code) for w in resolved.warnings if "sanity_check" in w.code] == [
        ("/train/sanity_checks/0", "sanity_check_skipped")
    ]
    _, events = fit_with_events(document, vectors())
    assert series(events, "small_model_loss") == {}
    assert [e["message"] for e in events if e.get("message", "").startswith("sanity check small_model is left out")]


def test_reasons() -> None:
    def reason(probe: Any, **fields: Any) -> str | None:
        return why_sanity_check_skipped(
            JobSpec.model_validate({"dataset": "d", "model": {"kind": "cnn"}, **fields}), probe
        )

    assert reason("small_model") is reason("first_batch", start_from={"model": "mdl_1"}) is None
    assert "trained weights" in str(reason("small_model", start_from={"model": "mdl_1"}))
    assert "adaptation" in str(reason("small_model", adapt={"target_dataset": "ds_2"}))
    members = {"kind": "ensemble", "members": ["mdl_1", "mdl_2"]}
    for model in (members, {"kind": "rbf_svm"}):
        assert "not trained" in str(reason("first_batch", model=model))


@pytest.mark.parametrize("wrong", [["first"], ["first_batch", "first_batch"], "first_batch"])
def test_refused(wrong: Any) -> None:
    with pytest.raises(SpecError) as refused:
        resolve({**spec({"kind": "mlp"}), "train": {"sanity_checks": wrong}}, vectors().facts)
    assert refused.value.problems[0].pointer.startswith("/train/sanity_checks")


@pytest.mark.parametrize("steps", [5, 205])
def test_a_wish_puts_a_probe_off_until_the_resume(tmp_path: Path, steps: int) -> None:
    """Cut in the first or in the second probe: no row of that one; after the resume all rows, each once, the same bits."""
    document = probing(spec({"kind": "mlp", "hidden": [64, 32]}, optimizer={"kind": "sgd", "lr": 1e-5}))
    whole, all_rows = fit_with_events(document, vectors())
    part, before = fit_with_events(document, vectors(), control=InterruptAt(steps), workdir=tmp_path)
    done = steps > 200
    assert part.outcome == "handed_back"
    assert bool(series(before, "first_batch_loss")) is done
    assert series(before, "small_model_loss") == {}
    assert list(series(before, "loss", "train")) == []
    rest, after = fit_with_events(document, vectors(), resume_from=part.checkpoint)
    assert digest(rest.model) == digest(whole.model)
    assert rows(before + after) == rows(all_rows)
    for name in ("first_batch_loss", "small_model_loss"):
        series(before + after, name)


def test_a_probe_in_the_log_is_not_run_again(tmp_path: Path) -> None:
    document = probing(spec({"kind": "mlp", "hidden": [64, 32]}))
    alone = fit_with_events(document, vectors())[1]
    probe_steps = max(series(alone, "first_batch_loss")) + max(series(alone, "small_model_loss"))
    part, before = fit_with_events(document, vectors(), control=InterruptAt(probe_steps + 4), workdir=tmp_path)
    assert part.checkpoint is not None
    assert series(before, "small_model_loss") == series(alone, "small_model_loss")
    _, after = fit_with_events(document, vectors(), resume_from=part.checkpoint)
    assert [event for event in after if event["type"] == "phase" and "sanity check" in event["phase"]] == []
    assert rows(before + after) == rows(alone)
    # a job that is resumed may ask for more of them: nothing of the training depends on it
    part, _ = fit_with_events(
        probing(document, "first_batch"), vectors(), control=InterruptAt(probe_steps), workdir=tmp_path / "b"
    )
    _, later = fit_with_events(document, vectors(), resume_from=part.checkpoint)
    assert series(later, "first_batch_loss") == {}
    assert series(later, "small_model_loss") == series(alone, "small_model_loss")


def test_time_is_bounded_by_a_share_of_the_limit() -> None:
    document = probing(spec({"kind": "mlp", "hidden": [64, 32]}, optimizer={"kind": "sgd", "lr": 1e-9}), "first_batch")
    _, events = fit_with_events({**document, "resources": {"max_seconds": 1e-3}}, vectors())
    assert series(events, "first_batch_loss") == {}
    assert any("a tenth of max_seconds" in event.get("message", "") for event in events)


def test_a_loss_that_is_not_finite_ends_the_probe() -> None:
    document = spec({"kind": "mlp", "hidden": [64, 32]}, optimizer={"kind": "sgd", "lr": 900.0}, early_stop=[])
    data = numbers()
    events: list[dict[str, Any]] = []
    with pytest.raises(LossNotFiniteError):
        tk.fit(probing(document, "first_batch"), data, on_event=events.append)
    losses = list(series(events, "first_batch_loss").values())
    assert not torch.isfinite(torch.tensor(losses[-1]))
    assert len(losses) < 20

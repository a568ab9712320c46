"""What a run does to its weights and its data, against torch, scikit-learn and hand-written loops."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from torch import nn

import trainkit as tk
from tests.support.fit_data import spec, vectors
from trainkit.data import Dataset, split_indices
from trainkit.fit.encoding.prepare import prepare
from trainkit.fit.seeding import derive, epoch_order
from trainkit.nn import build_model
from trainkit.spec import JobSpec, resolve


def bare_loop(document: dict[str, Any], data: Dataset, change: Any) -> nn.Module:
    """SGD at 0.5 over the same batches; `change` gets the parameters between backward and step."""
    resolved = resolve(JobSpec.model_validate(document), data.facts).spec
    prepared = prepare(resolved, data, torch.device("cpu"), lambda _: None)
    network = build_model(resolved.model, (6,), 3, derive(0, "init"))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.5)
    for epoch in (1, 2, 3):
        order = epoch_order(len(prepared.draw), 0, epoch)
        for start in range(0, len(order), 16):
            rows = order[start : start + 16]
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(prepared.train.x[rows]), prepared.train.targets[rows]).backward()
            change(list(network.parameters()))
            optimizer.step()
    return network


@pytest.mark.parametrize(
    ("option", "change"),
    [
        ({"clip_norm": 0.05}, lambda parameters: nn.utils.clip_grad_norm_(parameters, 0.05)),
        ({"clip_value": 0.01}, lambda parameters: nn.utils.clip_grad_value_(parameters, 0.01)),
    ],
    ids=["norm", "value"],
)
def test_clipping_is_torchs_over_all_parameters_at_once(option: dict[str, float], change: Any) -> None:
    data = vectors()
    document = spec(
        {"kind": "mlp", "hidden": [8]}, optimizer={"kind": "sgd", "lr": 0.5}, split="1:0:0", train=option, early_stop=[]
    )
    expected, free = bare_loop(document, data, change), bare_loop(document, data, lambda _: None)
    got = tk.fit(document, data).model.network
    for clipped, reference, other in zip(got.parameters(), expected.parameters(), free.parameters(), strict=True):
        torch.testing.assert_close(clipped, reference)
        assert not torch.allclose(clipped, other), "the bound is one that bites"


def test_max_norm_holds_after_the_last_step() -> None:
    document = spec({"kind": "mlp", "hidden": [8]}, optimizer={"kind": "sgd", "lr": 1.0}, regularize={"max_norm": 0.7})
    network = tk.fit(document, vectors()).model.network
    norms = [m.weight.detach().norm(dim=1) for m in network.modules() if isinstance(m, nn.Linear)]
    assert all(bool((norm <= 0.7 + 1e-6).all()) for norm in norms)
    assert any(bool((norm > 0.69).any()) for norm in norms), "some unit lies on the ball"


def test_the_svm_reaches_the_objective_of_scikit_learn() -> None:
    """n times our loss is 1/C times theirs: sum of hinges + (l2/2) |W|^2 with l2 = 1/C."""
    data = vectors(90, d=3)
    x, y = np.asarray(data.inputs.values, np.float64), data.targets
    l2 = 4.0
    document = spec(
        {"kind": "linear_svm"},
        regularize={"l2": l2},
        split="1:0:0",
        optimizer={"kind": "adam", "lr": 0.05},
        schedule={"kind": "cosine"},
        train={"epochs": 400, "batch_size": 90},
    )
    head = tk.fit(document, data).model.network.head.output
    # their bias is a penalised weight of a constant input; a large constant takes the penalty away
    svm = LinearSVC(C=1 / l2, multi_class="crammer_singer", intercept_scaling=100, max_iter=200_000, tol=1e-6).fit(x, y)

    def objective(w: np.ndarray, b: np.ndarray) -> float:
        z = x @ w.T + b
        target_score = z[np.arange(90), y]
        rival = np.where(np.eye(3, dtype=bool)[y], -np.inf, z).max(axis=1)
        return float(np.maximum(0, 1 + rival - target_score).sum() + l2 / 2 * (w**2).sum())

    ours = objective(head.weight.detach().double().numpy(), head.bias.detach().double().numpy())
    assert ours == pytest.approx(objective(svm.coef_, svm.intercept_), rel=0.01)


@pytest.mark.parametrize("balance", ["none", "oversample", "undersample", "class_weights"])
def test_nothing_is_fitted_or_balanced_outside_the_training_part(balance: str) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(200, 4)), (np.arange(200) % 5 == 0).astype(np.int64)
    document = spec(
        {"kind": "linear"}, preprocess=[{"kind": "z_score"}, {"kind": "pca"}], balance=balance, split="6:2:2"
    )
    resolved = resolve(JobSpec.model_validate(document), Dataset.from_arrays(x, y).facts).spec
    parts = split_indices(resolved.split, 200, y)
    prepared = prepare(resolved, Dataset.from_arrays(x, y), torch.device("cpu"), lambda _: None)
    scaler = StandardScaler().fit(x[parts.train])
    fitted = prepared.preprocessing.pipeline.fitted
    np.testing.assert_allclose(fitted[0].shift, scaler.mean_, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(1 / fitted[0].scale, scaler.scale_, rtol=1e-5)
    assert prepared.val.truth.tolist() == y[parts.validation].tolist()
    assert prepared.test.truth.tolist() == y[parts.test].tolist()
    drawn = np.bincount(y[parts.train][prepared.draw.numpy()])
    assert drawn.tolist() == {"oversample": [96, 96], "undersample": [24, 24]}.get(balance, [96, 24])
    wild = x.copy()
    wild[np.concatenate([parts.validation, parts.test])] = 1e6  # what is held out must not be looked at
    other = prepare(resolved, Dataset.from_arrays(wild, y), torch.device("cpu"), lambda _: None)
    assert torch.equal(prepared.train.x, other.train.x)


def test_regression_targets_are_scaled_by_the_training_part_alone() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(100, 2)), rng.normal(size=100) * 7 + 50
    spec_ = resolve(JobSpec.model_validate(spec({"kind": "linear"})), Dataset.from_arrays(x, y).facts).spec
    train = split_indices(spec_.split, 100).train
    scaler = prepare(spec_, Dataset.from_arrays(x, y), torch.device("cpu"), lambda _: None).scaler
    reference = StandardScaler().fit(y[train, None])
    assert (scaler.shift[0], scaler.scale[0]) == pytest.approx((reference.mean_[0], reference.scale_[0]))

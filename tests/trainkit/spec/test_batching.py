"""Which specs may train as one, and what is said of those that may not."""

from __future__ import annotations

from typing import Any

import pytest

from trainkit.spec import DatasetFacts, JobSpec
from trainkit.spec.batching import MOST_BYTES, eligible

FACTS = DatasetFacts(kind="arrays", samples=200, input_shape=(6,), classes={"a": 100, "b": 100}, target_type="class")


def made(**fields: Any) -> JobSpec:
    return JobSpec.model_validate({"dataset": "ds_1", "model": {"kind": "mlp"}, **fields})


FREE: list[dict[str, Any]] = [
    {"name": "another", "labels": {"a": "b"}, "group": "exp"},
    {"split": {"seed": 3}},
    {"split": "6:2:2"},
    {"train": {"seed": 9, "epochs": 3, "evaluate_every_steps": 5, "log_stats": "none"}},
    {"optimizer": {"kind": "adam", "lr": 0.5}},
    {"regularize": {"l1": 1, "l2": 2, "weight_decay": 0.1, "max_norm": 3}},
    {"schedule": {"kind": "cosine"}},
    {"early_stop": [{"kind": "patience"}]},
    {"resources": {"max_seconds": 5, "priority": 3}},
]


@pytest.mark.parametrize("fields", FREE, ids=str)
def test_what_may_differ(fields: dict[str, Any]) -> None:
    assert eligible([made(), made(**fields)], FACTS) is None


BOUND: list[tuple[str, dict[str, Any]]] = [
    ("/dataset/id", {"dataset": "ds_2"}),
    ("/model/hidden", {"model": {"kind": "mlp", "hidden": [3]}}),
    ("/model/dropout", {"model": {"kind": "mlp", "dropout": 0.1}}),
    ("/optimizer/kind", {"optimizer": {"kind": "sgd"}}),
    ("/optimizer/betas", {"optimizer": {"kind": "adam", "betas": [0.8, 0.9]}}),
    ("/regularize/label_smoothing", {"regularize": {"label_smoothing": 0.1}}),
    ("/train/batch_size", {"train": {"batch_size": 5}}),
    ("/train/clip_norm", {"train": {"clip_norm": 1.0}}),
    ("/preprocess", {"preprocess": [{"kind": "z_score"}]}),
    ("/augment", {"augment": [{"kind": "noise", "std": 0.1}]}),
    ("/resources/device", {"resources": {"device": "cpu"}}),
    ("/loss", {"loss": {"kind": "mse"}}),
]


@pytest.mark.parametrize(("pointer", "fields"), BOUND, ids=lambda one: one if isinstance(one, str) else "")
def test_what_must_be_alike_is_named(pointer: str, fields: dict[str, Any]) -> None:
    reason = eligible([made(), made(), made(**fields)], FACTS)
    assert reason is not None
    assert (reason.trial, reason.pointer, reason.message) == (2, pointer, "it differs from trial 0")


ALONE: list[tuple[str, dict[str, Any]]] = [
    ("/model/kind", {"model": {"kind": "residual_cnn"}}),
    ("/model/kind", {"model": {"kind": "lstm"}}),
    ("/model/kind", {"model": {"kind": "ensemble", "members": ["mdl_1", "mdl_2"]}}),
    ("/model/init", {"model": {"kind": "mlp", "init": {"kind": "pretrained", "job": "job_1"}}}),
    ("/optimizer/kind", {"optimizer": {"kind": "muon"}}),
    ("/start_from", {"start_from": {"job": "job_1"}}),
    ("/adapt", {"adapt": {"target_dataset": "ds_2"}}),
    ("/train/gradient_accumulation_steps", {"train": {"gradient_accumulation_steps": 2}}),
    ("/train/precision", {"train": {"precision": "bfloat16"}}),
    ("/train/compile", {"train": {"compile": True}}),
    ("/train/sanity_checks", {"train": {"sanity_checks": ["first_batch"]}}),
]


@pytest.mark.parametrize(("pointer", "fields"), ALONE, ids=lambda one: one if isinstance(one, str) else "")
def test_what_trains_alone_says_why(pointer: str, fields: dict[str, Any]) -> None:
    reason = eligible([made(**fields)] * 2, FACTS)
    assert reason is not None
    assert (reason.trial, reason.pointer) == (0, pointer)
    assert reason.message
    assert pointer in str(reason)


def test_a_spec_that_cannot_be_trained_at_all_is_named() -> None:
    reason = eligible([made(), made(train={"monitor": "val_mse"})], FACTS)
    assert reason is not None
    assert (reason.trial, reason.pointer) == (1, "/train/monitor")


def test_trials_that_would_not_fit_into_memory_together_are_refused() -> None:
    assert eligible([made(train={"seed": k}) for k in range(100)], FACTS) is None
    large = FACTS.model_copy(update={"samples": 500_000, "input_shape": (784,)})
    assert eligible([made()] * 2, large) is None
    reason = eligible([made(train={"seed": k}) for k in range(30)], large)
    assert reason is not None
    assert f"more than {MOST_BYTES / 2**30:.0f}" in reason.message
    assert eligible([], FACTS) is None

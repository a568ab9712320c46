"""Which specs may train as one, and what is said of those that may not."""

from __future__ import annotations

from typing import Any

import pytest

from trainkit.fit.batched.eligibility import MOST_BYTES, eligible
from trainkit.spec import DatasetFacts, ResolvedSpec, resolve

FACTS = DatasetFacts(kind="arrays", samples=200, input_shape=(6,), classes={"a": 100, "b": 100}, target_type="class")


IMAGES = FACTS.model_copy(update={"input_shape": (1, 8, 8)})
SEQUENCES = FACTS.model_copy(update={"kind": "sequences", "input_shape": (9, 2), "lengths": (9, 9)})


def resolved(facts: DatasetFacts = FACTS, **fields: Any) -> ResolvedSpec:
    return resolve({"dataset": "ds_1", "model": {"kind": "mlp"}, **fields}, facts)


FREE: list[dict[str, Any]] = [
    {"name": "another", "labels": {"a": "b"}, "group": "exp"},
    {"split": {"seed": 3}},
    {"split": "6:2:2"},
    {"train": {"seed": 9, "epochs": 3, "evaluate_every_steps": 5, "log_stats": "none"}},
    {"model": {"kind": "mlp", "init": {"kind": "zeros"}}},
    {"optimizer": {"kind": "adam", "lr": 0.5}},
    {"regularize": {"l1": 1, "l2": 2, "weight_decay": 0.1, "max_norm": 3}},
    {"schedule": {"kind": "cosine"}},
    {"early_stop": [{"kind": "patience"}]},
    {"resources": {"max_seconds": 5, "priority": 3}},
]


@pytest.mark.parametrize("fields", FREE, ids=str)
def test_what_may_differ(fields: dict[str, Any]) -> None:
    assert eligible([resolved(), resolved(**fields)], FACTS) is None


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
    ("/loss/kind", {"loss": {"kind": "mse"}}),
]


@pytest.mark.parametrize(("pointer", "fields"), BOUND, ids=lambda one: one if isinstance(one, str) else "")
def test_what_must_be_alike_is_named(pointer: str, fields: dict[str, Any]) -> None:
    reason = eligible([resolved(), resolved(), resolved(**fields)], FACTS)
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
    facts = {"residual_cnn": IMAGES, "lstm": SEQUENCES}.get(fields.get("model", {}).get("kind"), FACTS)
    reason = eligible([resolved(facts, **fields)] * 2, facts)
    assert reason is not None
    assert (reason.trial, reason.pointer) == (0, pointer)
    assert reason.message
    assert pointer in str(reason)


def test_trials_that_would_not_fit_into_memory_together_are_refused() -> None:
    assert eligible([resolved(train={"seed": k}) for k in range(100)], FACTS) is None
    large = FACTS.model_copy(update={"samples": 500_000, "input_shape": (784,)})
    assert eligible([resolved(large)] * 2, large) is None
    reason = eligible([resolved(large, train={"seed": k}) for k in range(30)], large)
    assert reason is not None
    assert f"more than {MOST_BYTES / 2**30:.0f}" in reason.message
    assert eligible([], FACTS) is None

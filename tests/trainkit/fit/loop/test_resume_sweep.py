"""Six kinds of model, interrupted at thirty random steps each and resumed: the same bits as undisturbed."""

from __future__ import annotations

import random
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

import trainkit as tk
from tests.support.fit_data import images, numbers, sequences, spec, vectors
from tests.support.resume import InterruptAt, decisions, digest, history, rows

RUNS, INTERRUPTIONS = 5, 6
"""Each run is interrupted several times: a state that one resume spoils stays spoilt to the end of the run."""


def short() -> Any:
    return sequences(64, shortest=2, longest=5)


def small() -> Any:
    return images(80, side=6)


PHASES = [{"epochs": 3, "lr": 0.02}, {"epochs": 3, "unfreeze": 1, "lr": 0.01}, {"epochs": 4, "unfreeze": "all"}]
CASES: dict[str, tuple[Any, dict[str, Any]]] = {
    "svm on re-balanced classes with one-cycle": (
        vectors,
        spec(
            {"kind": "linear_svm"},
            balance="oversample",
            optimizer={"kind": "ema_momentum", "lr": 0.1},
            schedule={"kind": "one_cycle"},
            regularize={"l1": 0.5, "l2": 0.5},
            train={"epochs": 8, "gradient_accumulation_steps": 2, "batch_size": 5, "evaluate_every_steps": 7},
        ),
    ),
    "regression, mlp with dropout and max-norm": (
        numbers,
        spec(
            {"kind": "mlp", "hidden": [10, 8], "dropout": 0.3, "input_dropout": 0.1},
            optimizer={"kind": "rmsprop", "lr": 0.01},
            schedule={"kind": "reduce_on_plateau", "patience": 1, "factor": 0.5},
            regularize={"max_norm": 1.0, "l1": 0.1},
            early_stop=[{"kind": "patience", "patience": 5, "min_delta": 0.001}, {"kind": "gap", "patience": 4}],
            train={"epochs": 6},
        ),
    ),
    "cnn with batch norm, augmentation and mixup, accumulating": (
        small,
        spec(
            {"kind": "cnn", "channels": [3, 4], "spatial_dropout": 0.2, "block_dropout": 0.2},
            optimizer={"kind": "adam", "lr": 0.01},
            schedule={"kind": "cosine", "warmup_epochs": 1},
            augment=[{"kind": "rotate", "degrees": 10}, {"kind": "mixup", "alpha": 0.4}],
            balance="class_weights",
            train={
                "epochs": 6,
                "batch_size": 5,
                "gradient_accumulation_steps": 2,
                "clip_norm": 1.0,
                "log_every_steps": 3,
            },
        ),
    ),
    "residual cnn, fine-tuned in phases": (
        small,
        spec(
            {"kind": "residual_cnn", "channels": [3, 4], "dropout": 0.2},
            start_from={"model": "mdl_1", "freeze": "body", "phases": PHASES},
            optimizer={"kind": "adam"},
            schedule={"kind": "step", "every_epochs": 2, "gamma": 0.5},
            early_stop=[{"kind": "patience", "patience": 9}, {"kind": "diverged"}],
        ),
    ),
    "lstm, stopped early": (
        short,
        spec(
            {"kind": "lstm", "hidden": 4, "layers": 2, "dropout": 0.2},
            optimizer={"kind": "nesterov", "lr": 0.1},
            schedule={"kind": "exponential"},
            early_stop=[{"kind": "target", "monitor": "val_loss", "value": 0.4}, {"kind": "no_progress"}],
            train={"epochs": 30, "clip_value": 0.1, "batch_size": 8, "gradient_accumulation_steps": 2},
        ),
    ),
    "epochs of fewer steps than a pass, weights by hand": (
        vectors,
        spec(
            {"kind": "mlp", "hidden": [8], "dropout": 0.3},
            balance={"0": 1, "1": 2.5, "2": 0.5},
            schedule={"kind": "cosine"},
            train={"epochs": 15, "steps_per_epoch": 4},
        ),
    ),
    "epochs of more steps than a pass": (
        vectors,
        spec(
            {"kind": "mlp", "hidden": [8], "norm": "batch"},
            optimizer={"kind": "sgd", "lr": 0.05, "momentum": 0.9},
            regularize={"l1": 0.5},
            train={"epochs": 6, "steps_per_epoch": 10, "batch_size": 19, "evaluate_every_steps": 4},
        ),
    ),
    "gru": (
        short,
        spec(
            {"kind": "gru", "hidden": 4, "bidirectional": True, "pooling": "mean", "dropout": 0.2},
            optimizer={"kind": "lion", "lr": 0.003},
            augment=[{"kind": "noise", "std": 0.05}],
            regularize={"weight_decay": 0.01},
            train={"epochs": 9, "evaluate_every_epochs": 2},
        ),
    ),
}


@cache
def source() -> Any:
    return tk.fit(spec({"kind": "residual_cnn", "channels": [3, 4]}, train={"epochs": 1}), images()).model


@pytest.mark.parametrize("case", CASES)
def test_resumed_at_any_step_equals_uninterrupted(case: str, tmp_path: Path) -> None:
    make, document = CASES[case]
    options: dict[str, Any] = {"source": source()} if "start_from" in document else {}
    data, whole = make(), []
    expected = tk.fit(document, data, on_event=whole.append, **options)
    total = max(event["step"] for event in whole if event["type"] == "metrics")
    chooser = random.Random(case)
    chosen = chooser.sample(range(1, total), RUNS * INTERRUPTIONS)
    for run in range(RUNS):
        steps = sorted(chosen[run::RUNS])
        events: list[dict[str, Any]] = []
        checkpoint = None
        for begin, end in pairwise((0, *steps)):
            control = InterruptAt(end - begin, chooser.choice(["pause", "hand_back"]))
            workdir = tmp_path / f"{run}-{end}"
            part = tk.fit(
                document,
                data,
                on_event=events.append,
                control=control,
                workdir=workdir,
                resume_from=checkpoint,
                **options,
            )
            assert part.outcome in ("paused", "handed_back")
            assert part.checkpoint is not None
            checkpoint = part.checkpoint
            torch.rand(chooser.randrange(5))  # what happens between attempts must not matter
        result = tk.fit(document, data, on_event=events.append, resume_from=checkpoint, **options)
        assert digest(result.model) == digest(expected.model), steps
        assert rows(events) == rows(whole), steps
        assert decisions(events) == decisions(whole), steps
        assert history(result) == history(expected), steps
        assert result.evaluation == expected.evaluation, steps
        assert (result.stop_reason, result.best_epoch) == (expected.stop_reason, expected.best_epoch)
    if "early" in case:
        assert expected.stop_reason == "target_reached", "the rule is one that stops"

"""What tests of interrupted and resumed runs share: cases, a control that interrupts, and what must be equal."""

from __future__ import annotations

import hashlib
from typing import Any

import trainkit as tk
from tests.support.fit_data import images, sequences, spec, vectors
from tests.support.image_tables import MODEL, image_table
from tests.support.metric_rows import is_clocked

CASES: dict[str, tuple[Any, dict[str, Any]]] = {
    "mlp with dropout and noise": (
        vectors,
        spec(
            {"kind": "mlp", "hidden": [12, 8], "dropout": 0.3},
            augment=[{"kind": "noise", "std": 0.1}],
            optimizer={"kind": "adam"},
            schedule={"kind": "cosine", "warmup_epochs": 1},
            regularize={"l2": 0.5, "max_norm": 2.0},
            early_stop=[{"kind": "patience", "monitor": "val_accuracy", "patience": 2}, {"kind": "diverged"}],
        ),
    ),
    "cnn with batch norm": (
        images,
        spec(
            {"kind": "cnn", "channels": [4, 6], "spatial_dropout": 0.2},
            optimizer={"kind": "ema_momentum", "lr": 0.1},
            preprocess=[{"kind": "zero_mean"}],
            augment=[{"kind": "rotate", "degrees": 10}],
            train={"batch_size": 11, "clip_norm": 1.0},
        ),
    ),
    "lstm": (
        sequences,
        spec(
            {"kind": "lstm", "hidden": 6, "layers": 2, "dropout": 0.2},
            optimizer={"kind": "rmsprop"},
            schedule={"kind": "reduce_on_plateau", "patience": 1},
            train={"evaluate_every_epochs": 2},
        ),
    ),
    "images and columns": (
        image_table,
        spec(
            {**MODEL, "columns": {"kind": "mlp", "hidden": [8], "dropout": 0.3, "norm": "batch"}, "dropout": 0.2},
            preprocess=[{"kind": "zero_mean"}],
            augment=[{"kind": "rotate", "degrees": 10}],
            train={"batch_size": 11},
        ),
    ),
    "evaluated between epochs": (
        vectors,
        spec(
            {"kind": "mlp", "hidden": [12], "dropout": 0.3, "norm": "batch"},
            schedule={"kind": "reduce_on_plateau", "patience": 1, "factor": 0.5},
            early_stop=[{"kind": "patience", "patience": 9}],
            train={"evaluate_every_steps": 4},
        ),
    ),
}


class InterruptAt:
    """Wishes a hand-back at the n-th question, that is after n steps of this attempt."""

    def __init__(self, steps: int, action: str = "hand_back") -> None:
        self.left = steps
        self.action = action

    def command(self) -> dict[str, Any] | None:
        self.left -= 1
        return {"action": self.action} if self.left == 0 else None


def digest(model: Any) -> str:
    sha = hashlib.sha256()
    for name, tensor in model.network.state_dict().items():
        sha.update(name.encode() + tensor.numpy().tobytes())
    return sha.hexdigest()


def rows(events: list[dict[str, Any]]) -> dict[tuple[int, str, str], str]:
    """(step, split, name) -> value, the last one told; times are no part of the promise."""
    values = {}
    for event in events:
        if event["type"] == "metrics":
            for split, name, value in event["rows"]:
                if not is_clocked(split, name):
                    values[event["step"], split, name] = repr(value)
    return values


def history(result: tk.FitResult) -> str:
    return repr([row for row in result.history if not is_clocked(row["split"], row["name"])])


def decisions(events: list[dict[str, Any]]) -> dict[tuple[int, str], str]:
    return {(e["step"], e["rule"]["kind"]): repr((e["inputs"], e["action"])) for e in events if e["type"] == "decision"}

"""Every kind of everything, with its JSON schema, defaults and one-line description, read off the spec models."""

from __future__ import annotations

from typing import Any, get_args

from pydantic import BaseModel

from trainkit.spec import (
    augment,
    early_stop,
    init,
    investigation,
    losses,
    models,
    optimizers,
    preprocess,
    schedules,
    split,
    training,
)
from trainkit.spec.experiments import KINDS
from trainkit.spec.failures import listing
from trainkit.spec.metrics import DIRECTIONS, METRIC_DESCRIPTIONS

SECTIONS: dict[str, Any] = {
    "preprocess": preprocess.PreprocessStep,
    "preprocess_columns": preprocess.PreprocessStep,
    "augment": augment.AugmentStep,
    "init": init.InitSpec,
    "model": models.ModelSpec,
    "loss": losses.LossSpec,
    "optimizer": optimizers.OptimizerSpec,
    "schedule": schedules.ScheduleSpec,
    "early_stop": early_stop.EarlyStopRule,
}
SINGLE_MODELS: dict[str, type[BaseModel]] = {
    "dataset": split.DatasetRef,
    "split": split.SplitSpec,
    "regularize": training.RegularizeSpec,
    "train": training.TrainSpec,
    "start_from": training.StartFrom,
    "adapt": training.Adapt,
    "resources": training.ResourcesSpec,
    "diagnose": investigation.DiagnoseSpec,
}
CHOICES: dict[str, dict[str, str]] = {
    "task": {
        "classification": "One of several classes for each sample.",
        "regression": "One or more numbers for each sample.",
        "sequence_classification": "One of several classes for each sequence, which may have any length.",
        "forecasting": "The values of a series `horizon` steps ahead, from windows of its past.",
    },
    "balance": {
        "none": "Every training sample once an epoch, all of weight 1.",
        "oversample": "Samples of rare classes repeat until every class has as many as the commonest; training part only.",
        "undersample": "Every class is cut to the size of the rarest; training part only.",
        "class_weights": "Class k has weight n / (K * count_k); a loss is sum(w*l) / sum(w).",
    },
    "activation": {
        "sigmoid": "1 / (1 + exp(-x)).",
        "tanh": "(exp(x) - exp(-x)) / (exp(x) + exp(-x)).",
        "relu": "max(x, 0).",
        "leaky_relu": "x for x > 0, else 0.01 x.",
        "elu": "x for x > 0, else exp(x) - 1.",
        "gelu": "x P(N(0, 1) <= x).",
        "silu": "x sigmoid(x).",
        "mish": "x tanh(log(1 + exp(x))).",
        "linear": "x itself.",
    },
    "norm": {
        "none": "No normalisation.",
        "batch": "Each channel over the batch, running means in evaluation; the layer before it has no bias.",
        "layer": "Each sample over all of its channels (and positions).",
        "group": "Each sample over groups of channels, 8 groups where they divide the channels.",
    },
    "head": {
        "global_average": "The mean of each channel over its positions, x.mean((2, 3)).",
        "flatten": "Every channel at every position.",
    },
    "sanity_check": {
        "first_batch": "At most 200 steps on one batch alone, with the run's optimizer: whether it learns that by heart.",
        "small_model": "A far smaller model on the first batches, at most 500: whether its training loss gets lower.",
    },
    "pool": {
        "max": "The largest of each 2 x 2 window.",
        "average": "The mean of each 2 x 2 window.",
        "none": "The image keeps its size.",
    },
    "sequence_pooling": {
        "last": "The state after the last true step.",
        "mean": "The mean of the states over the true steps.",
    },
    "target_scaling": {
        "auto": "z_score for regression, none for classes.",
        "none": "Numbers as they are.",
        "z_score": "(y - mean) / std of the training part; scaled back in metrics and predictions.",
        "min_max": "(y - min) / (max - min) of the training part; scaled back in metrics and predictions.",
    },
}
"""Section -> word -> its meaning."""
_SETTLE_HEAD = {"epochs": 5}
TRANSFER_ADVICE: dict[str, tuple[str, dict[str, object] | None]] = {
    "few_new_classes_same_data": ("Few new classes, same data: train the last layers only.", {"freeze": "body"}),
    "more_samples_of_the_same_kind": (
        "More samples of the same kind: a short run that opens the shallow layers.",
        {"freeze": "body", "phases": [_SETTLE_HEAD, {"epochs": 2, "unfreeze": {"first": 2}, "body_lr": 1e-4}]},
    ),
    "small_similar_set": (
        "Small similar set: settle the head, then open the deep layers.",
        {"freeze": "body", "phases": [_SETTLE_HEAD, {"epochs": 5, "unfreeze": 2, "body_lr": 1e-4}]},
    ),
    "very_large_set": (
        "Very large set: open the deep layers at a small rate.",
        {"freeze": "body", "phases": [_SETTLE_HEAD, {"epochs": 5, "unfreeze": 2, "body_lr": 1e-5}]},
    ),
    "very_different_data": ("Very different data: train from scratch, without `start_from`.", None),
}
"""Situation -> rule of thumb, and the fields of `start_from` that follow it."""


def kinds(section: Any) -> list[type[BaseModel]]:
    """The member models of a discriminated union, in the order they are declared."""
    return list(get_args(get_args(section)[0]))


def catalog() -> dict[str, Any]:
    """Section -> list of `{kind, description, default, schema}`; `default` is null where a field is required."""
    entries: dict[str, Any] = {
        name: [_entry(model, model.model_fields["kind"].default) for model in kinds(section)]
        for name, section in SECTIONS.items()
    }
    entries.update({name: [_entry(model, name)] for name, model in SINGLE_MODELS.items()})
    for section, choices in CHOICES.items():
        entries[section] = [
            {"kind": kind, "description": text, "default": kind, "schema": {"const": kind, "type": "string"}}
            for kind, text in choices.items()
        ]
    entries["transfer_advice"] = [
        {"kind": situation, "description": rule, "default": fields, "schema": {"type": "object"}}
        for situation, (rule, fields) in TRANSFER_ADVICE.items()
    ]
    entries["metric"] = [
        {
            "kind": name,
            "better": better,
            "description": METRIC_DESCRIPTIONS[name],
            "default": None,
            "schema": {"type": "number"},
        }
        for name, better in DIRECTIONS.items()
    ]
    entries["experiment"] = [_entry(model, kind) for kind, model in KINDS.items()]
    entries["failure"] = listing()
    return entries


def _entry(model: type[BaseModel], kind: str) -> dict[str, Any]:
    required = any(field.is_required() for field in model.model_fields.values())
    validated = None
    if not required:
        try:
            validated = model().model_dump(mode="json")
        except ValueError:  # a rule between fields asks for one of several, as in `pretrained`
            validated = None
    doc = (model.__doc__ or "").strip().splitlines()[0]
    return {"kind": kind, "description": doc, "default": validated, "schema": model.model_json_schema()}

"""Every kind of everything, with its JSON schema, defaults and one-line description, read off the spec models."""

from __future__ import annotations

from typing import Any, get_args

from pydantic import BaseModel

from trainkit.spec import augment, early_stop, init, losses, models, optimizers, preprocess, schedules, split, training
from trainkit.spec.descriptions import CHOICES, METRICS, TRANSFER_ADVICE
from trainkit.spec.experiments import KINDS
from trainkit.spec.failures import listing
from trainkit.spec.metrics import DIRECTIONS

SECTIONS: dict[str, Any] = {
    "preprocess": preprocess.PreprocessStep,
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
}


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
        {"kind": name, "better": better, "description": METRICS[name], "default": None, "schema": {"type": "number"}}
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

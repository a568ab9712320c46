"""Pictures of datasets, of augmentation and of a network's first activations. In the child: torch is loaded."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from trainkit.data import Dataset
from trainkit.plots.sheets import contact_sheet, dataset_preview, image_values, in_unit_range
from trainkit.spec import JobSpec
from trainkit.spec.checks.inputs import COLOUR_AUGMENT
from trainkit.spec.models import Ensemble, SklearnModel
from trainkit.spec.value_range import why_not_colour
from worker.request_input import BadInputError

PNG = "image/png"


def preview(prepared: Path, request: bytes, media_type: str, options: Mapping[str, Any]) -> tuple[bytes, str]:
    """A labelled contact sheet, or plots of the columns; of the named `samples` alone where there are some.

    Raises BadInputError for a position that the dataset does not have.
    """
    dataset, samples = Dataset.load(prepared), json.loads(request).get("samples")
    beyond = [position for position in samples or () if position >= dataset.facts.samples]
    if beyond:
        message = f"there is no sample {beyond[0]}: the dataset has {dataset.facts.samples} samples"
        raise BadInputError("no_such_sample", message, "/samples", "Positions count from 0.")
    return dataset_preview(dataset, samples), PNG


def augmentation_preview(
    prepared: Path, request: bytes, media_type: str, options: Mapping[str, Any]
) -> tuple[bytes, str]:
    """The sample itself and its variants under the given steps. Raises BadInputError for steps that do not fit it."""
    import torch

    from trainkit.augment import variants

    options = json.loads(request)
    dataset = Dataset.load(prepared)
    ranges = dataset.image_value_ranges()
    if options["index"] >= dataset.facts.samples:
        message = f"the dataset has {dataset.facts.samples} samples"
        raise BadInputError("no_such_sample", message, "/index", "Positions count from 0.")
    if ranges is None:
        message = f"the samples of a dataset of kind {dataset.facts.kind} are no images"
        raise BadInputError("no_images", message, "/", "Preview a dataset of images.")
    steps = options["augment"]
    if mixing := [i for i, step in enumerate(steps) if step["kind"] in ("mixup", "cutmix")]:
        hint = "Leave it out of the preview."
        raise BadInputError("needs_a_batch", "batch mixing needs several samples", f"/augment/{mixing[0]}", hint)
    if (no_colour := why_not_colour(len(ranges), ranges)) is not None:
        for position, step in enumerate(steps):
            if step["kind"] in COLOUR_AUGMENT:
                message = f"{step['kind']} needs colour images: {no_colour}"
                raise BadInputError("needs_colour", message, f"/augment/{position}", "Leave the step out.")
    original = np.moveaxis(image_values(dataset, np.array([options["index"]])), -1, 1)
    image = torch.from_numpy(original[0].copy())
    augmented = variants(image, steps, count=options["count"], seed=options["seed"], value_ranges=ranges)
    values = np.concatenate([original, augmented.numpy()])
    sheet = in_unit_range(np.moveaxis(values, 1, -1), ranges)
    names = ["original", *[""] * len(augmented)]
    kinds = ", ".join(step["kind"] for step in steps)
    return contact_sheet(sheet, names, columns=7, title=kinds, colour=no_colour is None), PNG


def init_report_of(prepared: Path, request: bytes, media_type: str, options: Mapping[str, Any]) -> tuple[bytes, str]:
    """Pre-activations and activations of every layer on one batch of the training part, as numbers or as a picture.

    Raises BadInputError for a model that has no layers.
    """
    from trainkit.fit.evaluation.init_report import init_report, init_report_png

    options = json.loads(request)
    spec = JobSpec.model_validate(options["spec"])
    if isinstance(spec.model, Ensemble | SklearnModel):
        hint = "Name an architecture, such as mlp."
        raise BadInputError("no_layers", f"{spec.model.kind} has no layers to look into", "/model/kind", hint)
    report = init_report(spec, Dataset.load(prepared))
    if options["format"] == "png":
        return init_report_png(report), PNG
    return json.dumps(report).encode(), "application/json"

"""Pictures of datasets, of augmentation and of a network's first activations. In the child: torch is loaded."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trainkit.data import ArrayInputs, Dataset, ImageInputs
from trainkit.plots.sheets import contact_sheet, dataset_preview
from trainkit.spec import JobSpec
from trainkit.spec.models import Ensemble, SklearnModel
from worker.predict import BadInputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

PNG = "image/png"


def preview(prepared: Path, request: bytes, media_type: str, options: Mapping[str, Any]) -> tuple[bytes, str]:
    """A labelled contact sheet, or plots of the columns."""
    return dataset_preview(Dataset.load(prepared)), PNG


def augmentation_preview(
    prepared: Path, request: bytes, media_type: str, options: Mapping[str, Any]
) -> tuple[bytes, str]:
    """The sample itself and its variants under the given steps. Raises BadInputError for steps that do not fit it."""
    import torch

    from trainkit.augment import variants

    options = json.loads(request)
    dataset = Dataset.load(prepared)
    inputs = dataset.inputs
    if options["index"] >= dataset.facts.samples:
        message = f"the dataset has {dataset.facts.samples} samples"
        raise BadInputError("no_such_sample", message, "/index", "Positions count from 0.")
    if isinstance(inputs, ImageInputs):
        pixels: NDArray[Any] = np.asarray(inputs.pixels[options["index"]], np.float32) / 255
    elif isinstance(inputs, ArrayInputs) and inputs.values.ndim in (3, 4):
        values = np.asarray(inputs.values[options["index"]], np.float32)
        values = values[None] if values.ndim == 2 else values
        pixels = np.moveaxis(values / max(1.0, float(values.max())), 0, -1)
    else:
        message = f"the samples of a dataset of kind {dataset.facts.kind} are no images"
        raise BadInputError("no_images", message, "/", "Preview a dataset of images.")
    steps = options["augment"]
    if mixing := [i for i, step in enumerate(steps) if step["kind"] in ("mixup", "cutmix")]:
        hint = "Leave it out of the preview."
        raise BadInputError("needs_a_batch", "batch mixing needs several samples", f"/augment/{mixing[0]}", hint)
    image = torch.from_numpy(np.moveaxis(pixels, -1, 0).copy())
    try:
        augmented = variants(image, steps, count=options["count"], seed=options["seed"])
    except ValueError as error:
        raise BadInputError("does_not_fit", str(error), "/augment", "Leave colour steps out for grey images.") from None
    sheet = torch.cat([image[None], augmented]).permute(0, 2, 3, 1).numpy()
    names = ["original", *[""] * len(augmented)]
    kinds = ", ".join(step["kind"] for step in steps)
    return contact_sheet(sheet, names, columns=7, title=kinds), PNG


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

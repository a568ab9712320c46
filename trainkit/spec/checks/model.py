"""What a spec may not ask of its model."""

from __future__ import annotations

from collections.abc import Iterator

from trainkit.spec.checks.context import CheckContext
from trainkit.spec.checks.sklearn_models import sklearn_problems
from trainkit.spec.models import (
    ModelSpec,
    image_model,
    is_sklearn_model,
)
from trainkit.spec.problems import Problem

IMAGE_MODELS = ("cnn", "residual_cnn", "torchvision", "multimodal")
WITH_BATCH_NORM = (
    *("resn", "wide_resn", "densenet", "efficientnet", "googlenet", "inception", "maxvit", "mnasnet", "mobilenet"),
    *("regnet", "shufflenet"),
)
"""Beginnings of the names of torchvision's architectures with batch norm; the vgg ones end in _bn."""
RECURRENT_MODELS = ("lstm", "gru")
FLAT_MODELS = ("mlp", "linear", "linear_svm", "gradient_boosting", "rbf_svm")


def model_problems(context: CheckContext) -> Iterator[Problem]:
    """Yield what is wrong with the model for such samples."""
    kind, sample = context.spec.model.kind, context.sample
    if kind in IMAGE_MODELS and sample.form != "image":
        yield Problem(
            "/model/kind", "needs_image", f"{kind} reads images, the samples are {sample.form}s", "Use an mlp."
        )
    torchvision = getattr(image_model(context.spec.model), "kind", None) == "torchvision"
    if torchvision and sample.form == "image" and sample.shape[0] not in (1, 3):
        message = f"torchvision's networks read grey or RGB images, these have {sample.shape[0]} channels"
        yield Problem("/model/kind", "needs_colour", message, "Use a cnn or residual_cnn, which read any channels.")
    if kind in RECURRENT_MODELS and sample.form != "sequence":
        yield Problem(
            "/model/kind",
            "needs_sequence",
            f"{kind} reads sequences (T, F), the samples are {sample.form}s",
            "Upload with kind=sequences, or use an mlp.",
        )
    if sample.form == "sequence" and kind in FLAT_MODELS:
        lengths = context.facts.lengths
        if lengths is not None and lengths[0] != lengths[1]:
            yield Problem(
                "/model/kind",
                "needs_equal_lengths",
                f"{kind} needs equal lengths, these run from {lengths[0]} to {lengths[1]}",
                "Use an lstm or gru.",
            )
    if is_sklearn_model(context.spec.model):
        yield from sklearn_problems(context.spec, context.training_samples)
        return
    if kind == "linear_svm" and not context.classification:
        yield Problem("/model/kind", "needs_classes", "the SVM separates classes", "Use linear for regression.")
    if context.spec.adapt is not None and kind == "multimodal":
        message = "domain adaptation is not there for models of images and columns"
        yield Problem("/adapt", "not_with_columns", message, "Remove it, or use the image alone: a cnn.")
    if context.spec.adapt is not None and (not context.classification or kind == "ensemble"):
        yield Problem("/adapt", "needs_classes", "domain adaptation is for classification models", "Remove it.")
    if context.spec.adapt is not None and context.spec.train.gradient_accumulation_steps > 1:
        hint = "Use 1, and a smaller `train.batch_size`."
        yield Problem(
            "/train/gradient_accumulation_steps", "not_with_adapt", "domain adaptation takes whole batches", hint
        )


def single_sample_problems(context: CheckContext) -> Iterator[Problem]:
    """Batch norm of one value: its variance is 0, and PyTorch refuses it. A last batch of one joins the one before."""
    spec = context.spec
    frozen = spec.start_from is not None and spec.start_from.freeze == "body" and not spec.start_from.phases
    if frozen or min(spec.train.batch_size, context.training_samples) > 1 or not _norms_one_value(context):
        return
    where = "/train/batch_size" if spec.train.batch_size == 1 else "/split/train"
    yield Problem(
        where,
        "batch_norm_of_one",
        "batch norm needs at least 2 samples in a batch, and the training batches have 1",
        "Use a `train.batch_size` of 2 or more; where the model has a `norm`, layer and group take single samples.",
    )


def _norms_one_value(context: CheckContext) -> bool:
    """Whether a batch norm of the model sees one value a channel in a batch of one sample."""
    model, sample = context.spec.model, context.sample
    side = min(sample.shape[-2:]) if sample.form == "image" else 1
    if model.kind == "multimodal":
        return _norms_one(model.image, side) or _norms_one(model.columns, side)
    return _norms_one(model, side)


def _norms_one(model: ModelSpec, side: int) -> bool:
    match model.kind:
        case "mlp":
            return model.norm == "batch" and bool(model.hidden)
        case "cnn":
            return model.norm == "batch" and (
                side == 1 or (model.pool != "none" and side >> len(model.channels) - 1 <= 1)
            )
        case "residual_cnn":
            return model.norm == "batch" and side <= 1 << len(model.channels) - 1
        case "torchvision":
            return bool(model.name.startswith(WITH_BATCH_NORM) or model.name.endswith("_bn"))
    return False

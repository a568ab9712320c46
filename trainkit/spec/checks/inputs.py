"""What a spec may not ask of preprocessing and augmentation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from trainkit.spec.checks.context import CheckContext
from trainkit.spec.checks.model import IMAGE_MODELS
from trainkit.spec.facts import (
    Sample,
)
from trainkit.spec.preprocess import PreprocessStep
from trainkit.spec.problems import Problem
from trainkit.spec.value_range import why_not_colour

ANY_SAMPLE_AUGMENT = ("noise", "mixup")
COLOUR_AUGMENT = ("saturation", "hue")
SOFT_TARGET_LOSSES = ("cross_entropy", "binary_cross_entropy", "mse", "focal")


def preprocess_problems(context: CheckContext) -> Iterator[Problem]:
    """Yield what is wrong with the steps before the model, of images and of columns."""
    spec, sample = context.spec, context.sample
    if sample.columns:
        columns = replace(context, sample=Sample("vector", (sample.columns,)))
        yield from _step_problems(columns, "preprocess_columns", spec.preprocess_columns or (), imputes=True)
    image = replace(context, sample=Sample(sample.form, sample.shape))
    yield from _step_problems(image, "preprocess", spec.preprocess or (), imputes=context.facts.kind == "table")


def _step_problems(
    context: CheckContext, field: str, steps: Sequence[PreprocessStep], *, imputes: bool
) -> Iterator[Problem]:
    """The steps of one input. `imputes`: whether it may have gaps."""
    spec, sample = context.spec, context.sample
    width, flat = sample.size if sample.form != "sequence" else sample.shape[-1], sample.form != "image"
    for index, step in enumerate(steps):
        where = f"/{field}/{index}"
        if step.kind == "impute":
            if not imputes:
                hint = "Put it into `preprocess_columns`." if spec.model.kind == "multimodal" else "Remove it."
                yield Problem(where, "tables_only", "impute is for tables", hint)
            elif index:
                yield Problem(where, "order", "impute must come first: the other steps cannot see gaps", "Move it up.")
            continue
        per = getattr(step, "per", "auto")
        if per in ("channel", "pixel") and sample.form != "image":
            yield Problem(f"{where}/per", "images_only", f'"{per}" is for images', 'Use "auto".')
        if per in ("channel", "pixel") and flat and sample.form == "image":
            yield Problem(f"{where}/per", "already_flat", "an earlier pca has flattened the image", 'Use "auto".')
        if step.kind == "pca":
            limit = min(width, context.training_samples)
            if type(step.components) is int and step.components > limit:
                yield Problem(
                    f"{where}/components",
                    "too_many_components",
                    f"{step.components} components of {width} features and {context.training_samples} training samples",
                    f"At most {limit}, or a fraction such as 0.95.",
                )
            width, flat = step.components if type(step.components) is int else limit, True
        if step.kind == "whiten" and step.method == "pca":
            flat = True
    if flat and sample.form == "image" and spec.model.kind in IMAGE_MODELS:
        yield Problem(
            "/preprocess",
            "needs_image",
            f"pca turns images into vectors, which {spec.model.kind} cannot read",
            'Use an mlp, or {"kind": "whiten", "method": "zca"}, which keeps images.',
        )


def augment_problems(context: CheckContext) -> Iterator[Problem]:
    """Yield what is wrong with the augmentation."""
    sample = context.sample
    for index, step in enumerate(context.spec.augment):
        where = f"/augment/{index}"
        if sample.form != "image" and step.kind not in ANY_SAMPLE_AUGMENT:
            yield Problem(where, "images_only", f"{step.kind} is for images", f"Use one of {ANY_SAMPLE_AUGMENT}.")
        elif step.kind in COLOUR_AUGMENT:
            reason = why_not_colour(sample.shape[0], context.facts.value_ranges)
            if reason is not None:
                hint = "Remove it."
                if sample.shape[0] == 3:
                    hint += " Or upload the images as they were, and put z_score into `preprocess`."
                yield Problem(where, "needs_colour", f"{step.kind} needs colour images: {reason}", hint)
        if step.kind in ("mixup", "cutmix") and context.spec.loss is not None:
            kind = context.spec.loss.kind
            if context.classification and kind not in SOFT_TARGET_LOSSES:
                hint = f"Use one of {', '.join(SOFT_TARGET_LOSSES)}."
                yield Problem(where, "needs_soft_targets", f"{kind} cannot take mixed targets", hint)
        if step.kind == "cutmix" and not context.classification:
            yield Problem(where, "needs_classes", "cutmix mixes classes", "Use mixup for regression.")
        if step.kind in ("mixup", "cutmix") and context.spec.model.kind == "multimodal":
            message = f"{step.kind} mixes images and targets, and the columns would stay as they are"
            yield Problem(where, "not_with_columns", message, "Remove it; the other steps change the image alone.")
        if step.kind in ("mixup", "cutmix") and context.spec.model.kind == "linear_svm":
            yield Problem(where, "needs_soft_targets", "the SVM's hinge loss cannot take mixed targets", "Remove it.")

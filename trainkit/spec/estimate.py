"""What a run will cost, from shapes alone: parameters, memory, time. No torch; stated as estimates."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from math import ceil
from typing import Any, Literal

from trainkit.spec.checks.context import CheckContext
from trainkit.spec.facts import DatasetFacts, Sample
from trainkit.spec.job import JobSpec
from trainkit.spec.models import (
    Cnn,
    Ensemble,
    GradientBoosting,
    Mlp,
    Multimodal,
    Recurrent,
    ResidualCnn,
    SklearnModel,
    Torchvision,
    image_model,
)
from trainkit.spec.preprocess import PreprocessStep
from trainkit.spec.resolve import ResolvedSpec
from trainkit.spec.torchvision_architectures import SIDE_MULTIPLE, TORCHVISION_SIZES, target_size

BYTES = 4
PROCESS_BYTES = 350 * 2**20
"""A training process with torch loaded, before any data. Measured on Linux x86-64, rounded up."""
FLOPS_PER_SECOND = 2e10
"""One CPU core in float32 on layers of this size; a GPU is far faster. Only an order of magnitude."""
LIBRARY_BYTES = 80 * 2**20
KERNEL_CACHE_BYTES = 200 * 2**20
DOUBLE = 8
TREE_SECONDS = 5e-8
"""For a sample, a feature and a tree. This and the next measured on one core with scikit-learn 1.9: orders of magnitude."""
KERNEL_SECONDS = 4e-9
"""For a pair of samples and a feature."""


@dataclass(frozen=True, slots=True)
class Layers:
    """Sums over a model's layers for one sample."""

    parameters: int = 0
    activations: int = 0
    multiply_adds: int = 0

    def __add__(self, other: Layers) -> Layers:
        return Layers(
            self.parameters + other.parameters,
            self.activations + other.activations,
            self.multiply_adds + other.multiply_adds,
        )


def estimate(resolved: ResolvedSpec, facts: DatasetFacts) -> dict[str, Any]:
    """`{parameters, trainable, activations, multiply_adds, steps_per_epoch, memory_bytes, seconds}` of a job.

    `trainable` is null where only some blocks of the body are trained; `seconds` is for one CPU core.
    """
    spec, sample, outputs = resolved.spec, resolved.sample, resolved.outputs
    seen = _after_preprocessing(resolved)
    body, head = body_and_head(spec, seen, outputs)
    layers, trains = body + head, _trained_body(spec)
    trained = head.parameters if trains == "none" else layers.parameters
    context = CheckContext(spec, facts, spec.task or "classification", sample, outputs)
    samples = context.training_samples
    batch = min(spec.train.batch_size, samples)
    # a step gathers its whole batch, and takes it through the network by micro-batches
    gathered = min(spec.train.batch_size * spec.train.gradient_accumulation_steps, samples)
    steps, passes, taken = ceil(samples / gathered), ceil(samples / batch), samples
    if spec.train.steps_per_epoch is not None:
        taken = round(samples * spec.train.steps_per_epoch / steps)
        steps, passes = spec.train.steps_per_epoch, ceil(taken / batch)
    # weights, the best copy and the copy a checkpoint is written from; gradients and optimizer state of what is trained
    weight_bytes = BYTES * (3 * layers.parameters + trained * (1 + spec.optimizer.state_slots))
    # forward and backward keep about two copies of every activation
    activation_bytes = 2 * layers.activations * batch * BYTES + (gathered - batch) * sample.size * BYTES
    stored = 1 if facts.input_dtype == "uint8" and sample.form == "image" else BYTES
    data_bytes = facts.samples * ((sample.size - sample.columns) * stored + sample.columns * BYTES)
    if isinstance(spec.model, SklearnModel):
        model_bytes, seconds = sklearn_cost(spec.model, samples, seen.size, outputs, classes=context.classification)
        memory = PROCESS_BYTES + model_bytes + data_bytes
        cost = {"steps_per_epoch": 1, "memory_bytes": memory, "seconds": round(seconds, 1)}
        return {**asdict(layers), "trainable": 0, **cost}
    # backward costs twice the forward pass; a frozen body has none, and without augmentation one forward pass in all
    seen_samples = taken * spec.train.epochs
    body_passes: float = 3 * seen_samples
    if trains == "none" and spec.start_from is not None:
        once = spec.start_from.cache_features is not False and not spec.augment
        body_passes = facts.samples if once else seen_samples
    flops = 2 * (head.multiply_adds * 3 * seen_samples + body.multiply_adds * body_passes)
    return {
        **asdict(layers),
        "trainable": None if trains == "some" else trained,
        "steps_per_epoch": steps,
        "memory_bytes": PROCESS_BYTES + data_bytes + max(weight_bytes + activation_bytes, _building_bytes(spec)),
        "seconds": round(flops / FLOPS_PER_SECOND + passes * spec.train.epochs * 3e-4, 1),
    }


def _after_preprocessing(resolved: ResolvedSpec) -> Sample:
    spec, sample = resolved.spec, resolved.sample
    seen = _after_steps(spec.preprocess or (), Sample(sample.form, sample.shape))
    columns = _after_steps(spec.preprocess_columns or (), Sample("vector", (sample.columns,)))
    return replace(seen, columns=columns.size)


def _after_steps(steps: Iterable[PreprocessStep], sample: Sample) -> Sample:
    for step in steps:
        if step.kind == "pca":
            width = sample.size if sample.form != "sequence" else sample.shape[-1]
            kept = step.components if type(step.components) is int else width
            sample = (
                Sample("sequence", (sample.shape[0], kept)) if sample.form == "sequence" else Sample("vector", (kept,))
            )
        elif step.kind == "whiten" and step.method == "pca" and sample.form == "image":
            sample = Sample("vector", (sample.size,))
    return sample


def _building_bytes(spec: JobSpec) -> int:
    """Weights of a whole torchvision network: it is built before its top is taken off."""
    model = image_model(spec.model)
    if not isinstance(model, Torchvision):
        return 0
    size = TORCHVISION_SIZES[model.name]
    return BYTES * (size.parameters + 1000 * size.width)


def _trained_body(spec: JobSpec) -> Literal["none", "some", "all"]:
    """How much of the body is trained in the phase that trains the most of it."""
    start = spec.start_from
    if start is None:
        return "all"
    if not start.phases:
        return "all" if start.freeze == "none" else "none" if start.freeze == "body" else "some"
    opened = [phase.unfreeze for phase in start.phases]
    return "all" if "all" in opened else "none" if all(one in ("none", 0) for one in opened) else "some"


def body_and_head(spec: JobSpec, sample: Sample, outputs: int) -> tuple[Layers, Layers]:
    """The layers before the head, and the head with the hidden layers that the model or `start_from` gives it."""
    model = spec.model
    if isinstance(model, Ensemble | SklearnModel):
        return Layers(), Layers()
    if isinstance(model, Multimodal):
        image, image_width = _encoder(model.image, Sample(sample.form, sample.shape))
        columns, columns_width = _encoder(model.columns, Sample("vector", (sample.columns,)))
        body, width = image + columns, image_width + columns_width
    else:
        body, width = _features(model, sample)
    hidden: tuple[int, ...] = model.dense if isinstance(model, Torchvision | Multimodal) else ()
    if spec.start_from is not None and spec.start_from.head == "new":
        hidden = spec.start_from.head_hidden or hidden
    head = _dense(width, hidden, outputs)
    return body, replace(head, activations=head.activations - width)


def _features(model: Any, sample: Sample) -> tuple[Layers, int]:
    """The layers before a head, and the width of the features that they give."""
    body = model_layers(model, sample, 0)
    return body, model_layers(model, sample, 1).parameters - body.parameters - 1


def _encoder(model: Any, sample: Sample) -> tuple[Layers, int]:
    """The same of all but the output layer."""
    body, width = _features(model, sample)
    if not isinstance(model, Torchvision) or not model.dense:
        return body, width
    return body + _dense(width, model.dense, 0), model.dense[-1]


def model_layers(model: Any, sample: Sample, outputs: int) -> Layers:
    """Parameters, activations and multiply-adds of a model spec up to its output layer of `outputs` rows.

    Hidden layers that belong to a head are left out. Nothing where there is no network to train.
    """
    if isinstance(model, Mlp):
        return _dense(sample.size, model.hidden, outputs, norm=model.norm in ("batch", "layer", "group"))
    if isinstance(model, Cnn):
        return _cnn(model, sample, outputs)
    if isinstance(model, ResidualCnn):
        return _residual(model, sample, outputs)
    if isinstance(model, Recurrent):
        return _recurrent(model, sample, outputs)
    if isinstance(model, Torchvision):
        return _torchvision(model, sample, outputs)
    if isinstance(model, Ensemble | SklearnModel):
        return Layers()
    return _dense(sample.size, (), outputs)


def _torchvision(model: Torchvision, sample: Sample, outputs: int) -> Layers:
    """Parameters are exact but for flattened maps; activations are of the order of ResNet's."""
    size = TORCHVISION_SIZES[model.name]
    height, width = target_size(model.name, model.image_size, *sample.shape[1:])
    scale = height * width / 224**2
    parameters = size.parameters if model.include_top else size.body_parameters
    if model.name.startswith("vit"):
        patch = SIDE_MULTIPLE[model.name]  # one position embedding for each patch
        parameters += ((height // patch) * (width // patch) - (224 // patch) ** 2) * size.width
    dense = size.parameters - size.body_parameters
    convolutions = max(0, size.million_multiply_adds * 10**6 - dense - 1000 * size.width)
    body = Layers(
        parameters,
        int(2_500_000 * max(scale, 0.02)),
        int(convolutions * scale) + (dense if model.include_top else 0),
    )
    features = size.width if model.include_top else size.channels
    if model.head == "flatten":
        features *= max(1, int(height * size.map_side / 224)) * max(1, int(width * size.map_side / 224))
    return body + _linear(features, outputs)


def _dense(width: int, hidden: tuple[int, ...], outputs: int, *, norm: bool = False) -> Layers:
    total = Layers(activations=width)
    for following in hidden:
        total += _linear(width, following, bias=not norm)
        if norm:
            total += Layers(parameters=2 * following, activations=following)
        width = following
    return total + _linear(width, outputs)


def _linear(inputs: int, outputs: int, *, bias: bool = True) -> Layers:
    return Layers(inputs * outputs + outputs * bias, 2 * outputs, inputs * outputs)


def _conv(inputs: int, outputs: int, kernel: int, height: int, width: int, *, norm: bool) -> Layers:
    weights = inputs * outputs * kernel * kernel
    area = height * width
    # a norm layer has as many parameters as twice the bias that it replaces
    return Layers(weights + outputs * (2 if norm else 1), (3 if norm else 2) * outputs * area, weights * area)


def _cnn(model: Cnn, sample: Sample, outputs: int) -> Layers:
    channels, height, width = sample.shape
    total = Layers(activations=sample.size)
    for following in model.channels:
        for _ in range(model.convs_per_block):
            total += _conv(channels, following, model.kernel, height, width, norm=model.norm != "none")
            channels = following
        if model.pool != "none" and min(height, width) >= 2:
            height, width = height // 2, width // 2
    features = channels if model.head == "global_average" else channels * height * width
    return total + _dense(features, model.dense, outputs)


def _residual(model: ResidualCnn, sample: Sample, outputs: int) -> Layers:
    channels, height, width = sample.shape
    norm = model.norm != "none"
    total = Layers(activations=sample.size) + _conv(channels, model.channels[0], 3, height, width, norm=norm)
    channels = model.channels[0]
    for stage, following in enumerate(model.channels):
        for block in range(model.blocks_per_stage):
            halves = stage > 0 and block == 0
            if halves:
                height, width = ceil(height / 2), ceil(width / 2)
            total += _conv(channels, following, 3, height, width, norm=norm)
            total += _conv(following, following, 3, height, width, norm=norm)
            if halves or channels != following:
                total += _conv(channels, following, 1, height, width, norm=norm)
            channels = following
    features = channels if model.head == "global_average" else channels * height * width
    return total + _linear(features, outputs)


def _recurrent(model: Recurrent, sample: Sample, outputs: int) -> Layers:
    steps, width = sample.shape
    gates = 4 if getattr(model, "kind", "") == "lstm" else 3
    directions = 2 if model.bidirectional else 1
    total = Layers(activations=sample.size)
    for _ in range(model.layers):
        weights = gates * model.hidden * (width + model.hidden)
        total += Layers(
            directions * (weights + 2 * gates * model.hidden),
            directions * steps * (gates + 2) * model.hidden,
            directions * steps * weights,
        )
        width = model.hidden * directions
    return total + _linear(width, outputs)


def sklearn_cost(model: SklearnModel, samples: int, features: int, outputs: int, *, classes: bool) -> tuple[int, float]:
    """(bytes beside process and data, seconds on one core) of a fit, estimated."""
    copies = 2 * samples * features * DOUBLE
    fits = 1 if classes else outputs
    if isinstance(model, GradientBoosting):
        trees = model.max_iter * (outputs if not classes or outputs > 2 else 1)
        return LIBRARY_BYTES + copies, TREE_SECONDS * samples * features * trees
    pairs = float(samples) ** 2
    return LIBRARY_BYTES + KERNEL_CACHE_BYTES + copies, KERNEL_SECONDS * pairs * features * fits

"""What a run will cost, from shapes alone: parameters, memory, time. No torch; stated as estimates."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import ceil
from typing import Any

from trainkit.spec.checks import CheckContext
from trainkit.spec.facts import DatasetFacts, Sample
from trainkit.spec.models import (
    TORCHVISION_PARAMETERS,
    Cnn,
    Ensemble,
    GradientBoosting,
    Mlp,
    Recurrent,
    ResidualCnn,
    SklearnModel,
)
from trainkit.spec.resolve import ResolvedSpec

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
    """`{parameters, activations_per_sample, steps_per_epoch, memory_bytes, seconds}`; `seconds` is for one CPU core."""
    spec, sample, outputs = resolved.spec, resolved.sample, resolved.outputs
    seen = _after_preprocessing(resolved)
    layers = model_layers(spec.model, seen, outputs)
    context = CheckContext(spec, facts, spec.task or "classification", sample, outputs)
    samples = context.training_samples
    batch = min(spec.train.batch_size, samples)
    # a step gathers its whole batch, and takes it through the network by micro-batches
    gathered = min(spec.train.batch_size * spec.train.gradient_accumulation_steps, samples)
    steps, passes = ceil(samples / gathered), ceil(samples / batch)
    # weights, gradients, optimizer state, the best copy and the copy a checkpoint is written from
    weight_bytes = layers.parameters * BYTES * (4 + spec.optimizer.state_slots)
    # forward and backward keep about two copies of every activation
    activation_bytes = 2 * layers.activations * batch * BYTES + (gathered - batch) * sample.size * BYTES
    stored = 1 if facts.input_dtype == "uint8" and sample.form == "image" else BYTES
    data_bytes = facts.samples * sample.size * stored
    if isinstance(spec.model, SklearnModel):
        own_bytes, seconds = sklearn_cost(spec.model, samples, seen.size, outputs, classes=context.classification)
        memory = PROCESS_BYTES + own_bytes + data_bytes
        return {**asdict(layers), "steps_per_epoch": 1, "memory_bytes": memory, "seconds": round(seconds, 1)}
    # backward costs twice the forward pass
    flops = 3 * 2 * layers.multiply_adds * samples * spec.train.epochs
    return {
        **asdict(layers),
        "steps_per_epoch": steps,
        "memory_bytes": PROCESS_BYTES + weight_bytes + activation_bytes + data_bytes,
        "seconds": round(flops / FLOPS_PER_SECOND + passes * spec.train.epochs * 3e-4, 1),
    }


def _after_preprocessing(resolved: ResolvedSpec) -> Sample:
    sample = resolved.sample
    for step in resolved.spec.preprocess:
        if step.kind == "pca":
            width = sample.size if sample.form != "sequence" else sample.shape[-1]
            kept = step.components if type(step.components) is int else width
            sample = (
                Sample("sequence", (sample.shape[0], kept)) if sample.form == "sequence" else Sample("vector", (kept,))
            )
        elif step.kind == "whiten" and step.method == "pca" and sample.form == "image":
            sample = Sample("vector", (sample.size,))
    return sample


def model_layers(model: Any, sample: Sample, outputs: int) -> Layers:
    """Parameters, activations and multiply-adds of a model spec; nothing where there is no network to train."""
    if isinstance(model, Mlp):
        return _dense(sample.size, model.hidden, outputs, norm=model.norm in ("batch", "layer", "group"))
    if isinstance(model, Cnn):
        return _cnn(model, sample, outputs)
    if isinstance(model, ResidualCnn):
        return _residual(model, sample, outputs)
    if isinstance(model, Recurrent):
        return _recurrent(model, sample, outputs)
    if model.kind == "torchvision":
        parameters = TORCHVISION_PARAMETERS[model.name]
        side = model.image_size or max(sample.shape[1:])
        # torchvision's networks touch a parameter about 60 times in a 224 x 224 image (measured on ResNet-18 to VGG)
        scale = (side / 224) ** 2
        return Layers(parameters, int(2_500_000 * max(scale, 0.02)), int(parameters * 100 * scale))
    if isinstance(model, Ensemble | SklearnModel):
        return Layers()
    return _dense(sample.size, (), outputs)


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

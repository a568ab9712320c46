"""Wire format of a checked spec."""

from __future__ import annotations

from typing import Literal

from service.response_model import ResponseModel, SpecDocument


class WarningOut(ResponseModel):
    """Something that is allowed, and probably not meant."""

    pointer: str
    code: str
    message: str
    hint: str = ""


class EstimateOut(ResponseModel):
    """What the job would need."""

    parameters: int
    trainable: int | None
    """Parameters that are trained; null where only some blocks of a body are."""
    activations: int
    """Values of one sample that are kept for the backward pass."""
    multiply_adds: int
    """Of one sample, forward."""
    memory_bytes: int
    steps_per_epoch: int
    seconds: float | None


class ValidOut(ResponseModel):
    """The spec with everything filled in. A spec that is not valid is answered with a 422 problem, all errors in it."""

    valid: bool
    """Always true."""
    spec: SpecDocument
    warnings: list[WarningOut]
    estimate: EstimateOut | None


class HistogramOut(ResponseModel):
    """How values are spread: `counts[i]` lie between `edges[i]` and `edges[i + 1]`."""

    counts: list[int]
    edges: list[float]


class LayerReportOut(ResponseModel):
    """A layer's values in the first forward pass."""

    name: str
    kind: str
    values: Literal["pre_activation", "activation"]
    mean: float | None
    std: float | None
    min: float | None
    max: float | None
    nonfinite: int
    histogram: HistogramOut
    saturated_share: float | None
    """Values close to an end of the activation's range; null for one without ends."""
    dead_share: float
    """Units that give the same value for every sample."""


class InitReportOut(ResponseModel):
    """What the first forward pass looks like, layer by layer."""

    samples: int
    model: str
    layers: list[LayerReportOut]

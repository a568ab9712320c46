"""Weight initialisation; biases start at 0. fan_in and fan_out are counted as in `torch.nn.init`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from trainkit.spec.base import Positive, ShortForm, SpecModel


class ZerosInit(SpecModel):
    """All weights 0: every unit stays identical. Allowed, and diagnosed."""

    kind: Literal["zeros"] = "zeros"


class NormalInit(SpecModel):
    """w ~ N(0, std^2)."""

    kind: Literal["normal"] = "normal"
    std: Positive = 0.01
    """Standard deviation."""


class UniformInit(SpecModel):
    """w ~ U(low, high)."""

    kind: Literal["uniform"] = "uniform"
    low: float = -0.05
    """Lower end."""
    high: float = 0.05
    """Upper end."""

    @model_validator(mode="after")
    def rises(self) -> UniformInit:
        if self.low >= self.high:
            raise ValueError("`low` must be below `high`")
        return self


class XavierNormalInit(SpecModel):
    """w ~ N(0, gain^2 * 2 / (fan_in + fan_out)) (Glorot and Bengio 2010)."""

    kind: Literal["xavier_normal"] = "xavier_normal"
    gain: Positive = 1.0
    """Factor on the deviation."""


class XavierUniformInit(SpecModel):
    """w ~ U(-a, a), a = gain * sqrt(6 / (fan_in + fan_out))."""

    kind: Literal["xavier_uniform"] = "xavier_uniform"
    gain: Positive = 1.0
    """Factor on the interval."""


class HeNormalInit(SpecModel):
    """w ~ N(0, 2 / fan_in) (He et al. 2015)."""

    kind: Literal["he_normal"] = "he_normal"


class HeUniformInit(SpecModel):
    """w ~ U(-a, a), a = sqrt(6 / fan_in)."""

    kind: Literal["he_uniform"] = "he_uniform"


class OrthogonalInit(SpecModel):
    """The orthogonal factor of a Gaussian matrix, times gain (Saxe et al. 2014)."""

    kind: Literal["orthogonal"] = "orthogonal"
    gain: Positive = 1.0
    """Factor on the singular values."""


class PretrainedInit(SpecModel):
    """Weights of an earlier job or model, of uploaded safetensors, or of a weight file that lies on the worker."""

    kind: Literal["pretrained"] = "pretrained"
    job: str | None = None
    """Take the model of this job (`job_...`)."""
    model: str | None = None
    """Take this model: its id, `name` (the newest version), `name:version` or `name@alias`."""
    dataset: str | None = None
    """An uploaded safetensors file: id or name of a dataset of kind weights."""
    file: str | None = Field(None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")
    """A safetensors or state-dict file name in the worker's weights folder."""

    @model_validator(mode="after")
    def one_source(self) -> PretrainedInit:
        if sum(source is not None for source in (self.job, self.model, self.dataset, self.file)) != 1:
            raise ValueError("name exactly one source: `job`, `model`, `dataset` or `file`")
        return self


InitSpec = Annotated[
    ZerosInit
    | NormalInit
    | UniformInit
    | XavierNormalInit
    | XavierUniformInit
    | HeNormalInit
    | HeUniformInit
    | OrthogonalInit
    | PretrainedInit,
    Field(discriminator="kind"),
    ShortForm(),
]

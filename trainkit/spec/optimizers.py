"""Optimizers (techniques, section 8). theta: parameters, g: gradient, eta: `lr`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from trainkit.spec.base import Decay, NonNegative, Positive, Rate, SpecModel


class Sgd(SpecModel):
    """theta -= eta * g."""

    kind: Literal["sgd"] = "sgd"
    lr: Rate = 0.1
    """Learning rate."""


class Momentum(SpecModel):
    """EMA form: m = b*m + (1-b)*g; theta -= eta*m; m0 = 0."""

    kind: Literal["momentum"] = "momentum"
    lr: Rate = 0.1
    """Learning rate."""
    momentum: Decay = 0.9
    """b, the decay of the mean gradient."""


class HeavyBall(SpecModel):
    """m = b*m + g; theta -= eta*m (Polyak 1964)."""

    kind: Literal["heavy_ball"] = "heavy_ball"
    lr: Rate = 0.01
    """Learning rate."""
    momentum: Decay = 0.9
    """b, the decay of the accumulated gradient."""


class Nesterov(SpecModel):
    """m = b*m + g; theta -= eta*(g + b*m) (Sutskever et al. 2013)."""

    kind: Literal["nesterov"] = "nesterov"
    lr: Rate = 0.01
    """Learning rate."""
    momentum: Decay = 0.9
    """b, the decay of the accumulated gradient."""


class Adagrad(SpecModel):
    """v += g^2; theta -= eta / (sqrt(v) + eps) * g (Duchi et al. 2011)."""

    kind: Literal["adagrad"] = "adagrad"
    lr: Rate = 0.01
    """Learning rate."""
    eps: Positive = 1e-7
    """Added beside the root."""


class RmsProp(SpecModel):
    """v = rho*v + (1-rho)*g^2; theta -= eta / (sqrt(v) + eps) * g."""

    kind: Literal["rmsprop"] = "rmsprop"
    lr: Rate = 1e-3
    """Learning rate."""
    rho: Decay = 0.9
    """Decay of the mean square."""
    eps: Positive = 1e-8
    """Added beside the root."""


class Adam(SpecModel):
    """m, v as decaying means of g and g^2, bias-corrected; theta -= eta * m / (sqrt(v) + eps)."""

    kind: Literal["adam"] = "adam"
    lr: Rate = 1e-3
    """Learning rate."""
    betas: tuple[Decay, Decay] = (0.9, 0.999)
    """Decays of the two means."""
    eps: Positive = 1e-8
    """Added beside the root."""


class AdamW(SpecModel):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019); the decay is `regularize.weight_decay`."""

    kind: Literal["adamw"] = "adamw"
    lr: Rate = 1e-3
    """Learning rate."""
    betas: tuple[Decay, Decay] = (0.9, 0.999)
    """Decays of the two means."""
    eps: Positive = 1e-8
    """Added beside the root."""


class NAdam(SpecModel):
    """Adam with Nesterov momentum (Dozat 2016)."""

    kind: Literal["nadam"] = "nadam"
    lr: Rate = 2e-3
    """Learning rate."""
    betas: tuple[Decay, Decay] = (0.9, 0.999)
    """Decays of the two means."""
    eps: Positive = 1e-8
    """Added beside the root."""
    momentum_decay: NonNegative = 4e-3
    """Decay of the momentum schedule."""


class LionSpec(SpecModel):
    """theta -= eta * sign(b1*m + (1-b1)*g); m = b2*m + (1-b2)*g (Chen et al. 2023)."""

    kind: Literal["lion"] = "lion"
    lr: Rate = 1e-4
    """Learning rate: three to ten times smaller than Adam's."""
    betas: tuple[Decay, Decay] = (0.9, 0.99)
    """b1 of the update, b2 of the memory."""


class MuonSpec(SpecModel):
    """Orthogonalised momentum for hidden weight matrices, AdamW for the rest (Jordan et al. 2024)."""

    kind: Literal["muon"] = "muon"
    lr: Rate = 0.02
    """Learning rate of the matrices."""
    momentum: Decay = 0.95
    """Decay of the accumulated gradient (Nesterov form)."""
    adam_lr: Rate = 1e-3
    """Learning rate of biases, norms and the output layer."""


OptimizerSpec = Annotated[
    Sgd | Momentum | HeavyBall | Nesterov | Adagrad | RmsProp | Adam | AdamW | NAdam | LionSpec | MuonSpec,
    Field(discriminator="kind"),
]

"""Optimizers: the update rules of `torch.optim`, and Lion and Muon. theta: parameters, g: gradient, eta: `lr`.

A class holds all that the rest of the code knows of an optimizer; `trainkit.optim.build_optimizer` builds it from that.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from trainkit.spec.base import Decay, NonNegative, Positive, Rate, ShortForm, SpecModel


class OptimizerModel(SpecModel):
    """The base of every optimizer spec. The class variables' defaults are safe for any optimizer, if not the fastest."""

    torch_class: ClassVar[str]
    """Dotted path of the `torch.optim.Optimizer` to build; a name and not the class, so that specs load without torch."""
    decoupled_decay: ClassVar[bool] = False
    """Whether `weight_decay` of `torch_class` is decoupled; where it is not, a hook decays the weights before the step."""
    fused_devices: ClassVar[tuple[str, ...]] = ()
    """Types of devices on which `torch_class` accepts `fused=True`; empty: it has no such argument."""
    elementwise: ClassVar[bool] = False
    """Whether each number is updated by itself, so that parameters of several layers, or runs, may share one tensor."""
    step_scale: ClassVar[Literal["gradient", "rate", "unknown"]] = "unknown"
    """What a step is as long as: eta * |g| or eta for every weight. The diagnosis of the rate skips `unknown`."""

    @property
    def state_slots(self) -> int:
        """Numbers of optimizer state for each parameter, which the memory estimate counts."""
        return 2

    def torch_arguments(self) -> dict[str, Any]:
        """Return the arguments of `torch_class` beside parameters and rate: the spec's fields unless overridden."""
        return {name: getattr(self, name) for name in type(self).model_fields if name not in ("kind", "lr")}

    @property
    def rate_factor(self) -> float:
        """What eta is multiplied by for the step of `torch_class`."""
        return 1.0

    @property
    def step_gain(self) -> float:
        """How many times eta * g one gradient g moves theta over all the steps that it takes part in."""
        return 1.0


class OneSlotOptimizer(OptimizerModel):
    """The base of those that keep one number for each parameter."""

    @property
    def state_slots(self) -> int:
        return 1


class Sgd(OptimizerModel):
    """PyTorch's SGD: m = b*m + g; theta -= eta * m, or eta * (g + b*m) with `nesterov`; b = 0: theta -= eta * g."""

    torch_class = "torch.optim.SGD"
    fused_devices = ("cpu", "cuda")
    elementwise = True
    step_scale = "gradient"
    kind: Literal["sgd"] = "sgd"
    lr: Rate = 0.1
    """Learning rate. With momentum b the steps add up to 1/(1-b) times as much: 0.01 is usual with 0.9."""
    momentum: Decay = 0.0
    """b, the decay of the accumulated gradient, usually 0.9; 0: none. `ema_momentum` averages the gradients instead."""
    nesterov: bool = False
    """Look ahead: the step takes g + b*m. Needs a momentum above 0."""

    @model_validator(mode="after")
    def nesterov_has_momentum(self) -> Sgd:
        if self.nesterov and not self.momentum:
            raise ValueError("`nesterov` needs a `momentum` above 0, such as 0.9")
        return self

    @property
    def state_slots(self) -> int:
        return 1 if self.momentum else 0

    @property
    def step_gain(self) -> float:
        return 1 / (1 - self.momentum)


class EmaMomentum(OneSlotOptimizer):
    """Momentum as a mean: m = b*m + (1-b)*g; theta -= eta*m; m0 = 0. Equal to sgd's momentum at eta * (1-b)."""

    torch_class = "torch.optim.SGD"
    fused_devices = ("cpu", "cuda")
    elementwise = True
    step_scale = "gradient"
    kind: Literal["ema_momentum"] = "ema_momentum"
    lr: Rate = 0.1
    """Learning rate."""
    momentum: Decay = 0.9
    """b, the decay of the mean gradient."""

    @property
    def rate_factor(self) -> float:
        # This m is (1-b) times heavy ball's. `dampening=b` differs: torch does not damp the first gradient.
        return 1 - self.momentum


class HeavyBall(OneSlotOptimizer):
    """m = b*m + g; theta -= eta*m (Polyak 1964)."""

    torch_class = "torch.optim.SGD"
    fused_devices = ("cpu", "cuda")
    elementwise = True
    step_scale = "gradient"
    kind: Literal["heavy_ball"] = "heavy_ball"
    lr: Rate = 0.01
    """Learning rate."""
    momentum: Decay = 0.9
    """b, the decay of the accumulated gradient."""

    @property
    def step_gain(self) -> float:
        return 1 / (1 - self.momentum)


class Nesterov(OneSlotOptimizer):
    """m = b*m + g; theta -= eta*(g + b*m) (Sutskever et al. 2013)."""

    torch_class = "torch.optim.SGD"
    fused_devices = ("cpu", "cuda")
    elementwise = True
    step_scale = "gradient"
    kind: Literal["nesterov"] = "nesterov"
    lr: Rate = 0.01
    """Learning rate."""
    momentum: Decay = 0.9
    """b, the decay of the accumulated gradient."""

    def torch_arguments(self) -> dict[str, Any]:
        return {"momentum": self.momentum, "nesterov": self.momentum > 0}  # torch refuses nesterov without momentum

    @property
    def step_gain(self) -> float:
        return 1 / (1 - self.momentum)


class Adagrad(OneSlotOptimizer):
    """v += g^2; theta -= eta / (sqrt(v) + eps) * g (Duchi et al. 2011)."""

    torch_class = "torch.optim.Adagrad"
    fused_devices = ("cpu",)
    elementwise = True
    step_scale = "rate"
    kind: Literal["adagrad"] = "adagrad"
    lr: Rate = 0.01
    """Learning rate."""
    eps: Positive = 1e-7
    """Added beside the root."""


class RmsProp(OneSlotOptimizer):
    """v = rho*v + (1-rho)*g^2; theta -= eta / (sqrt(v) + eps) * g."""

    torch_class = "torch.optim.RMSprop"
    elementwise = True
    step_scale = "rate"
    kind: Literal["rmsprop"] = "rmsprop"
    lr: Rate = 1e-3
    """Learning rate."""
    rho: Decay = 0.9
    """Decay of the mean square."""
    eps: Positive = 1e-8
    """Added beside the root."""

    def torch_arguments(self) -> dict[str, Any]:
        return {"alpha": self.rho, "eps": self.eps}


class Adam(OptimizerModel):
    """m, v as decaying means of g and g^2, bias-corrected; theta -= eta * m / (sqrt(v) + eps)."""

    torch_class = "torch.optim.AdamW"
    decoupled_decay = True
    fused_devices = ("cpu", "cuda")
    elementwise = True
    step_scale = "rate"
    kind: Literal["adam"] = "adam"
    lr: Rate = 1e-3
    """Learning rate."""
    betas: tuple[Decay, Decay] = (0.9, 0.999)
    """Decays of the two means."""
    eps: Positive = 1e-8
    """Added beside the root."""


class AdamW(OptimizerModel):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019); the decay is `regularize.weight_decay`."""

    torch_class = "torch.optim.AdamW"
    decoupled_decay = True
    fused_devices = ("cpu", "cuda")
    elementwise = True
    step_scale = "rate"
    kind: Literal["adamw"] = "adamw"
    lr: Rate = 1e-3
    """Learning rate."""
    betas: tuple[Decay, Decay] = (0.9, 0.999)
    """Decays of the two means."""
    eps: Positive = 1e-8
    """Added beside the root."""


class NAdam(OptimizerModel):
    """Adam with Nesterov momentum (Dozat 2016)."""

    torch_class = "torch.optim.NAdam"
    decoupled_decay = True
    elementwise = True
    step_scale = "rate"
    kind: Literal["nadam"] = "nadam"
    lr: Rate = 2e-3
    """Learning rate."""
    betas: tuple[Decay, Decay] = (0.9, 0.999)
    """Decays of the two means."""
    eps: Positive = 1e-8
    """Added beside the root."""
    momentum_decay: NonNegative = 4e-3
    """Decay of the momentum schedule."""

    def torch_arguments(self) -> dict[str, Any]:
        return {**super().torch_arguments(), "decoupled_weight_decay": True}


class LionSpec(OneSlotOptimizer):
    """theta -= eta * sign(b1*m + (1-b1)*g); m = b2*m + (1-b2)*g (Chen et al. 2023)."""

    torch_class = "trainkit.optim.lion.Lion"
    decoupled_decay = True
    elementwise = True
    step_scale = "rate"
    kind: Literal["lion"] = "lion"
    lr: Rate = 1e-4
    """Learning rate: three to ten times smaller than Adam's."""
    betas: tuple[Decay, Decay] = (0.9, 0.99)
    """b1 of the update, b2 of the memory."""


class MuonSpec(OptimizerModel):
    """Orthogonalised momentum for hidden weight matrices, AdamW for the rest (Jordan et al. 2024)."""

    torch_class = "trainkit.optim.muon.Muon"
    decoupled_decay = True
    fused_devices = ("cpu", "cuda")
    kind: Literal["muon"] = "muon"
    lr: Rate = 0.02
    """Learning rate of the matrices."""
    momentum: Decay = 0.95
    """Decay of the accumulated gradient (Nesterov form)."""
    adam_lr: Rate = 1e-3
    """Learning rate of biases, norms and the output layer."""


OptimizerSpec = Annotated[
    Sgd | EmaMomentum | HeavyBall | Nesterov | Adagrad | RmsProp | Adam | AdamW | NAdam | LionSpec | MuonSpec,
    Field(discriminator="kind"),
    ShortForm(),
]

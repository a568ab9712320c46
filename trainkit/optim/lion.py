"""Lion, which torch does not ship."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor


class Lion(torch.optim.Optimizer):
    """theta -= eta * (sign(b1*m + (1-b1)*g) + wd*theta); m = b2*m + (1-b2)*g; m0 = 0 (Chen et al. 2023)."""

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One update of every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params = [parameter for parameter in group["params"] if parameter.grad is not None]
            if not params:
                continue
            grads = [parameter.grad for parameter in params]
            for parameter in params:
                if "mean" not in self.state[parameter]:
                    self.state[parameter]["mean"] = torch.zeros_like(parameter)
            means = [self.state[parameter]["mean"] for parameter in params]
            b1, b2 = group["betas"]
            update = torch._foreach_lerp(means, grads, 1 - b1)
            torch._foreach_sign_(update)
            torch._foreach_mul_(params, 1 - group["lr"] * group["weight_decay"])
            torch._foreach_add_(params, update, alpha=-group["lr"])
            torch._foreach_lerp_(means, grads, 1 - b2)
        return loss

"""Muon for weight matrices and convolution kernels, AdamW for everything else, as one optimizer with one state."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim.adam import adam

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Coefficients of the quintic iteration, chosen for a steep slope at 0 (Jordan et al. 2024)."""
NEWTON_SCHULZ_STEPS = 5
LAST_LAYERS = ("head", "domain")
"""First words of the names of groups that hold output layers, which AdamW trains."""


class Muon(torch.optim.Optimizer):
    """Orthogonalised momentum for the hidden matrices of each group, AdamW at `adam_lr` for its other parameters.

    m = b*m + (1-b)*g; u = (1-b)*g + b*m; W -= eta * wd * W + eta * sqrt(max(1, rows/columns)) * orthogonal(u).
    The same as `torch.optim.Muon`, which takes 2-D parameters alone: here a kernel (out, in, kh, kw) counts as a
    matrix (out, in*kh*kw). A group is split in two, told apart by `muon`; its own `lr`, if it has one, is for both.
    """

    def __init__(
        self,
        params: Iterable[dict[str, Any]],
        lr: float,
        momentum: float = 0.95,
        adam_lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        fused: bool = False,
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(_split_matrices(params, adam_lr), {**defaults, "fused": fused, "muon": True})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One update of every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params = [parameter for parameter in group["params"] if parameter.grad is not None]
            if group["muon"]:
                self._muon(group, params)
            else:
                self._adamw(group, params)
        return loss

    def _muon(self, group: dict[str, Any], params: list[Tensor]) -> None:
        for parameter in params:
            state, grad = self.state[parameter], parameter.grad
            assert grad is not None  # `params` holds only those with a gradient
            if "momentum_buffer" not in state:
                state["momentum_buffer"] = torch.zeros_like(grad)
            mean = state["momentum_buffer"].lerp_(grad, 1 - group["momentum"])
            matrix = grad.lerp(mean, group["momentum"]).reshape(len(grad), -1)
            rows, columns = matrix.shape
            update = orthogonalise(matrix).reshape(parameter.shape)
            parameter.mul_(1 - group["lr"] * group["weight_decay"])
            parameter.add_(update, alpha=-group["lr"] * math.sqrt(max(1.0, rows / columns)))

    def _adamw(self, group: dict[str, Any], params: list[Tensor]) -> None:
        if not params:
            return
        for parameter in params:
            if not self.state[parameter]:
                device = parameter.device if group["fused"] else torch.device("cpu")
                self.state[parameter]["step"] = torch.zeros((), dtype=torch.float32, device=device)
                self.state[parameter]["exp_avg"] = torch.zeros_like(parameter)
                self.state[parameter]["exp_avg_sq"] = torch.zeros_like(parameter)
        adam(
            params,
            [parameter.grad for parameter in params if parameter.grad is not None],
            [self.state[parameter]["exp_avg"] for parameter in params],
            [self.state[parameter]["exp_avg_sq"] for parameter in params],
            [],
            [self.state[parameter]["step"] for parameter in params],
            fused=group["fused"],
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
            decoupled_weight_decay=True,
        )


def _split_matrices(groups: Iterable[dict[str, Any]], adam_lr: float) -> list[dict[str, Any]]:
    """Split each group into hidden matrices and the rest, which uses AdamW's rate unless the group has its own."""
    split = []
    for group in groups:
        last = str(group.get("name", "")).partition(" ")[0] in LAST_LAYERS
        matrices = [] if last else [p for p in group["params"] if _is_matrix(p)]
        known = {id(parameter) for parameter in matrices}
        rest = [p for p in group["params"] if id(p) not in known]
        if matrices:
            split.append({**group, "params": matrices, "muon": True})
        if rest:
            split.append({"lr": adam_lr, **group, "params": rest, "muon": False})
    return split


def _is_matrix(parameter: Tensor) -> bool:
    """Return whether the parameter has two or more rows and columns; a single row cannot be orthogonalised."""
    return parameter.ndim >= 2 and 1 < len(parameter) < parameter.numel()


def orthogonalise(matrix: Tensor) -> Tensor:
    """About the nearest semi-orthogonal matrix: singular values sent into roughly [0.7, 1.2] by Newton-Schulz.

    In bfloat16, as published: the iteration is stable there and the matrix multiplications cost half.
    """
    a, b, c = NEWTON_SCHULZ
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.to(torch.bfloat16, copy=True)
    x = x.T if tall else x
    x = x / x.norm().clamp(min=1e-7)
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.T if tall else x).to(matrix.dtype)

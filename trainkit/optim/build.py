"""From an optimizer spec to a torch optimizer over parameter groups (techniques, section 8).

A group's rate is `optimizer.param_groups[i]["lr"]`, always the eta of the spec's formula; the loop sets it each step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from trainkit.optim.lion import Lion
from trainkit.optim.muon import Muon
from trainkit.spec import optimizers
from trainkit.spec.optimizers import OptimizerSpec

LAST_LAYERS = ("head", "domain")
"""First words of the names of groups that hold output layers, which Muon leaves to AdamW."""


def build_optimizer(spec: OptimizerSpec, groups: Sequence[dict[str, Any]]) -> torch.optim.Optimizer:
    """Return the optimizer of the spec. A group is {"params", "name", "lr" (optional), "weight_decay" (default 0)}.

    Decay is decoupled whatever the kind: w <- w - eta*wd*w before the update, for parameters that have a gradient.
    `state_dict` holds tensors and plain containers and restores bit by bit. Raises ValueError when there is no
    parameter to train.
    """
    if not any(group["params"] for group in groups):
        raise ValueError("no parameter is trainable: unfreeze a block or add a head")
    copied_groups = [{"weight_decay": 0.0, **group, "params": list(group["params"])} for group in groups]
    fused = all(p.device.type in ("cpu", "cuda") and p.is_floating_point() for g in copied_groups for p in g["params"])
    optimizer = _create(spec, copied_groups, fused)
    optimizer.register_load_state_dict_pre_hook(_keep_kernel_choice)
    return optimizer


def _create(spec: OptimizerSpec, groups: list[dict[str, Any]], fused: bool) -> torch.optim.Optimizer:
    match spec.kind:
        case "sgd":
            return _add_decay_hook(torch.optim.SGD(_with_decoupled_decay(groups), spec.lr, fused=fused))
        case "momentum":
            sgd = _add_decay_hook(
                torch.optim.SGD(_with_decoupled_decay(groups), spec.lr, momentum=spec.momentum, fused=fused)
            )
            return _as_mean_momentum(sgd, spec.momentum)
        case "heavy_ball":
            return _add_decay_hook(
                torch.optim.SGD(_with_decoupled_decay(groups), spec.lr, momentum=spec.momentum, fused=fused)
            )
        case "nesterov":
            nesterov = spec.momentum > 0  # torch refuses nesterov=True without momentum
            sgd = torch.optim.SGD(
                _with_decoupled_decay(groups), spec.lr, momentum=spec.momentum, nesterov=nesterov, fused=fused
            )
            return _add_decay_hook(sgd)
        case "adagrad":
            on_cpu = fused and all(p.device.type == "cpu" for g in groups for p in g["params"])
            return _add_decay_hook(
                torch.optim.Adagrad(_with_decoupled_decay(groups), spec.lr, eps=spec.eps, fused=on_cpu)
            )
        case "rmsprop":
            return _add_decay_hook(
                torch.optim.RMSprop(_with_decoupled_decay(groups), spec.lr, alpha=spec.rho, eps=spec.eps)
            )
        case "adam" | "adamw":
            return torch.optim.AdamW(groups, spec.lr, betas=spec.betas, eps=spec.eps, fused=fused)
        case "nadam":
            return torch.optim.NAdam(
                groups,
                spec.lr,
                betas=spec.betas,
                eps=spec.eps,
                momentum_decay=spec.momentum_decay,
                decoupled_weight_decay=True,
            )
        case "lion":
            return Lion(groups, spec.lr, betas=spec.betas)
        case "muon":
            return Muon(_split_matrices(spec, groups), spec.lr, momentum=spec.momentum, fused=fused)


def _with_decoupled_decay(groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Move the decay to `decoupled_decay`: torch's `weight_decay` of these kinds is coupled (added to the gradient)."""
    return [{**group, "weight_decay": 0.0, "decoupled_decay": group["weight_decay"]} for group in groups]


def _add_decay_hook(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    def decay(optimizer: torch.optim.Optimizer, _args: Any, _kwargs: Any) -> None:
        for group in optimizer.param_groups:
            params = [p for p in group["params"] if p.grad is not None] if group["decoupled_decay"] else []
            if params:
                with torch.no_grad():
                    torch._foreach_mul_(params, 1 - group["lr"] * group["decoupled_decay"])

    optimizer.register_step_pre_hook(decay)
    return optimizer


def _as_mean_momentum(sgd: torch.optim.Optimizer, momentum: float) -> torch.optim.Optimizer:
    """Turn heavy ball into m = b*m + (1-b)*g: that m is (1-b) times heavy ball's, so the step uses the rate eta*(1-b).

    Exact under any schedule, because the factor applies to the step and not to the buffer. (`dampening=b` differs: torch
    does not damp the first gradient.)
    """
    rates: list[float] = []

    def shrink(optimizer: torch.optim.Optimizer, _args: Any, _kwargs: Any) -> None:
        rates[:] = [group["lr"] for group in optimizer.param_groups]
        for group in optimizer.param_groups:
            group["lr"] *= 1 - momentum

    def put_back(optimizer: torch.optim.Optimizer, _args: Any, _kwargs: Any) -> None:
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate

    sgd.register_step_pre_hook(shrink)
    sgd.register_step_post_hook(put_back)
    return sgd


def _split_matrices(spec: optimizers.MuonSpec, groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
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
            split.append({"lr": spec.adam_lr, **group, "params": rest, "muon": False})
    return split


def _is_matrix(parameter: Tensor) -> bool:
    """Return whether the parameter has two or more rows and columns; a single row cannot be orthogonalised."""
    return parameter.ndim >= 2 and 1 < len(parameter) < parameter.numel()


def _keep_kernel_choice(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    """Keep the kernel choice (`fused`, `foreach`) of this machine when a state of another device is loaded."""
    groups = [
        {**saved, **{key: group[key] for key in ("fused", "foreach") if key in group}}
        for saved, group in zip(state["param_groups"], optimizer.param_groups, strict=False)
    ]
    return {**state, "param_groups": groups}

"""From an optimizer spec to a torch optimizer over parameter groups.

A group's rate is `optimizer.param_groups[i]["lr"]`, always the eta of the spec's formula; the loop sets it each step.
"""

from __future__ import annotations

from collections.abc import Sequence
from pkgutil import resolve_name
from typing import Any

import torch

from trainkit.regularize import soft_threshold_
from trainkit.spec.optimizers import OptimizerSpec


def build_optimizer(spec: OptimizerSpec, groups: Sequence[dict[str, Any]]) -> torch.optim.Optimizer:
    """Return the optimizer of the spec.

    A group is {"params", "name", "lr" (optional), "weight_decay" and "proximal_l1" (default 0)}. Decay is decoupled
    whatever the kind: w <- w - eta*wd*w before the update, for parameters that have a gradient. `proximal_l1` is the
    factor of L1's soft threshold after the update: w <- sign(w) max(|w| - eta*gain*proximal_l1, 0), `gain` the spec's
    `step_gain`: a gradient g moves w by eta*gain*g in all, so the minimum is that of L0 + proximal_l1 * sum |w|.
    `state_dict` holds tensors and plain containers and restores bit by bit. Raises ValueError when there is no
    parameter to train.
    """
    if not any(group["params"] for group in groups):
        raise ValueError("no parameter is trainable: unfreeze a block or add a head")
    copied_groups = [
        {"weight_decay": 0.0, "proximal_l1": 0.0, **group, "params": list(group["params"])} for group in groups
    ]
    arguments = spec.torch_arguments()
    if spec.fused_devices:
        parameters = [parameter for group in copied_groups for parameter in group["params"]]
        arguments["fused"] = all(p.device.type in spec.fused_devices and p.is_floating_point() for p in parameters)
    if not spec.decoupled_decay:
        # torch's `weight_decay` of these kinds is coupled (added to the gradient)
        copied_groups = [
            {**group, "weight_decay": 0.0, "decoupled_decay": group["weight_decay"]} for group in copied_groups
        ]
    optimizer: torch.optim.Optimizer = resolve_name(spec.torch_class)(copied_groups, spec.lr, **arguments)
    if not spec.decoupled_decay:
        optimizer.register_step_pre_hook(_decay_weights)
    if spec.rate_factor != 1:
        _scale_rates(optimizer, spec.rate_factor)  # after the hook of the decay, which uses eta itself
    if any(group["proximal_l1"] for group in copied_groups):
        _threshold_weights(optimizer, spec.step_gain)  # after the hook that gives eta back
    optimizer.register_load_state_dict_pre_hook(_keep_kernel_choice)
    return optimizer


def _decay_weights(optimizer: torch.optim.Optimizer, _args: Any, _kwargs: Any) -> None:
    for group in optimizer.param_groups:
        params = [p for p in group["params"] if p.grad is not None] if group["decoupled_decay"] else []
        if params:
            with torch.no_grad():
                torch._foreach_mul_(params, 1 - group["lr"] * group["decoupled_decay"])


def _threshold_weights(optimizer: torch.optim.Optimizer, gain: float) -> None:
    """Take L1's proximal step after each update, for parameters that have a gradient."""

    def threshold(optimizer: torch.optim.Optimizer, _args: Any, _kwargs: Any) -> None:
        for group in optimizer.param_groups:
            params = [p for p in group["params"] if p.grad is not None] if group["proximal_l1"] else []
            if params:
                soft_threshold_(params, group["lr"] * gain * group["proximal_l1"])

    optimizer.register_step_post_hook(threshold)


def _scale_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Take each step at eta * factor: exact under any schedule, since the factor applies to the step and not to a state."""
    rates: list[float] = []

    def scale(optimizer: torch.optim.Optimizer, _args: Any, _kwargs: Any) -> None:
        rates[:] = [group["lr"] for group in optimizer.param_groups]
        for group in optimizer.param_groups:
            group["lr"] *= factor

    def restore(optimizer: torch.optim.Optimizer, _args: Any, _kwargs: Any) -> None:
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate

    optimizer.register_step_pre_hook(scale)
    optimizer.register_step_post_hook(restore)


def _keep_kernel_choice(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    """Keep the kernel choice (`fused`, `foreach`) of this machine when a state of another device is loaded."""
    groups = [
        {**saved, **{key: group[key] for key in ("fused", "foreach") if key in group}}
        for saved, group in zip(state["param_groups"], optimizer.param_groups, strict=False)
    ]
    return {**state, "param_groups": groups}

"""Phases of training: which layers are trained, at which rate, with which optimizer and schedule."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from trainkit.fit.encoding.prepare import Part
from trainkit.fit.evaluation.evaluate import Forward, outputs_of
from trainkit.fit.loop.setup import RunSetup
from trainkit.nn.network import Network, block_names, body_is_frozen, count_parameters, open_modules, set_trainable
from trainkit.optim import Schedule, build_optimizer, build_schedule
from trainkit.regularize import weights_of
from trainkit.spec import JobSpec
from trainkit.spec.training import Blocks, Phase, chosen_blocks


@dataclass(frozen=True, slots=True)
class PhasePlan:
    """One phase: epochs `first` to `last`, both counted from 1."""

    number: int
    first: int
    last: int
    unfreeze: Blocks | None
    """Blocks that are trained beside the head; None: all but `freeze`."""
    freeze: Blocks
    lr: float | None
    body_lr: float | None

    @property
    def epochs(self) -> int:
        """Length of the phase."""
        return self.last - self.first + 1


@dataclass
class ActivePhase:
    """The phase in progress: what is trained, and on what data."""

    plan: PhasePlan
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    parameters: list[nn.Parameter]
    penalised: list[nn.Parameter]
    """Weights (two or more dimensions, outside norm layers) of the trained layers: l1 and l2 apply to them."""
    bounded: list[nn.Module]
    """Modules that max-norm applies to."""
    forward: Forward
    train: Part
    val: Part | None


def plan_phases(spec: JobSpec) -> list[PhasePlan]:
    """The spec's phases, or one over all epochs; the last one takes the epochs that a resumed job was given on top."""
    start = spec.start_from
    if start is None or not start.phases:
        freeze: Blocks = "none" if start is None else "all" if start.freeze == "body" else start.freeze
        return [PhasePlan(0, 1, spec.train.epochs, None, freeze, None, None)]
    plans, first = [], 1
    for number, phase in enumerate(start.phases):
        plans.append(_plan(number, first, phase))
        first += phase.epochs
    if spec.train.epochs > plans[-1].last:
        plans[-1] = replace(plans[-1], last=spec.train.epochs)
    return plans


def _plan(number: int, first: int, phase: Phase) -> PhasePlan:
    return PhasePlan(number, first, first + phase.epochs - 1, phase.unfreeze, "none", phase.lr, phase.body_lr)


def enter(network: Network, plan: PhasePlan) -> list[str]:
    """Freeze and unfreeze what the plan says; returns the names of the body's trained blocks."""
    if plan.unfreeze is not None:
        return set_trainable(network, plan.unfreeze)
    names = block_names(network)
    frozen = chosen_blocks(names, plan.freeze)
    if not frozen and plan.freeze != "all":
        return set_trainable(network, "all")
    return set_trainable(network, tuple(name for name in names if name not in frozen) or "none")


def trained_parameters(network: Network, plans: list[PhasePlan]) -> dict[str, Any]:
    """`{trainable, phases}`: parameters that any phase trains; `{first_epoch, last_epoch, trainable, blocks}` of each phase.

    `blocks` are the body's; the head is trained in every phase. Leaves the network as the first phase trains it.
    """
    trained: dict[int, int] = {}
    phases = []
    for plan in plans:
        blocks = enter(network, plan)
        trained |= {id(one): one.numel() for one in network.parameters() if one.requires_grad}
        _, trainable = count_parameters(network)
        phases.append({"first_epoch": plan.first, "last_epoch": plan.last, "trainable": trainable, "blocks": blocks})
    enter(network, plans[0])
    return {"trainable": sum(trained.values()), "phases": phases}


def open_phase(setup: RunSetup, plan: PhasePlan, steps_per_epoch: int, samples: int) -> ActivePhase:
    """Freeze and unfreeze layers, and build a new optimizer and schedule for the phase. `samples`: n of the penalties.

    A frozen body without augmentation gives the same features in every epoch: they are computed once, here.
    """
    spec, network, data = setup.spec, setup.network, setup.data
    proximal_l1 = spec.regularize.proximal_l1(samples)
    optimizer = optimizer_for(spec, plan, network, setup.adapter, proximal_l1=proximal_l1)
    rates = [float(group["lr"]) for group in optimizer.param_groups]
    bounded = open_modules(network)
    forward, train, val = setup.forward, data.train, data.val
    if _caches_features(spec, network, setup.adapter):
        network.eval()
        train = _features(network, train, data.preprocessing)
        val = _features(network, val, data.preprocessing) if val else None
        forward = lambda x, _side_input: network.head(x)  # noqa: E731
    return ActivePhase(
        plan=plan,
        optimizer=optimizer,
        schedule=build_schedule(spec.schedule, rates, steps_per_epoch, plan.epochs),
        parameters=[parameter for group in optimizer.param_groups for parameter in group["params"]],
        penalised=[weight for module in bounded for weight in weights_of(module)],
        bounded=bounded,
        forward=forward,
        train=train,
        val=val,
    )


def optimizer_for(
    spec: JobSpec,
    plan: PhasePlan,
    network: Network,
    extra: nn.Module | None = None,
    *,
    proximal_l1: float = 0.0,
) -> torch.optim.Optimizer:
    """Freeze and thaw as the plan says, and the spec's optimizer over what is open then."""
    enter(network, plan)
    groups = _groups(network, plan, spec.regularize.weight_decay, proximal_l1, extra)
    if spec.optimizer.elementwise:  # Muon tells hidden matrices from the head by the groups' names
        groups = _merged(groups)
    return build_optimizer(spec.optimizer, groups)


def _groups(
    network: Network, plan: PhasePlan, decay: float, proximal_l1: float, extra: nn.Module | None
) -> list[dict[str, Any]]:
    """Head and body, each as weights (decayed) and the rest (biases and norms, never decayed); open ones only."""
    modules: list[tuple[str, nn.Module, float | None, float]] = [
        ("body", network.body, plan.body_lr if plan.body_lr is not None else plan.lr, proximal_l1),
        ("head", network.head, plan.lr, proximal_l1),
    ]
    if extra is not None:
        modules.append(("domain", extra, plan.lr, 0.0))
    groups = []
    for name, module, lr, l1 in modules:
        decayed = {id(weight) for weight in weights_of(module)}
        open_parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
        for suffix, chosen, amounts in (
            (
                "weights",
                [p for p in open_parameters if id(p) in decayed],
                {"weight_decay": decay, "proximal_l1": l1},
            ),
            ("rest", [p for p in open_parameters if id(p) not in decayed], {"weight_decay": 0.0, "proximal_l1": 0.0}),
        ):
            if chosen:
                group: dict[str, Any] = {"name": f"{name} {suffix}", "params": chosen, **amounts}
                groups.append(group if lr is None else {**group, "lr": lr})
    return groups


def _merged(groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Groups of one rate, decay and L1 as one: each group costs an optimizer call of its own in every step."""
    merged: dict[tuple[Any, float, float], dict[str, Any]] = {}
    for group in groups:
        key = (group.get("lr"), group["weight_decay"], group["proximal_l1"])
        if key in merged:
            same = merged[key]
            merged[key] = {
                **same,
                "name": f"{same['name']}, {group['name']}",
                "params": same["params"] + group["params"],
            }
        else:
            merged[key] = group
    return list(merged.values())


def _caches_features(spec: JobSpec, network: Network, extra: nn.Module | None) -> bool:
    allowed = spec.start_from is not None and spec.start_from.cache_features is not False
    parameterless = next(network.body.parameters(), None) is None
    return allowed and not parameterless and not spec.augment and extra is None and body_is_frozen(network)


def _features(network: Network, part: Part, preprocess: Callable[[Tensor], Tensor]) -> Part:
    features = outputs_of(network.features, part, preprocess)
    # A clone made outside inference mode: tensors made inside it cannot be saved for a backward pass.
    return replace(part, x=features.clone(), side_input=None, pending=False)

"""Statistics beside losses and metrics: norms of gradients and weights, dead units, memory and processor use.

Recording changes no number of the training: norms are read, activations observed by hooks, no generator is drawn from.
Tensors stay on the device until a log step or an evaluation, which reads them at once.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import psutil
import torch
from torch import Tensor, nn

from trainkit.fit.encoding.prepare import Part
from trainkit.fit.evaluation.activation_stats import RECTIFYING, SAMPLES, SQUASHING, UnitStats, modules_of
from trainkit.fit.evaluation.evaluate import outputs_of
from trainkit.fit.loop.batches import BatchPlan
from trainkit.fit.loop.nonfinite import eager_forward
from trainkit.fit.loop.phases import ActivePhase
from trainkit.fit.loop.setup import RunSetup
from trainkit.regularize import EMBEDDINGS, NORMS

MOST_LAYERS = 32
"""Layers with rows of their own; of more, so many are taken at even distances, the first and the last among them."""

Rows = dict[str, dict[str, float]]
Shares = dict[str, dict[str, float]]
T = TypeVar("T")


class MetricRecorder:
    """Observes the gradient of chosen steps before clipping and update, and turns it into rows when they are due."""

    def __init__(self, setup: RunSetup, batches: BatchPlan) -> None:
        train = setup.spec.train
        self._setup, self._log_every = setup, log_every_steps(setup, batches)
        self._evaluate_every = train.evaluate_every_steps
        self._clips = train.clip_norm is not None
        self._on, self._by_layer = train.log_stats != "none", train.log_stats == "layers"
        self._usage = SystemUsage(setup.device)
        self._parameters: list[nn.Parameter] = []
        self._layers: list[tuple[str, list[int]]] = []
        self._activations: list[tuple[str, nn.Module]] = []
        self._step = -1
        self._waits = False
        self._gradients: Sequence[Tensor] = []
        self.grad_norm: Tensor | None = None
        """The norm that clipping has found for the whole gradient, in the step just done."""

    def open(self, phase: ActivePhase) -> None:
        """Record the parameters that the phase trains."""
        self._parameters = phase.parameters
        self._layers = layers_of(self._setup.network, self._parameters) if self._by_layer else []
        self._activations = modules_of(self._setup.network, RECTIFYING + SQUASHING) if self._on else []

    def observe_gradient(self, step: int, *, ends_epoch: bool) -> None:
        """Keep the norms of this step's gradient where they are logged: penalties included, not yet clipped."""
        evaluates = ends_epoch or bool(self._evaluate_every and step % self._evaluate_every == 0)
        if self._on and (evaluates or step % self._log_every == 0):
            self._step, self._waits, self.grad_norm = step, evaluates, None
            by_layer = evaluates and self._by_layer
            self._gradients = norms(_gradients(self._parameters)) if by_layer or not self._clips else []

    def at_log_step(self, step: int, loss: Tensor | None, phase: ActivePhase) -> Rows:
        """Rows of a log step; those of a step that is evaluated come with the evaluation. `loss`: its row, if wanted."""
        rows: dict[str, float] = {}
        if self._on and self._step == step and not self._waits:
            rate = leading_rate(phase)
            read, gradients, weights = self._read([] if loss is None else [loss])
            rows = {"batch_loss": read[0]} if read else {}
            rows |= {"lr": rate, "grad_norm": together(gradients), "weight_norm": together(weights)}
        elif loss is not None:
            rows = {"batch_loss": float(loss)}
        system = self._usage.rows() if self._on and self._usage.due(evaluation=False) else {}
        return {split: one for split, one in (("train", rows), ("system", system)) if one}

    def at_evaluation(self, step: int, shares: Shares) -> tuple[dict[str, float], Rows]:
        """(more rows of the training part, rows that the history leaves out) of an evaluation."""
        totals, layers = self.norms_of_step(step)
        for name, of in shares.items():
            totals[name] = of[""]
            if self._by_layer:
                layers |= {f"{name}.{path}": of[path] for path in _spread([path for path in of if path])}
        system = self._usage.rows() if self._on and self._usage.due(evaluation=True) else {}
        return totals, {split: one for split, one in (("layers", layers), ("system", system)) if one}

    def norms_of_step(self, step: int) -> tuple[dict[str, float], dict[str, float]]:
        """Norms over all open parameters, and by layer; nothing at a step whose gradient was not looked at."""
        if not (self._waits and self._step == step):
            return {}, {}
        self._waits = False
        _, gradients, weights = self._read([])
        layers: dict[str, float] = {}
        whole = gradients if self.grad_norm is None else gradients[-1:]
        for name, by_parameter in (("grad_norm", gradients), ("weight_norm", weights)):
            if self._gradients:
                layers |= {
                    f"{name}.{path}": together([by_parameter[place] for place in places])
                    for path, places in self._layers
                }
        return {"grad_norm": together(whole), "weight_norm": together(weights)}, layers

    def _read(self, also: list[Tensor]) -> tuple[list[float], list[float], list[float]]:
        """(those, norms of the gradients, norms of the weights as they are now): one transfer from an accelerator."""
        gradients = self._gradients if self.grad_norm is None else [*self._gradients, self.grad_norm]
        weights = norms([parameter.detach() for parameter in self._parameters])
        values = torch.stack([*also, *gradients, *weights]).tolist()
        start, end = len(also), len(also) + len(gradients)
        return values[:start], values[start:end], values[end:]

    def validation_outputs(self, phase: ActivePhase) -> tuple[Tensor | None, Shares]:
        """Raw outputs of the validation part, if there is one, and what share of units is idle, heard in the same pass.

        Where there is no such pass, or a compiled one, which cannot be listened to, the first samples make one more.
        """
        setup, part = self._setup, phase.val
        forward, preprocess = phase.forward, setup.data.preprocessing
        setup.network.eval()
        units = UnitStats(self._activations)
        if part is not None and not (setup.runtime.compile and forward is setup.forward):
            with units.watch(forward) as watched:
                return outputs_of(watched, part, preprocess), units.shares()
        z = None if part is None else outputs_of(forward, part, preprocess)
        if self._activations:
            with units.watch(eager_forward(setup, phase)) as watched:
                outputs_of(watched, _first(part or phase.train), preprocess)
        return z, units.shares()

    def state_dict(self, step: int) -> dict[str, Any] | None:
        """Norms of the last step's gradient for a checkpoint between that step and its evaluation; None elsewhere."""
        if not self._waits or self._step != step:
            return None
        norm = None if self.grad_norm is None else float(self.grad_norm)
        return {"step": self._step, "gradients": [float(one) for one in self._gradients], "grad_norm": norm}

    def load_state_dict(self, saved: dict[str, Any] | None) -> None:
        """Restore `state_dict`."""
        if saved is not None and self._on:
            device = self._setup.device
            self._step, self._waits = saved["step"], True
            self._gradients = [torch.tensor(one, device=device) for one in saved["gradients"]]
            self.grad_norm = None if saved["grad_norm"] is None else torch.tensor(saved["grad_norm"], device=device)


def log_every_steps(setup: RunSetup, batches: BatchPlan) -> int:
    """Steps from one log step to the next: the spec's, or about ten times an epoch."""
    return setup.spec.train.log_every_steps or max(10, batches.count // 10)


def leading_rate(phase: ActivePhase) -> float:
    """Groups may differ (a small rate for the body, Adam's for Muon's biases): the row tells the leading one."""
    return max(float(group["lr"]) for group in phase.optimizer.param_groups)


def norms(tensors: list[Tensor]) -> Sequence[Tensor]:
    """The L2 norm of each. They ask for no gradient."""
    return torch._foreach_norm(tensors)


def together(parts: Sequence[float]) -> float:
    """The L2 norm of a whole from those of its parts."""
    return math.sqrt(sum(part * part for part in parts))


def layers_of(network: nn.Module, parameters: Sequence[nn.Parameter]) -> list[tuple[str, list[int]]]:
    """(module path, places in `parameters`) of the layers whose weights are among them: a layer's own, biases too."""
    places = {id(parameter): place for place, parameter in enumerate(parameters)}
    found = []
    for path, module in network.named_modules():
        of_layer = {name: one for name, one in module.named_parameters(recurse=False) if id(one) in places}
        # By name: position embeddings and scales of channels are no layers.
        if not isinstance(module, NORMS + EMBEDDINGS) and any(
            "weight" in name and of_layer[name].ndim > 1 for name in of_layer
        ):
            found.append((path, [places[id(one)] for one in of_layer.values()]))
    return _spread(found)


def _spread(items: list[T]) -> list[T]:
    if len(items) <= MOST_LAYERS:
        return items
    return [items[round(number * (len(items) - 1) / (MOST_LAYERS - 1))] for number in range(MOST_LAYERS)]


def _gradients(parameters: Sequence[nn.Parameter]) -> list[Tensor]:
    """What a loss does not depend on has none: that is a zero."""
    return [one.grad if one.grad is not None else torch.zeros((), device=one.device) for one in parameters]


def _first(part: Part) -> Part:
    side_input = None if part.side_input is None else part.side_input[:SAMPLES]
    return replace(part, x=part.x[:SAMPLES], side_input=side_input)


AT_EVALUATIONS, BETWEEN = 1.0, 10.0
"""LowestLoss seconds between two looks, at evaluations and at log steps: a share of less time is noise."""


class SystemUsage:
    """Looks at this process now and then; each look's shares are of the time since the one before."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._process = psutil.Process()
        self._sampled_at: float | None = None
        self._wall, self._cpu = time.monotonic(), time.process_time()
        self._asks_load = device.type == "cuda"

    def due(self, *, evaluation: bool) -> bool:
        """Whether the last look is long enough ago. An evaluation's is the first one."""
        if self._sampled_at is None:
            return evaluation or time.monotonic() - self._wall >= BETWEEN
        return time.monotonic() - self._sampled_at >= (AT_EVALUATIONS if evaluation else BETWEEN)

    def rows(self) -> dict[str, float]:
        """Rows of the split `system`; what this machine does not tell is left out."""
        wall, cpu = time.monotonic(), time.process_time()
        rows = {"process_memory_bytes": float(self._process.memory_info().rss)}
        if (share := percent(cpu - self._cpu, wall - self._wall)) is not None:
            rows["cpu_percent"] = share
        self._sampled_at, self._wall, self._cpu = wall, wall, cpu
        return rows | self._accelerator()

    def _accelerator(self) -> dict[str, float]:
        if self._device.type == "mps":
            return {"gpu_memory_bytes": float(torch.mps.current_allocated_memory())}
        if self._device.type != "cuda":
            return {}
        free, total = torch.cuda.mem_get_info(self._device)
        rows = {
            "gpu_memory_bytes": float(torch.cuda.memory_allocated(self._device)),
            "gpu_memory_reserved_bytes": float(torch.cuda.memory_reserved(self._device)),
            "gpu_device_memory_bytes": float(total - free),
        }
        load = read_or_none(lambda: torch.cuda.utilization(self._device)) if self._asks_load else None
        self._asks_load = load is not None
        return rows if load is None else {**rows, "gpu_percent": load}


def percent(cpu_seconds: float, wall_seconds: float) -> float | None:
    """Of one core = 100: two cores busy all the time make 200. None where no time has passed."""
    return 100.0 * cpu_seconds / wall_seconds if wall_seconds > 0 else None


def read_or_none(ask: Callable[[], float]) -> float | None:
    """The answer of a library that may be missing (NVML's for Python) or refuse; None without one."""
    try:
        return float(ask())
    except Exception:
        return None

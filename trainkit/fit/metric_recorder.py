"""What a run writes down of itself beside losses and metrics: norms, idle units, its use of the machine.

Nothing here changes a number of the training: norms are read, units are listened to, no generator is asked. Tensors
stay on the device until a log step or an evaluation, which reads them at once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from trainkit.fit.activation_stats import RECTIFYING, SAMPLES, SQUASHING, Units, modules_of
from trainkit.fit.evaluate import outputs_of
from trainkit.fit.explain import eager
from trainkit.fit.phases import ActivePhase
from trainkit.fit.run_state import Job
from trainkit.fit.splits import Part
from trainkit.fit.state import Position
from trainkit.fit.usage import Usage
from trainkit.regularize.weights import EMBEDDINGS, NORMS

MOST_LAYERS = 32
"""Layers with rows of their own; of more, so many are taken at even distances, the first and the last among them."""

Rows = dict[str, dict[str, float]]
Shares = dict[str, dict[str, float]]
T = TypeVar("T")


class Recorder:
    """Knows at which steps to look; `gradient` looks before clipping and update, the others make rows of it."""

    def __init__(self, job: Job, every: int) -> None:
        train = job.spec.train
        self._job, self._every, self._between = job, every, train.evaluate_every_steps
        self._clips = train.clip_norm is not None
        self._on, self._by_layer = train.log_stats != "none", train.log_stats == "layers"
        self._usage = Usage(job.device)
        self._parameters: list[nn.Parameter] = []
        self._layers: list[tuple[str, list[int]]] = []
        self._ears: list[tuple[str, nn.Module]] = []
        self._step = -1
        self._waits = False
        self._gradients: Sequence[Tensor] = []
        self.clipped: Tensor | None = None
        """The norm that clipping has found for the whole gradient, in the step just done."""

    def open(self, now_open: ActivePhase) -> None:
        """A phase has begun: its open parameters are those whose norms are told."""
        self._parameters = now_open.parameters
        self._layers = layers_of(self._job.network, self._parameters) if self._by_layer else []
        self._ears = modules_of(self._job.network, RECTIFYING + SQUASHING) if self._on else []

    def gradient(self, step: int, *, ends_epoch: bool) -> None:
        """Look at the gradient of this step, where it is one to be told: penalties included, not yet clipped."""
        evaluates = ends_epoch or bool(self._between and step % self._between == 0)
        if self._on and (evaluates or step % self._every == 0):
            self._step, self._waits, self.clipped = step, evaluates, None
            by_layer = evaluates and self._by_layer
            self._gradients = norms(_gradients(self._parameters)) if by_layer or not self._clips else []

    def at_log_step(self, at: Position, loss: Tensor | None, now_open: ActivePhase) -> Rows:
        """Rows of a log step; those of a step that is evaluated come with the evaluation. `loss`: its row, if wanted."""
        rows: dict[str, float] = {}
        if self._on and self._step == at.step and not self._waits:
            rate = leading_rate(now_open)
            read, gradients, weights = self._read([] if loss is None else [loss])
            rows = {"batch_loss": read[0]} if read else {}
            rows |= {"lr": rate, "grad_norm": together(gradients), "weight_norm": together(weights)}
        elif loss is not None:
            rows = {"batch_loss": float(loss)}
        system = self._usage.rows() if self._on and self._usage.due(evaluation=False) else {}
        return {split: one for split, one in (("train", rows), ("system", system)) if one}

    def at_evaluation(self, at: Position, shares: Shares) -> tuple[dict[str, float], Rows]:
        """(more rows of the training part, rows that the history leaves out) of an evaluation."""
        totals, layers = self.totals(at)
        for name, of in shares.items():
            totals[name] = of[""]
            if self._by_layer:
                layers |= {f"{name}.{path}": of[path] for path in _spread([path for path in of if path])}
        system = self._usage.rows() if self._on and self._usage.due(evaluation=True) else {}
        return totals, {split: one for split, one in (("layers", layers), ("system", system)) if one}

    def totals(self, at: Position) -> tuple[dict[str, float], dict[str, float]]:
        """Norms over all open parameters, and by layer; nothing at a step whose gradient was not looked at."""
        if not (self._waits and self._step == at.step):
            return {}, {}
        self._waits = False
        _, gradients, weights = self._read([])
        layers: dict[str, float] = {}
        whole = gradients if self.clipped is None else gradients[-1:]
        for name, own in (("grad_norm", gradients), ("weight_norm", weights)):
            if self._gradients:
                layers |= {
                    f"{name}.{path}": together([own[place] for place in places]) for path, places in self._layers
                }
        return {"grad_norm": together(whole), "weight_norm": together(weights)}, layers

    def _read(self, also: list[Tensor]) -> tuple[list[float], list[float], list[float]]:
        """(those, norms of the gradients, norms of the weights as they are now): one transfer from an accelerator."""
        gradients = self._gradients if self.clipped is None else [*self._gradients, self.clipped]
        weights = norms([parameter.detach() for parameter in self._parameters])
        values = torch.stack([*also, *gradients, *weights]).tolist()
        start, end = len(also), len(also) + len(gradients)
        return values[:start], values[start:end], values[end:]

    def outputs(self, now_open: ActivePhase) -> tuple[Tensor | None, Shares]:
        """Raw outputs of the validation part, if there is one, and what share of units is idle, heard in the same pass.

        Where there is no such pass, or a compiled one, which cannot be listened to, the first samples make one more.
        """
        job, part = self._job, now_open.val
        forward, preprocess = now_open.forward, job.data.preprocessing
        job.network.eval()
        units = Units(self._ears)
        if part is not None and not (job.decided.compile and forward is job.forward):
            with units.watch(forward) as watched:
                return outputs_of(watched, part, preprocess), units.shares()
        z = None if part is None else outputs_of(forward, part, preprocess)
        if self._ears:
            with units.watch(eager(job, now_open)) as watched:
                outputs_of(watched, _first(part or now_open.train), preprocess)
        return z, units.shares()

    def state(self, at: Position) -> dict[str, Any] | None:
        """What a checkpoint between an epoch's last step and its evaluation holds: the gradient itself is gone then."""
        if not self._waits or self._step != at.step:
            return None
        norm = None if self.clipped is None else float(self.clipped)
        return {"step": self._step, "gradients": [float(one) for one in self._gradients], "clipped": norm}

    def load(self, saved: dict[str, Any] | None) -> None:
        """Go on with what `state` gave."""
        if saved is not None and self._on:
            device = self._job.device
            self._step, self._waits = saved["step"], True
            self._gradients = [torch.tensor(one, device=device) for one in saved["gradients"]]
            self.clipped = None if saved["clipped"] is None else torch.tensor(saved["clipped"], device=device)


def leading_rate(now_open: ActivePhase) -> float:
    """Groups may differ (a small rate for the body, Adam's for Muon's biases): the row tells the leading one."""
    return max(float(group["lr"]) for group in now_open.optimizer.param_groups)


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
        own = {name: one for name, one in module.named_parameters(recurse=False) if id(one) in places}
        # By name: position embeddings and scales of channels are no layers.
        if not isinstance(module, NORMS + EMBEDDINGS) and any("weight" in name and own[name].ndim > 1 for name in own):
            found.append((path, [places[id(one)] for one in own.values()]))
    return _spread(found)


def _spread(items: list[T]) -> list[T]:
    if len(items) <= MOST_LAYERS:
        return items
    return [items[round(number * (len(items) - 1) / (MOST_LAYERS - 1))] for number in range(MOST_LAYERS)]


def _gradients(parameters: Sequence[nn.Parameter]) -> list[Tensor]:
    """What a loss does not depend on has none: that is a zero."""
    return [one.grad if one.grad is not None else torch.zeros((), device=one.device) for one in parameters]


def _first(part: Part) -> Part:
    lengths = None if part.lengths is None else part.lengths[:SAMPLES]
    return replace(part, x=part.x[:SAMPLES], lengths=lengths)

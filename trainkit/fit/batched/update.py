"""Updates of all trials at once: torch's own optimizer over the stack's rows, each trial with its own rate and bounds.

Optimizers that work number by number do not see that a row is many parameters: K rows are K independent runs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from trainkit.fit.batched.parameter_stack import Stack
from trainkit.fit.train_step import Gradient, Update
from trainkit.optim import build_optimizer
from trainkit.regularize import max_norm_stacked_
from trainkit.spec import JobSpec


@dataclass(slots=True)
class Row:
    """A trial's parameters as the optimizer has them: its weights and the rest, or both as one where none decays."""

    pieces: list[nn.Parameter]
    spans: list[tuple[int, int]]
    groups: list[dict[str, Any]]
    """The optimizer's groups that the pieces are in."""


class Updates:
    """Penalties, clipping, the optimizer's step and max-norm for the trials of a stack."""

    def __init__(self, stack: Stack, works: Sequence[Gradient]) -> None:
        self._stack = stack
        groups: dict[Any, dict[str, Any]] = {}
        self._rows = []
        for trial, work in enumerate(works):
            row = Row([], _spans(stack, work.spec), [])
            for part, (start, end) in enumerate(row.spans):
                key = (*_trajectory(work, trial), part)
                decay = work.spec.regularize.weight_decay if part == 0 else 0.0
                group = groups.setdefault(
                    key, {"params": [], "name": f"rows {trial}", "lr": work.spec.optimizer.lr, "weight_decay": decay}
                )
                row.pieces.append(nn.Parameter(stack.values[trial, start:end]))
                group["params"].append(row.pieces[-1])
            self._rows.append(row)
        self._optimizer = build_optimizer(works[0].spec.optimizer, list(groups.values()))
        for row in self._rows:
            row.groups = [self._group_of(piece) for piece in row.pieces]
        self._lent = False
        self._point(works)

    def _group_of(self, piece: nn.Parameter) -> dict[str, Any]:
        return next(g for g in self._optimizer.param_groups if any(one is piece for one in g["params"]))

    def _point(self, works: Sequence[Gradient | Update]) -> None:
        """Let the rows' pieces be views of the stack as it is now, and gather what differs between the trials."""
        stack = self._stack
        for trial, row in enumerate(self._rows):
            for piece, (start, end) in zip(row.pieces, row.spans, strict=True):
                piece.data, piece.grad = stack.values[trial, start:end], stack.gradients[trial, start:end]
        regularize = [work.spec.regularize for work in works]
        bounds = [one.max_norm for one in regularize]
        self._bounds = None
        if any(bounds):
            self._bounds = self._column([math.inf if bound is None else bound for bound in bounds]).squeeze(1)

    def _column(self, numbers: Sequence[float]) -> Tensor:
        """(K, 1), one a trial."""
        return torch.tensor(numbers, dtype=self._stack.values.dtype, device=self._stack.values.device).unsqueeze(1)

    def keep(self, rows: Sequence[int], works: Sequence[Gradient | Update]) -> None:
        """Go on with these trials, whose works these are; the stack has let go of the others already."""
        for trial in set(range(len(self._rows))) - set(rows):
            for piece, group in zip(self._rows[trial].pieces, self._rows[trial].groups, strict=True):
                group["params"] = [one for one in group["params"] if one is not piece]
                self._optimizer.state.pop(piece, None)
        self._optimizer.param_groups = [group for group in self._optimizer.param_groups if group["params"]]
        self._rows = [self._rows[trial] for trial in rows]
        self._point(works)

    def penalise(self, works: Sequence[Gradient]) -> None:
        """grad += (l2/n) w + (l1/n) sign(w), n each trial's own."""
        stack = self._stack
        weights, gradients = stack.values[:, : stack.weights], stack.gradients[:, : stack.weights]
        for name in ("l2", "l1"):
            shares = [getattr(work.spec.regularize, name) / work.batches.samples for work in works]
            if any(shares):
                gradients.addcmul_(weights if name == "l2" else weights.sign(), self._column(shares))

    def step(self, works: Sequence[Update]) -> None:
        """One update of every trial, at the rates that its own schedule has set."""
        options, gradients = works[0].spec.train, self._stack.gradients
        if options.clip_norm is not None:
            norms = torch.linalg.vector_norm(gradients, dim=1)
            gradients.mul_((options.clip_norm / (norms + 1e-6)).clamp(max=1.0).unsqueeze(1))
            for work, norm in zip(works, norms, strict=True):
                work.clipped = norm
        if options.clip_value is not None:
            gradients.clamp_(-options.clip_value, options.clip_value)
        for row, work in zip(self._rows, works, strict=True):
            for group in row.groups:
                group["lr"] = work.now_open.optimizer.param_groups[0]["lr"]
        self._optimizer.step()
        if not self._lent:
            self._lend(works)
        if self._bounds is not None:
            for place in self._stack.places:
                if place.end <= self._stack.weights:
                    max_norm_stacked_(place.of(self._stack.values), self._bounds)

    def _lend(self, works: Sequence[Update]) -> None:
        """Let each trial's own optimizer see its part of the state, for checkpoints that the trial alone can resume."""
        self._lent = True
        for network, row, work in zip(self._stack.networks, self._rows, works, strict=True):
            for piece, (start, end) in zip(row.pieces, row.spans, strict=True):
                for place in self._stack.places:
                    if start <= place.start < end:
                        work.now_open.optimizer.state[network.get_parameter(place.name)] = {
                            name: value[place.start - start : place.end - start].view(place.shape)
                            if isinstance(value, Tensor) and value.shape == piece.shape
                            else value
                            for name, value in self._optimizer.state[piece].items()
                        }


def _spans(stack: Stack, spec: JobSpec) -> list[tuple[int, int]]:
    """Pieces of a row: biases and norms never decay, so where the weights do the row is cut in two."""
    length = stack.values.shape[1]
    if not spec.regularize.weight_decay or stack.weights == length:
        return [(0, length)]
    return [(0, stack.weights), (stack.weights, length)]


def _trajectory(work: Gradient, trial: int) -> tuple[Any, ...]:
    """Trials for which this is the same have the same rate in every step: one call of the optimizer serves them all."""
    spec = work.spec
    if spec.schedule.kind == "reduce_on_plateau":
        return (trial,)
    schedule = spec.schedule.model_dump_json()
    return spec.optimizer.lr, spec.regularize.weight_decay, schedule, spec.train.epochs, work.batches.count

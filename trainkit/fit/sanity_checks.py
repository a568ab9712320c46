"""Sanity checks before training: overfit one batch with the fresh network, and train a far smaller model.

A network that cannot overfit one batch, or that ends with a higher loss than a smaller one, has an optimisation that
fails. Both train copies, and the caller gives them a generator of their own: the run's bits are those of a run without.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from trainkit import losses
from trainkit.fit.device import forward_of, in_memory_format
from trainkit.fit.evaluation.metrics import regression_metrics
from trainkit.fit.loop.batches import BatchPlan
from trainkit.fit.loop.phases import optimizer_for, plan_phases
from trainkit.fit.loop.setup import RunSetup
from trainkit.fit.loop.train_step import LossSums, forward_backward
from trainkit.fit.seeding import derive, epoch_order
from trainkit.nn.build import build_model
from trainkit.nn.network import count_parameters
from trainkit.optim import build_optimizer
from trainkit.spec.checks.training import why_sanity_check_skipped
from trainkit.spec.models import smaller_model
from trainkit.spec.optimizers import Adam
from trainkit.spec.training import RegularizeSpec

BATCH_SAMPLES, BATCH_STEPS = 64, 200
"""The first batch, cut to so many samples, for at most so many steps."""
LOOK = 10
"""BatchPlan between looks at the one batch."""
OVERFITTED = 0.99
"""Accuracy, or R^2, from which on a batch counts as overfitted."""
SHARE, LEAST, MOST = 0.1, 100, 500
"""BatchPlan of the smaller model: a tenth of the run's, within these bounds, and never more than the run has."""
TIME_SHARE = 0.1
"""Of `resources.max_seconds`: what a check may take."""
POSTPONED, TOO_LONG = "postponed: the run got a command", "abandoned: it took a tenth of max_seconds"


class _AbandonedError(Exception):
    """A check ends without a result, for the reason in the message."""


@dataclass(slots=True)
class _CheckRows:
    """The rows of a check; they are logged at its end, so that one that is cut short leaves none."""

    rows: list[tuple[int, int, dict[str, float]]] = field(default_factory=list)

    def add(self, step: int, epoch: int, **values: float) -> None:
        """One point: `step` counts the check's own updates."""
        self.rows.append((step, epoch, values))


def run_sanity_checks(setup: RunSetup, done: list[str]) -> None:
    """Run the spec's checks that are not in `done` yet, and add them. One that a command cuts short waits for a resume."""
    for check in setup.spec.train.sanity_checks:
        if check in done:
            continue
        rows, begun = _CheckRows(), time.monotonic()
        reason = why_sanity_check_skipped(setup.spec, check)
        if reason is None:
            setup.events.phase(f"sanity check {check}")
            try:
                reason = SANITY_CHECKS[check](setup, rows)
            except _AbandonedError as abandoned:
                reason = str(abandoned)
        if reason is not None:
            setup.events.log(f"sanity check {check} is left out: {reason}")
        else:
            for step, epoch, values in rows.rows:
                setup.events.rows(step, epoch, {"sanity_check": values}, keep=False)
            words = ", ".join(f"{name} {value:.4g}" for name, value in rows.rows[-1][2].items())
            setup.events.log(
                f"sanity check {check}: {rows.rows[-1][0]} steps in {time.monotonic() - begun:.1f} s: {words}"
            )
        if reason == POSTPONED:
            return
        done.append(check)


def first_batch(setup: RunSetup, logged: _CheckRows) -> str | None:
    """Train a copy of the network on the first batch alone, without augmentation, dropout and penalties.

    The spec's optimizer at its base rate, its clipping and its loss (no label smoothing), until the batch is overfitted.
    Rows `first_batch_loss`, `first_batch_accuracy` or `first_batch_r2`; `first_batch_samples` with the last of them.
    """
    spec, data, part = setup.spec, setup.data, setup.data.train
    assert spec.loss is not None  # resolve() has filled it in
    size = max(2, min(BATCH_SAMPLES, spec.train.batch_size * spec.train.gradient_accumulation_steps))
    rows = data.draw[epoch_order(len(data.draw), spec.train.seed, 1)][:size].to(setup.device)
    if len(rows) < 2:
        return "there is one training sample"
    network = copy.deepcopy(setup.network)
    plain = spec.model_copy(update={"regularize": RegularizeSpec()})
    optimizer = optimizer_for(plain, plan_phases(spec)[0], network)
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    network.train()
    _disable_dropout(network)
    forward, loss_of = forward_of(network, setup.runtime, compiled=False), losses.build(spec.loss, outputs=data.outputs)
    x, side_input = part.take(rows)
    x, target = data.preprocessing(x) if part.pending else x, part.targets[rows]
    x = in_memory_format(x, setup.runtime)
    begun = time.monotonic()
    for step in range(BATCH_STEPS + 1):
        z = forward(x, side_input).float()
        loss = loss_of(z, target).mean()
        if step % LOOK == 0:
            name, learnt = _learnt(z.detach(), target, classes=data.scaler is None)
            value, last = float(loss.detach()), step == BATCH_STEPS or learnt >= OVERFITTED
            last = last or not math.isfinite(value)
            count = {"first_batch_samples": float(len(rows))} if last else {}
            logged.add(step, 1, first_batch_loss=value, **{f"first_batch_{name}": learnt}, **count)
            if last:
                return None
        _check_time(setup, begun)
        loss.backward()
        _clip(setup, parameters)
        optimizer.step()
        optimizer.zero_grad()
    return None


def small_model(setup: RunSetup, logged: _CheckRows) -> str | None:
    """Train a far smaller model of the same kind with Adam on the run's own first batches, augmentation included.

    These are the bits of a run of its own with that model and that optimizer, and no penalties, as far as it goes.
    Rows `small_model_loss` (and `_accuracy`): means over the samples since the row before, at ends of epochs, or every
    quarter of its steps where it does not come to the end of one; `small_model_parameters` with the last of them.
    """
    spec, data = setup.spec, setup.data
    model = smaller_model(spec.model)
    assert model is not None  # why_sanity_check_skipped() has seen to it
    seed = derive(spec.train.seed, "init")
    network = build_model(model, data.sample_shape, data.outputs, seed, columns=data.columns).to(setup.device)
    small_size, full_size = count_parameters(network)[0], count_parameters(setup.network)[0]
    if 2 * small_size > full_size:
        return f"the model has {full_size} parameters, and a far smaller one has {small_size}"
    network.train()
    small = replace(setup, network=network, adapter=None, forward=forward_of(network, setup.runtime, compiled=False))
    batches = BatchPlan(small)
    total = batches.count * spec.train.epochs
    steps = min(total, MOST, max(LEAST, round(SHARE * total)))
    stretch = batches.count if steps >= batches.count else max(1, steps // 4)
    optimizer = build_optimizer(Adam(), [{"name": "all", "params": list(network.parameters()), "weight_decay": 0.0}])
    kind, begun = torch.float32 if setup.device.type == "mps" else torch.float64, time.monotonic()
    sums = LossSums(*torch.zeros(2, dtype=kind, device=setup.device))
    right, seen = torch.zeros((), dtype=torch.int64, device=setup.device), 0
    order = torch.empty(0)
    for done in range(stretch * (steps // stretch)):
        epoch, place = divmod(done, batches.count)
        if place == 0:
            order = batches.order(epoch + 1).to(setup.device)
        _check_time(setup, begun)
        start, end = batches.span(epoch + 1, place)
        batch = batches.batch(data.train, order[start:end], epoch + 1, place)
        z, _ = forward_backward(small, batches, small.forward, batch, sums)
        optimizer.step()
        optimizer.zero_grad()
        seen += end - start
        if data.scaler is None:
            right += (z.argmax(1) == data.train.targets[batch.rows]).sum()
        if (done + 1) % stretch == 0:
            total_loss, weight = float(sums.loss), float(sums.weight)
            values = {"small_model_loss": total_loss / (weight if data.class_weights is not None else seen)}
            if data.scaler is None:
                values["small_model_accuracy"] = int(right) / seen
            logged.add(done + 1, epoch + 1, **values)
            if not math.isfinite(total_loss):
                break
            sums.loss.zero_(), sums.weight.zero_(), right.zero_()
            seen = 0
    logged.rows[-1][2]["small_model_parameters"] = float(small_size)
    return None


SANITY_CHECKS: dict[str, Callable[[RunSetup, _CheckRows], str | None]] = {
    "first_batch": first_batch,
    "small_model": small_model,
}
"""Each returns None, or why it has no result."""


def _check_time(setup: RunSetup, begun: float) -> None:
    if setup.control is not None and setup.control.command() is not None:
        raise _AbandonedError(POSTPONED)
    limit = setup.spec.resources.max_seconds
    if limit is not None and time.monotonic() - begun > TIME_SHARE * limit:
        raise _AbandonedError(TOO_LONG)


def _clip(setup: RunSetup, parameters: list[nn.Parameter]) -> None:
    options = setup.spec.train
    if options.clip_norm is not None:
        nn.utils.clip_grad_norm_(parameters, options.clip_norm)
    if options.clip_value is not None:
        nn.utils.clip_grad_value_(parameters, options.clip_value)


def _learnt(z: Tensor, target: Tensor, *, classes: bool) -> tuple[str, float]:
    """("accuracy", the share that is right) or ("r2", 1 - SSE / SST), of the batch."""
    if classes:
        return "accuracy", float((z.argmax(1) == target).float().mean())
    return "r2", regression_metrics(target.cpu().numpy(), z.cpu().numpy())["r2"]


def _disable_dropout(network: nn.Module) -> None:
    """Whatever drops units, channels, paths or states at random: none of it in train mode either."""
    for module in network.modules():
        if isinstance(module, nn.RNNBase | nn.MultiheadAttention):
            module.dropout = 0.0
        if "Dropout" in type(module).__name__ or type(module).__name__ == "StochasticDepth":
            module.eval()

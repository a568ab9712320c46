"""Probes, before training: the fresh network on one batch alone, and a far smaller model on the run's own batches.

A network that cannot learn one batch by heart, or that ends above a smaller one, has an optimisation that fails. Both
train copies, and the caller gives them a generator of their own: the run's bits are those of a run without them.
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
from trainkit.fit.batches import Steps
from trainkit.fit.control import Remembering
from trainkit.fit.device import forward_of, laid_out
from trainkit.fit.metrics import regression_metrics
from trainkit.fit.phases import optimizer_for, plan_phases
from trainkit.fit.run_state import Job
from trainkit.fit.seeding import derive, epoch_order
from trainkit.nn.build import build_model
from trainkit.nn.network import count_parameters
from trainkit.optim import build_optimizer
from trainkit.spec.optimizers import Adam
from trainkit.spec.sanity_checks import smaller_model, why_skipped
from trainkit.spec.training import RegularizeSpec

BATCH_SAMPLES, BATCH_STEPS = 64, 200
"""The first batch, cut to so many samples, for at most so many steps."""
LOOK = 10
"""Steps between looks at the one batch."""
BY_HEART = 0.99
"""Accuracy, or R^2, from which on a batch is known by heart."""
SHARE, LEAST, MOST = 0.1, 100, 500
"""Steps of the smaller model: a tenth of the run's, within these bounds, and never more than the run has."""
TIME_SHARE = 0.1
"""Of `resources.max_seconds`: what a probe may take."""
UNTIL_LATER, TOO_LONG = "put off: the run is asked to do something else", "given up: it took a tenth of max_seconds"


class _GivenUpError(Exception):
    """The probe has to end without a result, for the reason that it is raised with."""


@dataclass(slots=True)
class _Told:
    """The rows of a probe; they are logged at its end, so that one that is cut short leaves none."""

    rows: list[tuple[int, int, dict[str, float]]] = field(default_factory=list)

    def add(self, step: int, epoch: int, **values: float) -> None:
        """One point: `step` counts the probe's own updates."""
        self.rows.append((step, epoch, values))


def run_probes(job: Job) -> None:
    """Run those that the spec asks for and that are not in the log yet. One that a wish cuts short waits for a resume."""
    if job.control is not None:
        job.control = Remembering(job.control)  # a wish that ends a probe is for the training behind it as well
    for probe in job.spec.train.sanity_checks:
        if probe in job.probed:
            continue
        told, begun = _Told(), time.monotonic()
        reason = why_skipped(job.spec, probe)
        if reason is None:
            job.events.phase(f"sanity check {probe}")
            try:
                reason = PROBES[probe](job, told)
            except _GivenUpError as given_up:
                reason = str(given_up)
        if reason is not None:
            job.events.log(f"sanity check {probe} is left out: {reason}")
        else:
            for step, epoch, values in told.rows:
                job.events.rows(step, epoch, {"sanity_check": values}, keep=False)
            words = ", ".join(f"{name} {value:.4g}" for name, value in told.rows[-1][2].items())
            job.events.log(
                f"sanity check {probe}: {told.rows[-1][0]} steps in {time.monotonic() - begun:.1f} s: {words}"
            )
        if reason == UNTIL_LATER:
            return
        job.probed.append(probe)


def first_batch(job: Job, told: _Told) -> str | None:
    """Train a copy of the network on the first batch alone, without augmentation, dropout and penalties.

    The spec's optimizer at its base rate, its clipping and its loss (no label smoothing), until all is known by heart.
    Rows `first_batch_loss`, `first_batch_accuracy` or `first_batch_r2`; `first_batch_samples` with the last of them.
    """
    spec, data, part = job.spec, job.data, job.data.train
    assert spec.loss is not None  # resolve() has filled it in
    size = max(2, min(BATCH_SAMPLES, spec.train.batch_size * spec.train.gradient_accumulation_steps))
    rows = data.draw[epoch_order(len(data.draw), spec.train.seed, 1)][:size].to(job.device)
    if len(rows) < 2:
        return "there is one training sample"
    network = copy.deepcopy(job.network)
    plain = spec.model_copy(update={"regularize": RegularizeSpec()})
    optimizer = optimizer_for(plain, plan_phases(spec)[0], network)
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    network.train()
    _silence_dropout(network)
    forward, loss_of = forward_of(network, job.decided, compiled=False), losses.build(spec.loss, outputs=data.outputs)
    x, lengths = part.take(rows)
    x, target = data.preprocessing(x) if part.pending else x, part.targets[rows]
    x = laid_out(x, job.decided)
    begun = time.monotonic()
    for step in range(BATCH_STEPS + 1):
        z = forward(x, lengths).float()
        loss = loss_of(z, target).mean()
        if step % LOOK == 0:
            name, learnt = _learnt(z.detach(), target, classes=data.scaler is None)
            value, last = float(loss.detach()), step == BATCH_STEPS or learnt >= BY_HEART
            last = last or not math.isfinite(value)
            count = {"first_batch_samples": float(len(rows))} if last else {}
            told.add(step, 1, first_batch_loss=value, **{f"first_batch_{name}": learnt}, **count)
            if last:
                return None
        _may_go_on(job, begun)
        loss.backward()
        _clip(job, parameters)
        optimizer.step()
        optimizer.zero_grad()
    return None


def small_model(job: Job, told: _Told) -> str | None:
    """Train a far smaller model of the same kind with Adam on the run's own first batches, augmentation included.

    These are the bits of a run of its own with that model and that optimizer, and no penalties, as far as it goes.
    Rows `small_model_loss` (and `_accuracy`): means over the samples since the row before, at ends of epochs, or every
    quarter of its steps where it does not come to the end of one; `small_model_parameters` with the last of them.
    """
    spec, data = job.spec, job.data
    model = smaller_model(spec.model)
    assert model is not None  # why_skipped() has seen to it
    network = build_model(model, data.sample_shape, data.outputs, derive(spec.train.seed, "init")).to(job.device)
    own, of = count_parameters(network)[0], count_parameters(job.network)[0]
    if 2 * own > of:
        return f"the model has {of} parameters, and a far smaller one is of {own}"
    network.train()
    probe = replace(job, network=network, adapter=None, forward=forward_of(network, job.decided, compiled=False))
    batches = Steps(probe)
    total = batches.count * spec.train.epochs
    steps = min(total, MOST, max(LEAST, round(SHARE * total)))
    stretch = batches.count if steps >= batches.count else max(1, steps // 4)
    optimizer = build_optimizer(Adam(), [{"name": "all", "params": list(network.parameters()), "weight_decay": 0.0}])
    kind, begun = torch.float32 if job.device.type == "mps" else torch.float64, time.monotonic()
    sums = torch.zeros(2, dtype=kind, device=job.device)
    right, seen = torch.zeros((), dtype=torch.int64, device=job.device), 0
    order = torch.empty(0)
    for done in range(stretch * (steps // stretch)):
        epoch, place = divmod(done, batches.count)
        if place == 0:
            order = data.draw[epoch_order(len(data.draw), spec.train.seed, epoch + 1)].to(job.device)
        _may_go_on(job, begun)
        start, end = batches.span(place)
        batch = batches.batch(data.train, order[start:end], epoch + 1, place)
        z, _ = batches.gradient(probe.forward, batch, sums[0], sums[1], epoch + 1, place, 0.0)
        optimizer.step()
        optimizer.zero_grad()
        seen += end - start
        if data.scaler is None:
            right += (z.argmax(1) == data.train.targets[batch.rows]).sum()
        if (done + 1) % stretch == 0:
            total_loss, weight = sums.tolist()
            values = {"small_model_loss": total_loss / (weight if data.class_weights is not None else seen)}
            if data.scaler is None:
                values["small_model_accuracy"] = int(right) / seen
            told.add(done + 1, epoch + 1, **values)
            if not math.isfinite(total_loss):
                break
            sums.zero_(), right.zero_()
            seen = 0
    told.rows[-1][2]["small_model_parameters"] = float(own)
    return None


PROBES: dict[str, Callable[[Job, _Told], str | None]] = {"first_batch": first_batch, "small_model": small_model}
"""Each returns None, or why it came to nothing."""


def _may_go_on(job: Job, begun: float) -> None:
    if job.control is not None and job.control.wish() is not None:
        raise _GivenUpError(UNTIL_LATER)
    limit = job.spec.resources.max_seconds
    if limit is not None and time.monotonic() - begun > TIME_SHARE * limit:
        raise _GivenUpError(TOO_LONG)


def _clip(job: Job, parameters: list[nn.Parameter]) -> None:
    options = job.spec.train
    if options.clip_norm is not None:
        nn.utils.clip_grad_norm_(parameters, options.clip_norm)
    if options.clip_value is not None:
        nn.utils.clip_grad_value_(parameters, options.clip_value)


def _learnt(z: Tensor, target: Tensor, *, classes: bool) -> tuple[str, float]:
    """("accuracy", the share that is right) or ("r2", 1 - SSE / SST), of the batch."""
    if classes:
        return "accuracy", float((z.argmax(1) == target).float().mean())
    return "r2", regression_metrics(target.cpu().numpy(), z.cpu().numpy())["r2"]


def _silence_dropout(network: nn.Module) -> None:
    """Whatever drops units, channels, paths or states at random: none of it in train mode either."""
    for module in network.modules():
        if isinstance(module, nn.RNNBase | nn.MultiheadAttention):
            module.dropout = 0.0
        if "Dropout" in type(module).__name__ or type(module).__name__ == "StochasticDepth":
            module.eval()

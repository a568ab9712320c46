"""The training loop. It reads from top to bottom; what it needs is prepared elsewhere, and it imports no framework.

Data order is f(seed, epoch), augmentation f(seed, epoch, step), dropout draws from the global generator, which is part
of the checkpoint: so a run resumed at any step does the very same arithmetic as one that was never interrupted.
Nothing is read back from the device but once an epoch and once every `log_every_steps`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainkit.augment import Augmenter
from trainkit.fit import checkpoint
from trainkit.fit.best import Best
from trainkit.fit.control import Control, Wish
from trainkit.fit.dann import DomainAdapter
from trainkit.fit.device import Decided, autocast, laid_out
from trainkit.fit.early_stop import Decision, EarlyStopping, Evaluation, first_stop
from trainkit.fit.evaluate import Forward, measure, outputs_of, training_metrics
from trainkit.fit.events import Events
from trainkit.fit.phases import Open, open_phase, plan_phases
from trainkit.fit.prepare import Prepared
from trainkit.fit.seeding import epoch_order
from trainkit.fit.state import Position, prune, rng_state, set_rng_state
from trainkit.nn.network import Network
from trainkit.regularize import add_penalty_gradient_, max_norm_, penalty
from trainkit.spec import JobSpec

Outcome = Literal["finished", "handed_back", "paused", "cancelled"]


@dataclass
class Job:
    """Everything a run is made of, ready on the device."""

    spec: JobSpec
    data: Prepared
    network: Network
    forward: Forward
    """The network, compiled or under autocast."""
    loss: Callable[[Tensor, Tensor], Tensor]
    augmenter: Augmenter | None
    adapter: DomainAdapter | None
    stopping: EarlyStopping
    best: Best
    decided: Decided
    device: torch.device
    events: Events
    control: Control | None
    workdir: Path | None
    spec_hash: str
    resume: dict[str, Any] | None
    """A checkpoint's state to go on from."""
    branch: bool = False
    """Whether another run wrote it, with other settings of the optimizer and the schedule."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How training ended."""

    outcome: Outcome
    stop_reason: str
    epoch: int
    step: int
    keep: Literal["best", "last"] = "best"
    checkpoint: Path | None = None


def steps_in_epoch(samples: int, batch_size: int, network: nn.Module) -> int:
    """Steps of an epoch; the last batch may be smaller.

    With batch norm a last batch of one sample joins the one before it: one sample has no variance to normalise by.
    """
    steps, rest = divmod(samples, batch_size)
    alone = rest == 1 and steps > 0 and any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in network.modules())
    return max(1, steps + (1 if rest and not alone else 0))


def train(job: Job) -> Ended:
    """Train until the epochs are done, a rule or a wish says stop, or time is up; leaves the last weights."""
    spec, network, events, device = job.spec, job.network, job.events, job.device
    options, regularize = spec.train, spec.regularize
    mixes = job.augmenter is not None and job.augmenter.mixes
    data, scaler, class_weights, preprocess = job.data, job.data.scaler, job.data.class_weights, job.data.preprocessing
    samples, epochs, batch_size = len(data.draw), options.epochs, options.batch_size
    steps = steps_in_epoch(samples, batch_size, network)
    every = options.log_every_steps or max(10, steps // 10)
    plans = plan_phases(spec)
    sum_type = torch.float32 if device.type == "mps" else torch.float64
    at, now_open, resumed = Position(), None, job.resume
    if resumed is not None:
        at = Position(**resumed["position"])
        network.load_state_dict(resumed["network"])
        if job.adapter is not None:
            job.adapter.load_state_dict(resumed["adapter"])
        job.stopping.load(resumed["early_stop"])
        job.best.load(resumed["best"], network)
        events.history += resumed["history"]
    begun, saved_at, first_step = time.monotonic(), time.monotonic(), at.step
    spent_before = at.seconds
    limit = spec.resources.max_seconds

    while at.epoch <= epochs:
        events.phase(f"epoch {at.epoch}/{epochs}")
        plan = next(plan for plan in plans if plan.first <= at.epoch <= plan.last)
        if now_open is None or now_open.plan.number != plan.number:
            now_open = open_phase(
                spec, plan, network, job.forward, data.train, data.val, steps, preprocess, job.adapter
            )
        optimizer, schedule, forward, part = now_open.optimizer, now_open.schedule, now_open.forward, now_open.train
        order = data.draw[epoch_order(samples, options.seed, at.epoch)].to(device)
        # Per-sample predictions of the epoch: one small write a step now, one metric at the end, no waiting between.
        shape = (samples,) if scaler is None else (samples, data.outputs)
        predicted = torch.zeros(shape, dtype=torch.int64 if scaler is None else torch.float32, device=device)
        loss_sum = torch.zeros((), dtype=sum_type, device=device)
        weight_sum = torch.zeros((), dtype=sum_type, device=device)
        if resumed is not None:
            if at.step_in_epoch or at.epoch > plan.first:  # a phase's own beginning has nothing to load
                settings = {"param_groups": optimizer.state_dict()["param_groups"]} if job.branch else {}
                optimizer.load_state_dict({**resumed["optimizer"], **settings})
                if not job.branch:
                    schedule.load(resumed["schedule"])
            predicted[: len(resumed["predicted"])] = resumed["predicted"].to(device)
            loss_sum, weight_sum = resumed["loss_sum"].to(device), resumed["weight_sum"].to(device)
            set_rng_state(resumed["rng"], device)
            resumed = None
        network.train()
        epoch_begun, epoch_from = time.monotonic(), at.step_in_epoch
        step_before_phase = (plan.first - 1) * steps

        for step in range(at.step_in_epoch, steps):
            start, end = step * batch_size, (step + 1) * batch_size if step + 1 < steps else samples
            rows = order[start:end]
            x, lengths = part.take(rows)
            target = part.targets[rows]
            if job.augmenter is not None:
                if mixes and scaler is None:
                    target = F.one_hot(target, data.outputs).float()
                x, mixed = job.augmenter.apply(
                    x, target if mixes else None, seed=options.seed, epoch=at.epoch, step=step
                )
                target = target if mixed is None else mixed
            x = laid_out(preprocess(x) if part.pending else x, job.decided)

            for group, rate in zip(optimizer.param_groups, schedule.rates(at.step - step_before_phase), strict=True):
                group["lr"] = rate
            if job.adapter is None:
                z = forward(x, lengths)
                extra = None
            else:
                progress = at.step / (steps * epochs)
                with autocast(job.decided):
                    z, extra = job.adapter(network, x, lengths, epoch=at.epoch, step=step, progress=progress)
            losses = job.loss(z.float(), target)
            if class_weights is None:
                loss = losses.mean()
                loss_sum.add_(loss.detach(), alpha=end - start)
            else:
                weights = class_weights[target] if target.ndim == 1 else target @ class_weights
                weighted, total = (losses * weights).sum(), weights.sum()
                loss = weighted / total
                loss_sum.add_(weighted.detach())
                weight_sum.add_(total)
            (loss if extra is None else loss + extra).backward()
            if regularize.l1 or regularize.l2:
                add_penalty_gradient_(now_open.penalised, regularize.l1, regularize.l2, samples)
            if options.clip_norm is not None:
                nn.utils.clip_grad_norm_(now_open.parameters, options.clip_norm)
            if options.clip_value is not None:
                nn.utils.clip_grad_value_(now_open.parameters, options.clip_value)
            optimizer.step()
            for parameter in now_open.parameters:  # what zero_grad does, at a third of its cost
                parameter.grad = None
            if regularize.max_norm is not None:
                for module in now_open.bounded:
                    max_norm_(module, regularize.max_norm)
            if scaler is None:
                torch.argmax(z.detach(), 1, out=predicted[start:end])
            else:
                predicted[start:end] = z.detach()

            at.step += 1
            at.step_in_epoch = step + 1
            now = time.monotonic()
            at.seconds = spent_before + now - begun
            if at.step % every == 0:
                value = float(loss.detach())
                events.rows(at.step, at.epoch, {"train": {"batch_loss": value}}, keep=False)
                rate = (at.step_in_epoch - epoch_from) * batch_size / max(now - epoch_begun, 1e-9)
                _progress(job, at, steps, begun, first_step, rate, force=False)
                decision = job.stopping.observe_batch_loss(at.epoch, at.step, value)
                if decision is not None:
                    _decided(events, decision)
                    return Ended("finished", "diverged", at.epoch, at.step)
            evaluated = bool(options.evaluate_every_steps) and at.step % (options.evaluate_every_steps or 1) == 0
            if evaluated and at.step_in_epoch < steps:  # an epoch's last step is evaluated below, with its whole rows
                values = _epoch_metrics(
                    job, now_open, at, predicted, order, end, loss_sum, weight_sum, epoch_begun, epoch_from
                )
                measured = _evaluate(job, now_open, at, values)
                at.seconds = spent_before + time.monotonic() - begun
                ended = _judge(job, now_open, at, measured)
                if ended is not None:
                    return ended
                network.train()
            wish = job.control.wish() if job.control is not None else None
            if wish is not None or (limit is not None and at.seconds >= limit):
                action = wish["action"] if wish is not None else "stop"
                if action == "cancel":
                    return Ended("cancelled", "client_stop", at.epoch, at.step)
                if action in ("pause", "handback"):
                    saved = _checkpoint(job, at, now_open, predicted[:end], loss_sum, weight_sum)
                    return Ended(
                        "paused" if action == "pause" else "handed_back",
                        "shutdown",
                        at.epoch,
                        at.step,
                        checkpoint=saved,
                    )
                if not evaluated or at.step_in_epoch == steps:
                    values = _epoch_metrics(
                        job, now_open, at, predicted, order, end, loss_sum, weight_sum, epoch_begun, epoch_from
                    )
                    _evaluate(job, now_open, at, values)
                return _stopped(job, at, wish, limit)
            if options.checkpoint_seconds and now - saved_at >= options.checkpoint_seconds and at.step_in_epoch < steps:
                _checkpoint(job, at, now_open, predicted[:end], loss_sum, weight_sum)
                saved_at = time.monotonic()

        values = _epoch_metrics(
            job, now_open, at, predicted, order, samples, loss_sum, weight_sum, epoch_begun, epoch_from
        )
        evaluates = _is_due(job, at) or at.epoch == epochs
        if evaluates:
            measured = _evaluate(job, now_open, at, values)
        else:
            events.rows(at.step, at.epoch, {"train": values})
        at.seconds = spent_before + time.monotonic() - begun
        _progress(job, at, steps, begun, first_step, values["samples_per_second"], force=True)
        ended = _judge(job, now_open, at, measured) if evaluates else None
        if ended is not None:
            return ended
        at.epoch, at.step_in_epoch = at.epoch + 1, 0
        due = time.monotonic() - saved_at >= options.checkpoint_seconds and (options.checkpoint_seconds or evaluates)
        if due and at.epoch <= epochs:
            _checkpoint(job, at, now_open, predicted[:0], torch.zeros_like(loss_sum), torch.zeros_like(weight_sum))
            saved_at = time.monotonic()
    return Ended("finished", "completed", epochs, at.step)


def _epoch_metrics(
    job: Job,
    now_open: Open,
    at: Position,
    predicted: Tensor,
    order: Tensor,
    done: int,
    loss_sum: Tensor,
    weight_sum: Tensor,
    begun: float,
    from_step: int,
) -> dict[str, float]:
    """The training rows of an epoch (or of its first `done` samples). The data loss and the penalty stand apart."""
    weighted = job.data.class_weights is not None
    values = {"loss": float(loss_sum) / (float(weight_sum) if weighted else done)}
    values |= training_metrics(predicted[:done], order[:done], now_open.train, job.data.scaler)
    regularize = job.spec.regularize
    with torch.no_grad():
        own = penalty(now_open.penalised, regularize.l1, regularize.l2, len(job.data.draw))
    values["penalty"] = float(own)
    # Groups may differ (a small rate for the body, Adam's for Muon's biases): the row tells the leading one.
    values["lr"] = max(float(group["lr"]) for group in now_open.optimizer.param_groups)
    steps_done = at.step_in_epoch - from_step
    share = steps_done / max(at.step_in_epoch, 1)
    values["samples_per_second"] = done * share / max(time.monotonic() - begun, 1e-9)
    return values


def _evaluate(job: Job, now_open: Open, at: Position, training: dict[str, float]) -> dict[str, float]:
    """Measure the validation part, write the epoch's rows, keep the best; returns `val_loss`, `train_loss` ..."""
    rows = {"train": training}
    measured = {f"train_{name}": value for name, value in training.items()}
    if now_open.val is not None:
        job.network.eval()
        z = outputs_of(now_open.forward, now_open.val, job.data.preprocessing)
        area = any(getattr(rule, "monitor", "") == "val_roc_auc" for rule in (*job.spec.early_stop, job.spec.schedule))
        rows["val"] = measure(
            z,
            now_open.val,
            job.loss,
            class_weights=job.data.class_weights,
            scaler=job.data.scaler,
            area=area or job.best.monitor == "val_roc_auc",
            kind=job.spec.loss.kind if job.spec.loss is not None else "cross_entropy",
        )
        measured |= {f"val_{name}": value for name, value in rows["val"].items()}
    job.events.rows(at.step, at.epoch, rows)
    monitor = job.best.monitor
    if monitor is not None and job.best.observe(at.epoch, measured[monitor], job.network):
        job.events.emit("best", epoch=at.epoch, metric=monitor, value=measured[monitor])
    return measured


def _is_due(job: Job, at: Position) -> bool:
    """Whether the end of an epoch is evaluated: every so many epochs, or every so many steps where the spec says so."""
    options = job.spec.train
    if options.evaluate_every_steps is not None:
        return at.step % options.evaluate_every_steps == 0
    return at.epoch % options.evaluate_every_epochs == 0


def _judge(job: Job, now_open: Open, at: Position, measured: dict[str, float]) -> Ended | None:
    """Ask every rule about an evaluation and record the answers; the end, when one of them says stop."""
    decisions = job.stopping.observe(Evaluation(at.epoch, at.step, measured, at.seconds))
    for decision in decisions:
        _decided(job.events, decision)
    stop = first_stop(decisions)
    if stop is not None:
        return Ended("finished", str(stop.stop_reason), at.epoch, at.step)
    if job.spec.schedule.kind == "reduce_on_plateau":
        now_open.schedule.observe(measured[job.spec.schedule.monitor])
    return None


def _stopped(job: Job, at: Position, wish: Wish | dict[str, Any] | None, limit: float | None) -> Ended:
    """The end that a client asked for, or that `resources.max_seconds` sets; a decision like those of the rules."""
    keep: Literal["best", "last"] = wish.get("keep", "best") if wish is not None else "best"
    rule: dict[str, Any] = {"kind": "client_stop"}
    inputs: dict[str, Any] = {"keep": keep}
    reason, stop_reason = f"the client asked to stop and keep the {keep} weights", "client_stop"
    if wish is None:
        rule, inputs = {"kind": "max_seconds", "seconds": limit}, {"seconds": at.seconds, "budget": limit}
        reason, stop_reason = f"{at.seconds:.1f} s of {limit:g} s are spent", "time_limit"
    decision = {"rule": rule, "step": at.step, "epoch": at.epoch, "inputs": inputs, "action": "stop"}
    job.events.emit("decision", **decision, reason=reason)
    return Ended("finished", stop_reason, at.epoch, at.step, keep=keep)


def _checkpoint(
    job: Job, at: Position, now_open: Open, predicted: Tensor, loss_sum: Tensor, weight_sum: Tensor
) -> Path | None:
    """Everything that the next step depends on, in one file."""
    if job.workdir is None:
        return None
    folder = job.workdir / "checkpoints"
    state = {
        "spec_hash": job.spec_hash,
        "versions": job.decided.versions,
        "position": {
            "epoch": at.epoch,
            "step_in_epoch": at.step_in_epoch,
            "step": at.step,
            "seconds": at.seconds,
        },
        "network": job.network.state_dict(),
        "adapter": job.adapter.state_dict() if job.adapter is not None else {},
        "optimizer": now_open.optimizer.state_dict(),
        "schedule": now_open.schedule.state(),
        "rng": rng_state(job.device),
        "early_stop": job.stopping.state(),
        "best": job.best.state(),
        "predicted": predicted,
        "loss_sum": loss_sum,
        "weight_sum": weight_sum,
        "history": job.events.history,
    }
    saved = checkpoint.save(folder / f"step-{at.step:09d}.safetensors", state)
    prune(folder)
    job.events.emit(
        "checkpoint",
        path=str(saved.path.absolute()),
        step=at.step,
        epoch=at.epoch,
        sha256=saved.sha256,
        bytes=saved.bytes,
        exact=job.decided.resume_exact,
    )
    return saved.path


def _progress(job: Job, at: Position, steps: int, begun: float, first_step: int, rate: float, *, force: bool) -> None:
    job.events.progress(
        epoch=at.epoch,
        epochs=job.spec.train.epochs,
        step=at.step,
        steps=steps * job.spec.train.epochs,
        seconds=time.monotonic() - begun,
        done=at.step - first_step,
        rate=rate,
        force=force,
    )


def _decided(events: Events, decision: Decision) -> None:
    events.emit("decision", **{name: value for name, value in decision.as_dict().items() if name != "stop_reason"})

"""The training loop. It reads from top to bottom; what it needs is prepared elsewhere, and it imports no framework.

Data order is f(seed, epoch), augmentation f(seed, epoch, step), dropout draws from the global generator, which is part
of the checkpoint: so a run resumed at any step does the very same arithmetic as one that was never interrupted.
Nothing is read back from an accelerator but once an epoch and once every `log_every_steps`.
"""

from __future__ import annotations

import math
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from trainkit.diagnose.early_stopping import EarlyStopDecision, Evaluation, first_stop
from trainkit.fit import checkpoint
from trainkit.fit.batches import Steps
from trainkit.fit.control import Wish
from trainkit.fit.evaluate import measure, training_metrics
from trainkit.fit.events import Events
from trainkit.fit.explain import explain_evaluation, explain_step
from trainkit.fit.metric_recorder import Recorder, leading_rate
from trainkit.fit.nonfinite import Watch, is_finite, sentence
from trainkit.fit.phases import ActivePhase, open_phase, plan_phases
from trainkit.fit.run_state import Job, TrainingOutcome
from trainkit.fit.seeding import epoch_order
from trainkit.fit.state import Position, prune, rng_state, set_rng_state
from trainkit.fit.train_step import Gradient, Training, Update, alone
from trainkit.regularize import penalty

BEST_SHARE = 0.1
"""Of `checkpoint_seconds`: how long a new best waits for its checkpoint, where others wait for all of it."""


def train(job: Job) -> TrainingOutcome:
    """Train until the epochs are done, a rule or a wish says stop, or time is up; leaves the last weights."""
    return alone(training(job))


def training(job: Job) -> Training:
    """The same, with the arithmetic of each step left to whoever goes through it."""
    spec, network, events, device = job.spec, job.network, job.events, job.device
    options = spec.train
    data, scaler, preprocess = job.data, job.data.scaler, job.data.preprocessing
    samples, epochs, batches = len(data.draw), options.epochs, Steps(job)
    steps = batches.count
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
        if not job.branch:  # what a loss means may differ there
            job.least.load(resumed.get("least"), device)
        events.history += resumed["history"]
        job.not_finite = None if job.branch else resumed.get("not_finite")
    begun, saved_at, first_step = time.monotonic(), time.monotonic(), at.step
    spent_before = at.seconds
    limit = spec.resources.max_seconds
    watch, recorder = Watch(device, every, at.step), Recorder(job, every)

    while at.epoch <= epochs:
        events.phase(f"epoch {at.epoch}/{epochs}")
        plan = next(plan for plan in plans if plan.first <= at.epoch <= plan.last)
        if now_open is None or now_open.plan.number != plan.number:
            now_open = open_phase(
                spec, plan, network, job.forward, data.train, data.val, steps, preprocess, job.adapter
            )
            recorder.open(now_open)
        optimizer, schedule, part = now_open.optimizer, now_open.schedule, now_open.train
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
            recorder.load(resumed.get("recorded"))
            resumed = None
        network.train()
        epoch_begun, epoch_from = time.monotonic(), at.step_in_epoch
        step_before_phase, since = (plan.first - 1) * steps, epoch_begun

        for step in range(at.step_in_epoch, steps):
            start, end = batches.span(step)
            batch = batches.batch(part, order[start:end], at.epoch, step)
            for group, rate in zip(optimizer.param_groups, schedule.rates(at.step - step_before_phase), strict=True):
                group["lr"] = rate
            share = at.step / (steps * epochs)
            wanted = Gradient(spec, now_open, batches, batch, loss_sum, weight_sum, at.epoch, step, share)
            yield wanted
            z, loss = wanted.z, wanted.loss
            if watch.note(at.step + 1, loss) and job.not_finite is None:
                # Before the update: the weights that made it are still there to be looked at.
                ended = _not_finite(job, now_open, batches, at, order, at.step + 1, float(loss))
                if ended is not None:
                    return ended
            recorder.gradient(at.step + 1, ends_epoch=step + 1 == steps)
            update = Update(spec, now_open)
            yield update
            recorder.clipped = update.clipped
            if scaler is None:
                torch.argmax(z, 1, out=predicted[start:end])
            else:
                predicted[start:end] = z

            at.step += 1
            at.step_in_epoch = step + 1
            now = since = at.spend(since)
            at.seconds = spent_before + now - begun
            if at.step % every == 0:
                ended = _looked(job, now_open, batches, watch, at, order)
                if ended is not None:
                    return ended
                told = job.not_finite is not None and job.not_finite["step"] == at.step  # its row is there already
                if values_now := recorder.at_log_step(at, None if told else loss, now_open):
                    events.rows(at.step, at.epoch, values_now, keep=False)
                rate = (at.step_in_epoch - epoch_from) * batches.size / max(now - epoch_begun, 1e-9)
                _progress(job, at, steps, begun, first_step, rate, force=False)
            evaluated = bool(options.evaluate_every_steps) and at.step % (options.evaluate_every_steps or 1) == 0
            if evaluated and at.step_in_epoch < steps:  # an epoch's last step is evaluated below, with its whole rows
                ended = _looked(job, now_open, batches, watch, at, order)
                if ended is not None:
                    return ended
                at.spend(since)
                values = _epoch_metrics(
                    job, now_open, at, predicted, order, end, loss_sum, weight_sum, epoch_begun, epoch_from
                )
                measured = _evaluate(job, now_open, at, values, recorder)
                at.seconds = spent_before + time.monotonic() - begun
                ended = _judge(job, now_open, at, measured)
                if ended is not None:
                    return ended
                network.train()
                since = time.monotonic()
            wish = job.control.wish() if job.control is not None else None
            if wish is not None or (limit is not None and at.seconds >= limit):
                action = wish["action"] if wish is not None else "stop"
                if action == "cancel":
                    return TrainingOutcome("cancelled", "client_stop", at.epoch, at.step)
                if action in ("pause", "handback"):
                    saved = _checkpoint(job, at, now_open, predicted[:end], loss_sum, weight_sum, recorder)
                    return TrainingOutcome(
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
                    _evaluate(job, now_open, at, values, recorder)
                return _stopped(job, at, wish, limit)
            if options.checkpoint_seconds and now - saved_at >= options.checkpoint_seconds and at.step_in_epoch < steps:
                _checkpoint(job, at, now_open, predicted[:end], loss_sum, weight_sum, recorder)
                saved_at = since = time.monotonic()

        ended = _looked(job, now_open, batches, watch, at, order)
        if ended is not None:
            return ended
        at.spend(since)  # an accelerator has done the last step only now
        values = _epoch_metrics(
            job, now_open, at, predicted, order, samples, loss_sum, weight_sum, epoch_begun, epoch_from
        )
        evaluates = _is_due(job, at) or at.epoch == epochs
        if evaluates:
            measured = _evaluate(job, now_open, at, values, recorder)
        else:
            events.rows(at.step, at.epoch, {"train": {**values, **recorder.totals(at)[0]}})
        at.seconds = spent_before + time.monotonic() - begun
        _progress(job, at, steps, begun, first_step, values["samples_per_second"], force=True)
        ended = _judge(job, now_open, at, measured) if evaluates else None
        if ended is not None:
            return ended
        at.epoch, at.step_in_epoch, at.epoch_seconds = at.epoch + 1, 0, 0.0
        # A new best is worth a checkpoint of its own, though not each of a hundred a second.
        wait = options.checkpoint_seconds * (BEST_SHARE if job.best.epoch == at.epoch - 1 else 1)
        due = time.monotonic() - saved_at >= wait and (options.checkpoint_seconds or evaluates)
        if due and at.epoch <= epochs:
            nothing = torch.zeros_like(loss_sum)
            _checkpoint(job, at, now_open, predicted[:0], nothing, nothing, recorder)
            saved_at = time.monotonic()
    return TrainingOutcome("finished", "completed", epochs, at.step)


def _epoch_metrics(
    job: Job,
    now_open: ActivePhase,
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
    values["lr"] = leading_rate(now_open)
    steps_done = at.step_in_epoch - from_step
    share = steps_done / max(at.step_in_epoch, 1)
    values["samples_per_second"] = done * share / max(time.monotonic() - begun, 1e-9)
    if done == len(job.data.draw):
        values["epoch_seconds"] = at.epoch_seconds
    return values


def _evaluate(
    job: Job, now_open: ActivePhase, at: Position, training: dict[str, float], recorder: Recorder
) -> dict[str, float]:
    """Measure the validation part, write the epoch's rows, keep the best; returns `val_loss`, `train_loss` ..."""
    measured = {f"train_{name}": value for name, value in training.items()}
    z, shares = recorder.outputs(now_open)
    recorded, aside = recorder.at_evaluation(at, shares)
    rows = {"train": {**training, **recorded}}
    if z is not None and now_open.val is not None:
        area = any(getattr(rule, "monitor", "") == "val_roc_auc" for rule in (*job.spec.early_stop, job.spec.schedule))
        rows["val"] = measure(
            z,
            now_open.val,
            job.loss,
            class_weights=job.data.class_weights,
            scaler=job.data.scaler,
            area=area or job.best.monitor == "val_roc_auc",
            kind=job.spec.loss.kind if job.spec.loss is not None else "cross_entropy",
            errors=True,
            least=job.least,
        )
        measured |= {f"val_{name}": value for name, value in rows["val"].items()}
    job.events.rows(at.step, at.epoch, rows, beside=aside)
    losses = {name: value for name, value in measured.items() if name in ("train_loss", "val_loss")}
    finite = all(map(math.isfinite, losses.values()))
    if not finite and job.not_finite is None:
        job.not_finite = explain_evaluation(job, now_open, at, losses)
    monitor = job.best.monitor
    # An accuracy is a number whatever the weights are: those that are not finite are never the best.
    usable = monitor is not None and (finite or is_finite(job.network))
    if monitor is not None and usable and job.best.observe(at.epoch, measured[monitor], job.network):
        job.events.emit("best", epoch=at.epoch, metric=monitor, value=measured[monitor])
    return measured


def _looked(
    job: Job, now_open: ActivePhase, batches: Steps, watch: Watch, at: Position, order: Tensor
) -> TrainingOutcome | None:
    """Read the losses that an accelerator has kept; the end, when one was not finite and a rule says stop."""
    found = watch.look(at.step)
    if found is None or job.not_finite is not None:
        return None
    return _not_finite(job, now_open, batches, at, order, *found)


def _not_finite(
    job: Job, now_open: ActivePhase, batches: Steps, at: Position, order: Tensor, step: int, value: float
) -> TrainingOutcome | None:
    """Explain a batch loss that is not finite, once a job; the end, when a rule says stop."""
    job.not_finite = explain_step(job, now_open, batches, at, order, step, value)
    # Whatever the log steps are: the rules are asked about this very loss, now or in a replay.
    job.events.rows(step, at.epoch, {"train": {"batch_loss": value}}, keep=False)
    decision = job.stopping.observe_batch_loss(at.epoch, step, value)
    if decision is None:
        return None
    _decided(job.events, _explained(decision, job))
    return TrainingOutcome("finished", "diverged", at.epoch, step)


def _explained(decision: EarlyStopDecision, job: Job) -> EarlyStopDecision:
    """With the evidence of where it began, when it stops for a loss that is not finite."""
    if decision.stop_reason != "diverged" or job.not_finite is None:
        return decision
    return replace(
        decision,
        inputs={**decision.inputs, **job.not_finite},
        reason=f"{decision.reason}: {sentence(job.not_finite)}",
    )


def _is_due(job: Job, at: Position) -> bool:
    """Whether the end of an epoch is evaluated: every so many epochs, or every so many steps where the spec says so."""
    options = job.spec.train
    if options.evaluate_every_steps is not None:
        return at.step % options.evaluate_every_steps == 0
    return at.epoch % options.evaluate_every_epochs == 0


def _judge(job: Job, now_open: ActivePhase, at: Position, measured: dict[str, float]) -> TrainingOutcome | None:
    """Ask every rule about an evaluation and record the answers; the end, when one of them says stop."""
    # Says that the rules were asked here, and when: with it a replay of the log sees what they saw.
    job.events.rows(at.step, at.epoch, {"train": {"seconds": at.seconds}}, keep=False)
    decisions = job.stopping.observe(Evaluation(at.epoch, at.step, measured, at.seconds))
    decisions = [_explained(decision, job) for decision in decisions]
    for decision in decisions:
        _decided(job.events, decision)
    stop = first_stop(decisions)
    if stop is not None:
        return TrainingOutcome("finished", str(stop.stop_reason), at.epoch, at.step)
    if job.spec.schedule.kind == "reduce_on_plateau":
        now_open.schedule.observe(measured[job.spec.schedule.monitor])
    return None


def _stopped(job: Job, at: Position, wish: Wish | dict[str, Any] | None, limit: float | None) -> TrainingOutcome:
    """The end that a client asked for, or that `resources.max_seconds` sets; a decision like those of the rules.

    What a rule across jobs has decided is no decision of this run's: it only ends with that reason.
    """
    keep: Literal["best", "last"] = wish.get("keep", "best") if wish is not None else "best"
    if wish is not None and wish.get("stop_reason"):
        job.events.log(f"stopping: {wish.get('reason', wish['stop_reason'])}")
        return TrainingOutcome("finished", str(wish["stop_reason"]), at.epoch, at.step, keep=keep)
    rule: dict[str, Any] = {"kind": "client_stop"}
    inputs: dict[str, Any] = {"keep": keep}
    reason, stop_reason = f"the client asked to stop and keep the {keep} weights", "client_stop"
    if wish is None:
        rule, inputs = {"kind": "max_seconds", "seconds": limit}, {"seconds": at.seconds, "budget": limit}
        reason, stop_reason = f"{at.seconds:.1f} s of {limit:g} s are spent", "time_limit"
    decision = {"rule": rule, "step": at.step, "epoch": at.epoch, "inputs": inputs, "action": "stop"}
    job.events.emit("decision", **decision, reason=reason)
    return TrainingOutcome("finished", stop_reason, at.epoch, at.step, keep=keep)


def _checkpoint(
    job: Job,
    at: Position,
    now_open: ActivePhase,
    predicted: Tensor,
    loss_sum: Tensor,
    weight_sum: Tensor,
    recorder: Recorder,
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
            "epoch_seconds": at.epoch_seconds,
        },
        "network": job.network.state_dict(),
        "adapter": job.adapter.state_dict() if job.adapter is not None else {},
        "optimizer": now_open.optimizer.state_dict(),
        "schedule": now_open.schedule.state(),
        "rng": rng_state(job.device, job.dropout),
        "early_stop": job.stopping.state(),
        "best": job.best.state(),
        "least": job.least.state(),
        "not_finite": job.not_finite,
        "probed": job.probed,
        "predicted": predicted,
        "loss_sum": loss_sum,
        "weight_sum": weight_sum,
        "recorded": recorder.state(at),
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


def _decided(events: Events, decision: EarlyStopDecision) -> None:
    events.emit("decision", **{name: value for name, value in decision.as_dict().items() if name != "stop_reason"})

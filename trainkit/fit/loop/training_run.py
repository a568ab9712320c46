"""A training run: its state, and what happens around each optimizer update and at each end of an epoch.

Data order is f(seed, epoch), augmentation f(seed, epoch, step), dropout draws from a generator that is part of the
checkpoint: a run resumed at any step does the same arithmetic as one that was never interrupted. Nothing is read back
from an accelerator but once an epoch and once every `log_every_steps`.
"""

from __future__ import annotations

import math
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trainkit.diagnose.early_stopping import EarlyStopDecision, Evaluation, first_stop
from trainkit.fit import checkpoint
from trainkit.fit.control import Command
from trainkit.fit.evaluation.evaluate import measure, training_metrics
from trainkit.fit.loop.batches import Batch, BatchPlan
from trainkit.fit.loop.metric_recorder import leading_rate, log_every_steps
from trainkit.fit.loop.nonfinite import LossMonitor, describe_nonfinite, explain_evaluation, explain_step, is_finite
from trainkit.fit.loop.result import Outcome, TrainingOutcome
from trainkit.fit.loop.run_state import RunState
from trainkit.fit.loop.setup import RunSetup
from trainkit.fit.loop.train_step import LossSums, StepResult
from trainkit.regularize import penalty

BEST_SHARE = 0.1
"""Of `checkpoint_seconds`: how long a new best waits for its checkpoint, where others wait for all of it."""


class TrainingRun:
    """Drives one run from outside: `begin_epoch`, then `next_step` and `complete_step` until it is None, `end_epoch`.

    Between `next_step` and `complete_step` whoever drives it computes the gradient, calls `check_gradient`, and updates
    the weights. `outcome` is set once the run has ended; nothing else may be called then.
    """

    def __init__(
        self,
        setup: RunSetup,
        *,
        saved: dict[str, Any] | None = None,
        branch: bool = False,
        sanity_checks: list[str] | None = None,
    ) -> None:
        self.setup = setup
        self.batches = BatchPlan(setup)
        self.state = RunState(setup, self.batches, sanity_checks or [])
        if saved is not None:
            self.state.load_state_dict(saved, branch=branch)
        self.outcome: TrainingOutcome | None = None
        self.log_every = log_every_steps(setup, self.batches)
        position = self.state.position
        if position.epoch > setup.spec.train.epochs:
            self._end("completed", epoch=setup.spec.train.epochs)
        self._loss_monitor = LossMonitor(setup.device, self.log_every, position.step)
        self._order = torch.empty(0, dtype=torch.int64)
        self._started = self._saved_at = time.monotonic()
        self._first_step, self._seconds_before = position.step, position.seconds
        self._epoch_started = self._step_started = self._started
        self._epoch_first_step = 0

    def begin_epoch(self) -> None:
        """Draw the epoch's order, and open its phase."""
        setup, state = self.setup, self.state
        epoch = state.position.epoch
        setup.events.phase(f"epoch {epoch}/{setup.spec.train.epochs}")
        state.enter_phase()
        self._order = self.batches.order(epoch).to(setup.device)
        state.network.train()
        self._epoch_started = self._step_started = time.monotonic()
        self._epoch_first_step = state.position.step_in_epoch

    def next_step(self) -> Batch | None:
        """The next batch, with the learning rates set for it; None when the epoch's steps are done or the run ended."""
        position, phase = self.state.position, self.state.phase
        if self.outcome is not None or position.step_in_epoch == self.batches.count:
            return None
        start, end = self.batches.span(position.epoch, position.step_in_epoch)
        batch = self.batches.batch(phase.train, self._order[start:end], position.epoch, position.step_in_epoch)
        rates = phase.schedule.rates(position.step - self.state.steps_before_phase)
        for group, rate in zip(phase.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        return batch

    @property
    def loss_sums(self) -> LossSums:
        """Sums of the epoch's losses, which each step adds to."""
        return LossSums(self.state.loss_sum, self.state.weight_sum)

    def check_gradient(self, loss: Tensor) -> bool:
        """Look at the loss and its gradient before the update; False when a rule stops the run for a non-finite loss."""
        state, step = self.state, self.state.position.step + 1
        if self._loss_monitor.note(step, loss) and state.not_finite is None:
            # Before the update the weights that made the loss are still there to be examined.
            self._handle_nonfinite(step, float(loss))
            if self.outcome is not None:
                return False
        state.recorder.observe_gradient(step, ends_epoch=state.position.step_in_epoch + 1 == self.batches.count)
        return True

    def complete_step(self, result: StepResult) -> None:
        """Count the update; log, evaluate, obey commands and write a checkpoint where they are due."""
        state, options = self.state, self.setup.spec.train
        position, first = state.position, state.samples_done
        state.recorder.grad_norm = result.grad_norm
        position.step += 1
        position.step_in_epoch += 1
        end = state.samples_done
        if self.setup.data.scaler is None:
            torch.argmax(result.outputs, 1, out=state.predictions[first:end])
        else:
            state.predictions[first:end] = result.outputs
        now = self._count_step_time()
        position.seconds = self._seconds_before + now - self._started

        if position.step % self.log_every == 0:
            self._log_step(result.loss, now)
        every = options.evaluate_every_steps
        # The last step of an epoch is evaluated by `end_epoch`, with the rows of the whole epoch.
        evaluates = every is not None and position.step % every == 0 and position.step_in_epoch < self.batches.count
        if evaluates and self.outcome is None:
            self._evaluate_within_epoch()
        if self.outcome is None:
            self._obey(evaluated=evaluates)
        overdue = options.checkpoint_seconds and now - self._saved_at >= options.checkpoint_seconds
        if overdue and self.outcome is None and position.step_in_epoch < self.batches.count:
            self._save_checkpoint()
            self._step_started = self._saved_at = time.monotonic()

    def end_epoch(self) -> None:
        """Evaluate where it is due, ask the rules, move on to the next epoch, write a checkpoint where it is due."""
        state, options, events = self.state, self.setup.spec.train, self.setup.events
        position, epochs = state.position, options.epochs
        self._read_losses()
        if self.outcome is not None:
            return
        self._count_step_time()  # an accelerator has done the last step only now
        training = self._training_metrics()
        evaluates = self._evaluation_is_due() or position.epoch == epochs
        measured = self.evaluate(training) if evaluates else {}
        if not evaluates:
            rows = {**training, **state.recorder.norms_of_step(position.step)[0]}
            events.rows(position.step, position.epoch, {"train": rows})
        position.seconds = self._seconds_before + time.monotonic() - self._started
        self._emit_progress(training["samples_per_second"], force=True)
        if evaluates:
            self._ask_rules(measured)
        if self.outcome is not None:
            return
        position.epoch, position.step_in_epoch, position.epoch_seconds = position.epoch + 1, 0, 0.0
        state.reset_epoch()
        if position.epoch > epochs:
            self._end("completed", epoch=epochs)
            return
        # A new best is worth a checkpoint of its own, though not each of a hundred a second.
        wait = options.checkpoint_seconds * (BEST_SHARE if state.best.epoch == position.epoch - 1 else 1)
        if time.monotonic() - self._saved_at >= wait and (options.checkpoint_seconds or evaluates):
            self._save_checkpoint()
            self._saved_at = time.monotonic()

    def evaluate(self, training: dict[str, float]) -> dict[str, float]:
        """Measure the validation part, log the rows, keep the best weights; returns `val_loss`, `train_loss` ...

        `training`: the rows of the training part.
        """
        setup, state = self.setup, self.state
        position, monitor = state.position, state.best.monitor
        measured = {f"train_{name}": value for name, value in training.items()}
        outputs, idle_shares = state.recorder.validation_outputs(state.phase)
        recorded, unkept = state.recorder.at_evaluation(position.step, idle_shares)
        rows = {"train": {**training, **recorded}}
        if outputs is not None and state.phase.val is not None:
            monitors = [getattr(rule, "monitor", "") for rule in (*setup.spec.early_stop, setup.spec.schedule)]
            rows["val"] = measure(
                outputs,
                state.phase.val,
                setup.loss,
                class_weights=setup.data.class_weights,
                scaler=setup.data.scaler,
                area="val_roc_auc" in [*monitors, monitor],
                kind=setup.spec.loss.kind if setup.spec.loss is not None else "cross_entropy",
                errors=True,
                lowest_loss=state.lowest_loss,
            )
            measured |= {f"val_{name}": value for name, value in rows["val"].items()}
        setup.events.rows(position.step, position.epoch, rows, beside=unkept)
        losses = {name: value for name, value in measured.items() if name in ("train_loss", "val_loss")}
        finite = all(map(math.isfinite, losses.values()))
        if not finite and state.not_finite is None:
            state.not_finite = explain_evaluation(setup, state.phase, position.step, position.epoch, losses)
        # An accuracy is a number whatever the weights are: those that are not finite are never the best.
        usable = monitor is not None and (finite or is_finite(setup.network))
        if monitor is not None and usable and state.best.observe(position.epoch, measured[monitor], setup.network):
            setup.events.emit("best", epoch=position.epoch, metric=monitor, value=measured[monitor])
        return measured

    def _evaluate_within_epoch(self) -> None:
        self._read_losses()
        if self.outcome is not None:
            return
        self._count_step_time()
        measured = self.evaluate(self._training_metrics())
        self.state.position.seconds = self._seconds_before + time.monotonic() - self._started
        self._ask_rules(measured)
        self.state.network.train()
        self._step_started = time.monotonic()

    def _evaluation_is_due(self) -> bool:
        """At the end of an epoch: every so many epochs, or every so many steps where the spec says so."""
        options, position = self.setup.spec.train, self.state.position
        if options.evaluate_every_steps is not None:
            return position.step % options.evaluate_every_steps == 0
        return position.epoch % options.evaluate_every_epochs == 0

    def _training_metrics(self) -> dict[str, float]:
        """Rows of the training part, of the epoch's samples so far. The data loss and the penalty stand apart."""
        setup, state = self.setup, self.state
        position, regularize, samples = state.position, setup.spec.regularize, state.samples_done
        weighted = setup.data.class_weights is not None
        values = {"loss": float(state.loss_sum) / (float(state.weight_sum) if weighted else samples)}
        values |= training_metrics(
            state.predictions[:samples], self._order[:samples], state.phase.train, setup.data.scaler
        )
        with torch.no_grad():
            values["penalty"] = float(penalty(state.phase.penalised, *regularize.factors(self.batches.samples)))
        values["lr"] = leading_rate(state.phase)
        share = (position.step_in_epoch - self._epoch_first_step) / max(position.step_in_epoch, 1)
        values["samples_per_second"] = samples * share / max(time.monotonic() - self._epoch_started, 1e-9)
        if position.step_in_epoch == self.batches.count:
            values["epoch_seconds"] = position.epoch_seconds
        return values

    def _ask_rules(self, measured: dict[str, float]) -> None:
        """Ask every early-stopping rule about an evaluation, log its decision, and step a plateau schedule."""
        position, events, schedule = self.state.position, self.setup.events, self.setup.spec.schedule
        # This row says that the rules were asked here, and when: a replay of the log asks them the same.
        events.rows(position.step, position.epoch, {"train": {"seconds": position.seconds}}, keep=False)
        decisions = self.state.stopping.observe(Evaluation(position.epoch, position.step, measured, position.seconds))
        decisions = [self._with_evidence(decision) for decision in decisions]
        for decision in decisions:
            self._emit_decision(decision)
        stop = first_stop(decisions)
        if stop is not None:
            self._end(str(stop.stop_reason))
        elif schedule.kind == "reduce_on_plateau":
            self.state.phase.schedule.observe(measured[schedule.monitor])

    def _log_step(self, loss: Tensor, now: float) -> None:
        """Rows and progress of a log step."""
        state, position, events = self.state, self.state.position, self.setup.events
        self._read_losses()
        if self.outcome is not None:
            return
        is_logged = state.not_finite is not None and state.not_finite["step"] == position.step
        rows = state.recorder.at_log_step(position.step, None if is_logged else loss, state.phase)
        if rows:
            events.rows(position.step, position.epoch, rows, keep=False)
        samples = (position.step_in_epoch - self._epoch_first_step) * self.batches.size
        self._emit_progress(samples / max(now - self._epoch_started, 1e-9), force=False)

    def _read_losses(self) -> None:
        """Look for a non-finite loss among those that an accelerator has kept since the last look."""
        found = self._loss_monitor.look(self.state.position.step)
        if found is not None and self.state.not_finite is None:
            self._handle_nonfinite(*found)

    def _handle_nonfinite(self, step: int, value: float) -> None:
        """Explain a batch loss that is not finite, once a run; ends the run where a rule says stop."""
        state, position, events = self.state, self.state.position, self.setup.events
        step_in_epoch = step - (position.step - position.step_in_epoch) - 1
        start, end = self.batches.span(position.epoch, step_in_epoch)
        batch = self.batches.batch(state.phase.train, self._order[start:end], position.epoch, step_in_epoch)
        state.not_finite = explain_step(self.setup, self.batches, state.phase, batch, value, read_at=position.step)
        # Logged even between log steps: the rules are asked about this very loss, now or in a replay.
        events.rows(step, position.epoch, {"train": {"batch_loss": value}}, keep=False)
        decision = state.stopping.observe_batch_loss(position.epoch, step, value)
        if decision is not None:
            self._emit_decision(self._with_evidence(decision))
            self._end("diverged", step=step)

    def _with_evidence(self, decision: EarlyStopDecision) -> EarlyStopDecision:
        """The decision, with the evidence of where a loss that is not finite began when it stops for that."""
        evidence = self.state.not_finite
        if decision.stop_reason != "diverged" or evidence is None:
            return decision
        reason = f"{decision.reason}: {describe_nonfinite(evidence)}"
        return replace(decision, inputs={**decision.inputs, **evidence}, reason=reason)

    def _obey(self, *, evaluated: bool) -> None:
        """End the run when a command or `resources.max_seconds` says so."""
        control, position = self.setup.control, self.state.position
        command = control.command() if control is not None else None
        limit = self.setup.spec.resources.max_seconds
        if command is None and (limit is None or position.seconds < limit):
            return
        action = command["action"] if command is not None else "stop"
        if action == "cancel":
            self.outcome = TrainingOutcome("cancelled", "client_stop", position.epoch, position.step)
        elif action in ("pause", "hand_back"):
            outcome: Outcome = "paused" if action == "pause" else "handed_back"
            path = self._save_checkpoint()
            self.outcome = TrainingOutcome(outcome, "shutdown", position.epoch, position.step, checkpoint=path)
        else:
            if not evaluated:
                self.evaluate(self._training_metrics())
            self._stop(command, limit)

    def _stop(self, command: Command | dict[str, Any] | None, limit: float | None) -> None:
        """End as a client asked, or at `resources.max_seconds`; a decision like those of the rules.

        A stop that a rule across jobs has decided is no decision of this run: it only ends with that reason.
        """
        position, events = self.state.position, self.setup.events
        keep = command.get("keep", "best") if command is not None else "best"
        if command is not None and command.get("stop_reason"):
            events.log(f"stopping: {command.get('reason', command['stop_reason'])}")
            self._end(str(command["stop_reason"]), keep=keep)
            return
        rule: dict[str, Any] = {"kind": "client_stop"}
        inputs: dict[str, Any] = {"keep": keep}
        reason, stop_reason = f"the client asked to stop and keep the {keep} weights", "client_stop"
        if command is None:
            rule, inputs = {"kind": "max_seconds", "seconds": limit}, {"seconds": position.seconds, "budget": limit}
            reason, stop_reason = f"{position.seconds:.1f} s of {limit:g} s are spent", "time_limit"
        decision = {"rule": rule, "step": position.step, "epoch": position.epoch, "inputs": inputs, "action": "stop"}
        events.emit("decision", **decision, reason=reason)
        self._end(stop_reason, keep=keep)

    def _end(self, stop_reason: str, *, epoch: int | None = None, step: int | None = None, keep: Any = "best") -> None:
        position = self.state.position
        epoch, step = position.epoch if epoch is None else epoch, position.step if step is None else step
        self.outcome = TrainingOutcome("finished", stop_reason, epoch, step, keep=keep)

    def _save_checkpoint(self) -> Path | None:
        """Write the state to `workdir`/checkpoints; None without a work folder."""
        setup, position = self.setup, self.state.position
        if setup.workdir is None:
            return None
        header = {"spec_hash": setup.spec_hash, "versions": setup.runtime.versions}
        path = setup.workdir / "checkpoints" / f"step-{position.step:09d}.safetensors"
        saved = checkpoint.save(path, {**header, **self.state.state_dict()})
        checkpoint.prune(path.parent)
        setup.events.emit(
            "checkpoint",
            path=str(saved.path.absolute()),
            step=position.step,
            epoch=position.epoch,
            sha256=saved.sha256,
            bytes=saved.bytes,
            exact=setup.runtime.resume_exact,
        )
        return saved.path

    def _count_step_time(self) -> float:
        """Add the time since the last step to the epoch's; returns now."""
        now = time.monotonic()
        self.state.position.epoch_seconds += now - self._step_started
        self._step_started = now
        return now

    def _emit_progress(self, rate: float, *, force: bool) -> None:
        epochs, position = self.setup.spec.train.epochs, self.state.position
        self.setup.events.progress(
            epoch=position.epoch,
            epochs=epochs,
            step=position.step,
            steps=self.batches.count * epochs,
            seconds=time.monotonic() - self._started,
            done=position.step - self._first_step,
            rate=rate,
            force=force,
        )

    def _emit_decision(self, decision: EarlyStopDecision) -> None:
        fields = {name: value for name, value in decision.as_dict().items() if name != "stop_reason"}
        self.setup.events.emit("decision", **fields)

"""All that changes while a run trains, in one object that goes into a checkpoint and comes back out of it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from trainkit.diagnose.early_stopping import EarlyStopping, is_better
from trainkit.fit.evaluation.evaluate import LowestLoss
from trainkit.fit.loop.batches import BatchPlan
from trainkit.fit.loop.metric_recorder import MetricRecorder
from trainkit.fit.loop.phases import ActivePhase, open_phase, plan_phases
from trainkit.fit.loop.setup import RunSetup
from trainkit.spec import JobSpec
from trainkit.spec.metrics import direction


@dataclass
class TrainingPosition:
    """The next step to do. With it every draw of data order and augmentation is known."""

    epoch: int = 1
    step_in_epoch: int = 0
    step: int = 0
    """Optimizer steps done since the start of the job."""
    seconds: float = 0.0
    """Training seconds of all attempts."""
    epoch_seconds: float = 0.0
    """Seconds of this epoch's steps, without evaluations and checkpoints; repeated steps count once."""


class BestWeights:
    """The weights of the best evaluation of `monitor`: better than the best before by more than `min_delta`.

    Copies of parameters and buffers. Ties keep the earlier; non-finite values never win.
    """

    def __init__(self, monitor: str | None, mode: str, min_delta: float = 0.0) -> None:
        self.monitor = monitor
        self.mode = mode
        self.min_delta = min_delta
        self.value: float | None = None
        self.epoch: int | None = None
        self.weights: dict[str, Tensor] | None = None

    @classmethod
    def of(cls, spec: JobSpec) -> BestWeights:
        """Empty, for the spec's monitor. `min_delta` is that of the patience rule, so that both mean the same best."""
        monitor = spec.train.monitor if spec.train.restore_best else None
        rules = (rule for rule in spec.early_stop if rule.kind == "patience" and rule.monitor == monitor)
        return cls(monitor, direction(monitor) if monitor else "min", next((rule.min_delta for rule in rules), 0.0))

    def observe(self, epoch: int, value: float, module: nn.Module) -> bool:
        """Copy the state of `module` when `value` beats the best so far; returns whether it did."""
        if not is_better(value, self.value, self.mode, self.min_delta):
            return False
        self.value, self.epoch = value, epoch
        # Buffers too: batch norm's running statistics belong to the weights they were measured with.
        self.weights = {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}
        return True

    def restore(self, module: nn.Module) -> bool:
        """Load the best weights into `module`; False when no evaluation was ever finite."""
        if self.weights is None:
            return False
        module.load_state_dict(self.weights)
        return True

    def state_dict(self) -> dict[str, Any]:
        """Numbers and tensors for the checkpoint."""
        return {"monitor": self.monitor, "value": self.value, "epoch": self.epoch, "weights": self.weights}

    def load_state_dict(self, state: dict[str, Any], module: nn.Module) -> None:
        """Restore `state_dict`; a best by another metric is dropped, for its value cannot be compared."""
        if state["monitor"] != self.monitor or state["weights"] is None:
            return
        self.value, self.epoch = state["value"], state["epoch"]
        current = module.state_dict()
        self.weights = {name: tensor.to(current[name].device) for name, tensor in state["weights"].items()}


class RunState:
    """The mutable state of a run.

    Between two steps `state_dict` holds all that the next step depends on, so a run that is resumed from it computes
    the same bits as one that was never interrupted.
    """

    def __init__(self, setup: RunSetup, batches: BatchPlan, sanity_checks: list[str]) -> None:
        self._setup, self._batches = setup, batches
        self._plans = plan_phases(setup.spec)
        self.position = TrainingPosition()
        self.network = setup.network
        self.adapter = setup.adapter
        self._phase: ActivePhase | None = None
        self.stopping = EarlyStopping(setup.spec.early_stop)
        self.best = BestWeights.of(setup.spec)
        self.lowest_loss = LowestLoss()
        """The validation samples' losses at their lowest mean."""
        self.recorder = MetricRecorder(setup, batches)
        self.history = setup.events.history
        self.not_finite: dict[str, Any] | None = None
        """Where the loss was first not finite (`explain_step`)."""
        self.sanity_checks = sanity_checks
        """Those that are done or were left out; a resumed run does not repeat them."""
        self.reset_epoch()

    def reset_epoch(self) -> None:
        """Empty what is gathered over an epoch: predictions and sums of the loss, on the device until its end."""
        setup, samples = self._setup, self._batches.samples_of(self.position.epoch)
        classifies = setup.data.scaler is None
        shape = (samples,) if classifies else (samples, setup.data.outputs)
        kind = torch.int64 if classifies else torch.float32
        self.predictions = torch.zeros(shape, dtype=kind, device=setup.device)
        """Classes (n,) or scaled values (n, k) that the training passes predicted, in the epoch's order."""
        sum_type = torch.float32 if setup.device.type == "mps" else torch.float64
        self.loss_sum = torch.zeros((), dtype=sum_type, device=setup.device)
        """sum(l), or sum(w*l) with class weights."""
        self.weight_sum = torch.zeros((), dtype=sum_type, device=setup.device)
        """sum(w) with class weights."""

    @property
    def phase(self) -> ActivePhase:
        """Which layers are trained, with their optimizer and schedule. Needs `enter_phase` before."""
        assert self._phase is not None
        return self._phase

    @property
    def samples_done(self) -> int:
        """Training samples of this epoch that the steps so far have taken."""
        step = self.position.step_in_epoch
        return self._batches.span(self.position.epoch, step - 1)[1] if step else 0

    @property
    def steps_before_phase(self) -> int:
        """Optimizer steps before the phase; its schedule counts from there."""
        return (self.phase.plan.first - 1) * self._batches.count

    def enter_phase(self) -> None:
        """Open the phase of the present epoch, with a new optimizer and schedule, unless it is open already."""
        setup, epoch = self._setup, self.position.epoch
        plan = next((plan for plan in self._plans if plan.first <= epoch <= plan.last), self._plans[-1])
        if self._phase is None or self._phase.plan.number != plan.number:
            self._phase = open_phase(setup, plan, self._batches.count, self._batches.samples)
            self.recorder.open(self._phase)

    def state_dict(self) -> dict[str, Any]:
        """Numbers, lists and tensors; the tensors are not copied."""
        return {
            "position": asdict(self.position),
            "network": self.network.state_dict(),
            "adapter": self.adapter.state_dict() if self.adapter is not None else {},
            "optimizer": self.phase.optimizer.state_dict(),
            "schedule": self.phase.schedule.state(),
            "rng": self._rng_state(),
            "early_stop": self.stopping.state(),
            "best": self.best.state_dict(),
            "lowest_loss": self.lowest_loss.state_dict(),
            "not_finite": self.not_finite,
            "sanity_checks": self.sanity_checks,
            "predictions": self.predictions[: self.samples_done],
            "loss_sum": self.loss_sum,
            "weight_sum": self.weight_sum,
            "recorder": self.recorder.state_dict(self.position.step),
            "history": self.history,
        }

    def load_state_dict(self, saved: dict[str, Any], *, branch: bool = False) -> None:
        """Restore `state_dict`, the random generators included.

        A `branch` starts from the checkpoint of another run: weights, optimizer moments, generators, best and history
        are that run's; the optimizer's settings, the schedule, early stopping and the time spent are its own.
        """
        device = self._setup.device
        self.position = TrainingPosition(**saved["position"])
        self.reset_epoch()
        self.network.load_state_dict(saved["network"])
        if self.adapter is not None:
            self.adapter.load_state_dict(saved["adapter"])
        self.best.load_state_dict(saved["best"], self.network)
        self.history += saved["history"]
        if branch:
            self.position.seconds = 0.0
        else:
            self.stopping.load(saved["early_stop"])
            self.lowest_loss.load_state_dict(saved["lowest_loss"], device)
            self.not_finite = saved["not_finite"]
        self.enter_phase()
        if self.position.step_in_epoch or self.position.epoch > self.phase.plan.first:
            # At the first step of a phase its optimizer is new: there is nothing to load.
            settings = {"param_groups": self.phase.optimizer.state_dict()["param_groups"]} if branch else {}
            self.phase.optimizer.load_state_dict({**saved["optimizer"], **settings})
            if not branch:
                self.phase.schedule.load(saved["schedule"])
        predictions = saved["predictions"].to(device)
        self.predictions[: len(predictions)] = predictions
        self.loss_sum, self.weight_sum = saved["loss_sum"].to(device), saved["weight_sum"].to(device)
        self.recorder.load_state_dict(saved["recorder"])
        self._set_rng_state(saved["rng"])

    def _rng_state(self) -> dict[str, Tensor]:
        """The global generators that dropout draws from, or in batched training the run's own in their place."""
        device, dropout = self._setup.device, self._setup.dropout
        state = {"cpu": torch.get_rng_state()}
        if device.type == "cuda":
            state["cuda"] = torch.cuda.get_rng_state(device)
        return state if dropout is None else {**state, dropout.device.type: dropout.get_state()}

    def _set_rng_state(self, state: dict[str, Tensor]) -> None:
        torch.set_rng_state(state["cpu"])
        if self._setup.device.type == "cuda" and "cuda" in state:
            torch.cuda.set_rng_state(state["cuda"], self._setup.device)

"""The best weights seen: a copy of parameters and buffers, never references."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from trainkit.diagnose.early_stopping import is_better


class Best:
    """Keeps the weights of the best evaluation of `monitor`: better than the best before by more than `min_delta`.

    Ties keep the earlier; non-finite values never win.
    """

    def __init__(self, monitor: str | None, mode: str, min_delta: float = 0.0) -> None:
        self.monitor = monitor
        self.mode = mode
        self.min_delta = min_delta
        self.value: float | None = None
        self.epoch: int | None = None
        self.weights: dict[str, Tensor] | None = None

    def observe(self, epoch: int, value: float, module: nn.Module) -> bool:
        """Take a copy of `module`'s state when `value` beats the best so far; says whether it did."""
        if not is_better(value, self.value, self.mode, self.min_delta):
            return False
        self.value, self.epoch = value, epoch
        # Buffers too: batch norm's running statistics belong to the weights they were measured with.
        self.weights = {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}
        return True

    def restore(self, module: nn.Module) -> bool:
        """Put the best weights back into `module`; False when no evaluation was ever finite."""
        if self.weights is None:
            return False
        module.load_state_dict(self.weights)
        return True

    def state(self) -> dict[str, Any]:
        """Nested dict of numbers and tensors for the checkpoint."""
        return {"monitor": self.monitor, "value": self.value, "epoch": self.epoch, "weights": self.weights}

    def load(self, state: dict[str, Any], module: nn.Module) -> None:
        """Restore what `state` gave; a best by another metric is forgotten, for its value cannot be compared."""
        if state["monitor"] != self.monitor or state["weights"] is None:
            return
        self.value, self.epoch = state["value"], state["epoch"]
        own = module.state_dict()
        self.weights = {name: tensor.to(own[name].device) for name, tensor in state["weights"].items()}

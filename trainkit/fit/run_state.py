"""What a run is made of, and how it ends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from trainkit.augment import Augmenter
from trainkit.diagnose.early_stopping import EarlyStopping
from trainkit.fit.best import Best
from trainkit.fit.control import Control
from trainkit.fit.dann import DomainAdapter
from trainkit.fit.device import Decided
from trainkit.fit.evaluate import Forward, Least
from trainkit.fit.events import Events
from trainkit.fit.prepare import Prepared
from trainkit.nn.network import Network
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
    dropout: torch.Generator | None = None
    """What dropout draws from where many runs are one model; alone it is the global generator."""
    not_finite: dict[str, Any] | None = None
    """Where the loss first was not finite (`trainkit.fit.explain`)."""
    least: Least = field(default_factory=Least)
    """The validation part's losses at their least."""
    probed: list[str] = field(default_factory=list)
    """Probes that are in the log, or were left out for a reason; a resumed run does not run them again."""


@dataclass(frozen=True, slots=True)
class TrainingOutcome:
    """How training ended."""

    outcome: Outcome
    stop_reason: str
    epoch: int
    step: int
    keep: Literal["best", "last"] = "best"
    checkpoint: Path | None = None

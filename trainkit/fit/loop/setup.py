"""The constant part of a run: spec, data, network, loss, runtime. Built once, before the first step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from trainkit.augment import Augmenter
from trainkit.fit.control import Control
from trainkit.fit.device import Runtime
from trainkit.fit.encoding.prepare import Prepared
from trainkit.fit.evaluation.evaluate import Forward
from trainkit.fit.events import Events
from trainkit.fit.loop.dann import DomainAdapter
from trainkit.fit.seeding import derive
from trainkit.nn.network import Network
from trainkit.spec import JobSpec


@dataclass(frozen=True)
class RunSetup:
    """The constant part of a run. What changes while it trains is its `RunState`."""

    spec: JobSpec
    """Resolved."""
    data: Prepared
    network: Network
    forward: Forward
    """The network, compiled or under autocast."""
    loss: Callable[[Tensor, Tensor], Tensor]
    """(raw outputs (m, K), targets) -> losses (m,)."""
    augmenter: Augmenter | None
    adapter: DomainAdapter | None
    runtime: Runtime
    device: torch.device
    events: Events
    control: Control | None
    workdir: Path | None
    spec_hash: str
    dropout: torch.Generator | None = None
    """Generator that dropout draws from in batched training; a run by itself draws from torch's global one."""


def dropout_seed(spec: JobSpec) -> int:
    """Seed of the generator that dropout draws from."""
    return derive(spec.train.seed, "dropout")

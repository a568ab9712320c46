"""Seeds: every draw is a function of the job's seed and of where it happens, so nothing but (epoch, step) is state."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor


def derive(seed: int, *where: str | int) -> int:
    """A 63-bit seed from the job's seed and a place such as ("order", 3). Stable over versions and machines."""
    text = "/".join(str(part) for part in (seed, *where))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def epoch_order(samples: int, seed: int, epoch: int) -> Tensor:
    """The order of the samples in `epoch` (from 1): a permutation (samples,) int64 decided by (seed, epoch) alone."""
    return torch.randperm(samples, generator=torch.Generator().manual_seed(derive(seed, "order", epoch)))

"""Randomness as a function of (seed, epoch, step): drawn on the CPU, so that the device does not matter."""

from __future__ import annotations

import torch

MASK = (1 << 64) - 1


def mixed(*numbers: int) -> int:
    """A 63-bit hash of whole numbers (splitmix64 over each), stable across versions and machines."""
    state = 0x9E3779B97F4A7C15
    for number in numbers:
        state = (state + (number & MASK) * 0xBF58476D1CE4E5B9 + 0x9E3779B97F4A7C15) & MASK
        state = ((state ^ state >> 30) * 0xBF58476D1CE4E5B9) & MASK
        state = ((state ^ state >> 27) * 0x94D049BB133111EB) & MASK
        state ^= state >> 31
    return state & (MASK >> 1)


def generator(seed: int, epoch: int, step: int) -> torch.Generator:
    """The generator of one batch's augmentation."""
    return torch.Generator().manual_seed(mixed(seed, epoch, step))


def uniform(count: int, low: float, high: float, random: torch.Generator) -> torch.Tensor:
    """(count,) float32 from U(low, high)."""
    return torch.rand(count, generator=random) * (high - low) + low


def coin(count: int, p: float, random: torch.Generator) -> torch.Tensor:
    """(count,) bool, true with probability p."""
    return torch.rand(count, generator=random) < p

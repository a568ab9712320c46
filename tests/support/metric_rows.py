"""Rows of a metric log as the tests compare them."""

from __future__ import annotations


def is_clocked(split: str, name: str) -> bool:
    """Whether a row is read from a clock or the machine, and so is no part of the promise of equal bits."""
    return split == "system" or name in ("samples_per_second", "seconds", "epoch_seconds")

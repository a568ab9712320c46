"""Augmentation of training samples, as whole-batch tensor operations."""

from trainkit.augment.augmenter import Augmenter, build, variants

__all__ = ["Augmenter", "build", "variants"]

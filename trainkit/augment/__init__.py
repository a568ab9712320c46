"""Augmentation of training samples, as whole-batch tensor operations."""

from trainkit.augment.augmenter import Augmenter, build
from trainkit.augment.preview import variants

__all__ = ["Augmenter", "build", "variants"]

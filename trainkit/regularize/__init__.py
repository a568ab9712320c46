"""Penalties and constraints on weights."""

from trainkit.regularize.max_norm import max_norm_, max_norm_stacked_
from trainkit.regularize.penalty import add_penalty_gradient_, penalty
from trainkit.regularize.weights import weights_of

__all__ = ["add_penalty_gradient_", "max_norm_", "max_norm_stacked_", "penalty", "weights_of"]

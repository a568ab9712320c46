"""Update rules and learning-rate schedules."""

from trainkit.optim.build import build_optimizer

__all__ = ["build_optimizer"]

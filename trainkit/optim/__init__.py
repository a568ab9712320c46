"""Update rules and learning-rate schedules."""

from trainkit.optim.build import build_optimizer
from trainkit.optim.schedule import Schedule, build_schedule

__all__ = ["Schedule", "build_optimizer", "build_schedule"]

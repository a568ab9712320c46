"""States of a job and the transitions between them."""

from __future__ import annotations

from typing import Literal

State = Literal[
    "validating",
    "queued",
    "starting",
    "running",
    "pausing",
    "paused",
    "stopping",
    "succeeded",
    "stopped",
    "cancelled",
    "failed",
]
ENDED: frozenset[str] = frozenset({"succeeded", "stopped", "cancelled", "failed"})
WITH_WORKER: frozenset[str] = frozenset({"starting", "running", "pausing", "stopping"})
"""States in which a worker holds the lease, and its writes are accepted."""

ALLOWED: dict[str, frozenset[str]] = {
    "validating": frozenset({"queued", "cancelled", "failed"}),
    "queued": frozenset({"starting", "paused", "cancelled", "failed"}),
    "starting": frozenset({"running", "queued", "pausing", "stopping", "cancelled", "failed"}),
    "running": frozenset({"stopping", "pausing", "succeeded", "stopped", "queued", "cancelled", "failed"}),
    "pausing": frozenset({"paused", "stopping", "succeeded", "stopped", "queued", "cancelled", "failed"}),
    "paused": frozenset({"queued", "cancelled"}),
    # a stop that meets a death goes on as a stop: the next attempt evaluates and keeps the best weights
    "stopping": frozenset({"stopped", "succeeded", "queued", "cancelled", "failed"}),
    "succeeded": frozenset(),
    "stopped": frozenset(),
    "cancelled": frozenset(),
    "failed": frozenset(),
}
ACTIVE: frozenset[str] = frozenset(ALLOWED) - ENDED
"""States of a job that has not ended."""


class Conflict(Exception):  # noqa: N818 - an answer, not a failure
    """The job is not in a state from which this change is allowed."""

    def __init__(self, job_id: str, state: str, to: str) -> None:
        self.job_id, self.state, self.to = job_id, state, to
        super().__init__(f"{job_id} is {state}, which cannot become {to}")

"""Jobs that are trained in one go: what the first one's attempt is given of the others, and leaves for theirs.

Each of the others stays a job of its own. What was said and made of it lies as a package in storage, and its own attempt
takes that over as if it had just happened, under its own lease and fence.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy.exc import DBAPIError

from service.database import reading
from service.jobs import batches
from service.jobs.leases import Claimed
from service.jobs.service import QUEUE
from trainkit.spec import DatasetFacts, JobSpec, SpecError, resolve
from trainkit.spec.batching import eligible
from trainkit.spec.estimate import PROCESS_BYTES
from trainkit.spec.memory import needed_bytes
from worker import endings
from worker.beginning import facts_of
from worker.context import Context

log = logging.getLogger(__name__)
MANIFEST = "manifest.json"
"""Written last: a package without it is not complete."""


@dataclass(frozen=True, slots=True)
class Companion:
    """A job that is trained with another. `about` is what its package is checked by."""

    job_id: str
    spec: dict[str, Any]
    about: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Package:
    """What another job's attempt has left for this one."""

    folder: Path
    about: dict[str, Any]


def about(leader: str, prepared_key: str, spec: dict[str, Any]) -> dict[str, Any]:
    """Whose package it is, and of what: a job's spec may have been given more epochs since."""
    document = json.dumps(spec, sort_keys=True).encode()
    return {"leader": leader, "dataset": prepared_key, "spec": hashlib.sha256(document).hexdigest()}


def folder_of(workdir: Path, trial: int) -> Path:
    """Where the leader's training process leaves what belongs to that trial (the leader is 0)."""
    return workdir / f"trial-{trial}"


class Rides:
    """One attempt's dealings with the jobs of its batch."""

    def __init__(self, context: Context, claimed: Claimed) -> None:
        self.context = context
        self.claimed = claimed
        self.companions: tuple[Companion, ...] = ()
        self._key = f"rides/{claimed.job_id}"
        self._waiting = False

    def gather(self, dataset: Path, limit: int, placed: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        """Find who is to be trained along, as many as the estimate lets into `limit` bytes (0: the machine's)."""
        with reading(self.context.sessions) as session:
            found = {job.id: job.resolved or {} for job in batches.companions(session, self.claimed.job_id)}
        if not found:
            return
        self._waiting = True
        most = endings.memory_limit()
        try:
            specs = {job_id: JobSpec.model_validate(spec) for job_id, spec in {"": self.claimed.spec, **found}.items()}
            chosen = _that_fit(specs, facts_of(dataset), min(limit or most, most))
        except (SpecError, ValueError, KeyError):
            return  # they are told alone what is wrong with them
        key, leader = self.claimed.prepared_key, self.claimed.job_id
        self.companions = tuple(
            Companion(job_id, placed(found[job_id]), about(leader, key, found[job_id])) for job_id in chosen
        )

    def tend(self, decided: dict[str, Any] | None) -> None:
        """Once it is known who trains along the others need not wait. Raises StaleFence."""
        if not self._waiting or decided is None:
            return
        along = [companion.job_id for companion in self.companions] if decided.get("batched") else []
        try:
            with self.context.sessions.begin() as session:
                batches.free(session, self.claimed.job_id, self.claimed.fence, along)
        except DBAPIError as error:
            log.warning("job=%s the database is away: %s", self.claimed.job_id, error.orig)
            return
        self._waiting = False
        self.context.doorbell.ring(QUEUE)

    def store(self, workdir: Path, aside: Callable[[Callable[[], Any]], Any]) -> int:
        """Put what is complete where the companions' own attempts find it; returns how many packages that were."""
        stored = 0
        for trial, companion in enumerate(self.companions, 1):
            folder, key = folder_of(workdir, trial), f"rides/{companion.job_id}"
            if not (folder / MANIFEST).is_file():
                continue
            try:
                aside(lambda key=key, folder=folder: self.context.storage.put_tree(key, folder))  # type: ignore[misc]
            except OSError as error:  # it can be trained alone; the leader's own end must not hang on that
                log.warning("job=%s nothing is left for %s: %s", self.claimed.job_id, companion.job_id, error)
                continue
            stored += 1
        return stored

    def package(self) -> Package | None:
        """What has been left for this job, if it has a leader that was trained with it."""
        leader = self.claimed.batch_leader
        if leader is None or not self.context.storage.exists(self._key):
            return None
        told = about(leader, self.claimed.prepared_key, self.claimed.spec)
        return Package(self.context.storage.local_path(self._key), told)

    def ended(self) -> None:
        """The job is done: others may begin that waited for it, and its own package is of no more use."""
        if self.claimed.batch_leader is not None:
            self.context.storage.delete(self._key)
        if self.companions:
            self.context.doorbell.ring(QUEUE)


def _that_fit(specs: dict[str, JobSpec], facts: DatasetFacts, limit: int) -> list[str]:
    """Those after the first that can train with it within the limit."""
    (_, leader), *others = specs.items()
    needed, chosen, together = needed_bytes(resolve(leader, facts), facts), [], [leader]
    for job_id, spec in others:
        needed += needed_bytes(resolve(spec, facts), facts) - PROCESS_BYTES
        if needed > limit:
            break
        chosen.append(job_id)
        together.append(spec)
    return chosen if eligible(together, facts) is None else []

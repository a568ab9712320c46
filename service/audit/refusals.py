"""Refused access, counted: one entry at first, one more for all of the minute, however often it is tried.

Who has no key must not be able to fill the disk: a minute has at most MAX_COUNTED kinds of refusals, and one more for all
others.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy.orm import Session, sessionmaker

from service.audit import repository
from service.audit.changes import DENIED
from service.audit.trail import ANONYMOUS, Facts
from service.database import reading

WINDOW_SECONDS = 60.0
MAX_COUNTED = 50
MAX_LOOKUPS = 100
"""Ids of a second of which it is looked up whether they belong to another project."""


@dataclass(slots=True)
class Counted:
    """Refusals of one kind since `since`."""

    document: dict[str, Any]
    since: float
    count: int = 0
    written: int = 0


@dataclass(frozen=True, slots=True)
class Sought:
    """A resource that was not found by who asked for it."""

    actor: str
    project: str
    kind: str
    identifier: str


@dataclass(slots=True)
class Refusals:
    """Counts refusals; `write` is to be called every second, from one thread."""

    clock: Callable[[], float] = time.monotonic
    _counted: dict[Hashable, Counted] = field(default_factory=dict)
    _sought: dict[Sought, tuple[Facts, int, int]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def count(
        self,
        facts: Facts,
        status: int,
        code: str | None,
        resource: dict[str, str] | None,
        times: int = 1,
        reason: str | None = None,
    ) -> None:
        """Count a refusal. All by the same actor or address, at the same operation and with the same code are one kind.

        `resource` and `reason` are kept of the first one.
        """
        address = (facts["client"] or {}).get("address")
        actor = facts["actor"]
        with_key = actor["id"] is not None
        key: Hashable = (actor["kind"], actor["id"], facts["operation"] if with_key else None, address, status, code)
        with self._lock:
            if key not in self._counted and len(self._counted) >= MAX_COUNTED:
                key = None
                resource, reason, facts = None, None, _anybody(facts)
            counted = self._counted.get(key)
            if counted is None:
                document = {**facts, "outcome": DENIED, "status": status, "code": code, "resource": resource}
                document |= {"reason": reason, "before": None, "after": None}
                counted = self._counted[key] = Counted(document, self.clock())
            counted.count += times

    def sought(self, facts: Facts, status: int, resource: dict[str, str]) -> None:
        """Note that a resource was not found, for `write` to look up whether another project has it."""
        actor = facts["actor"]
        sought = Sought(str(actor["id"]), str(actor["project"]), resource["kind"], resource["id"])
        with self._lock:
            if sought in self._sought or len(self._sought) < MAX_LOOKUPS:
                times = self._sought.get(sought, (facts, status, 0))[2]
                self._sought[sought] = facts, status, times + 1

    def write(self, sessions: sessionmaker[Session], *, all_of_it: bool = False) -> int:
        """Insert what is new: each kind when it is first seen, and again when its minute is over. Returns how many.

        Args:
            all_of_it: also what belongs to a minute that is not over, because the process ends.
        """
        self._look_up(sessions)
        with self._lock:
            now, documents, done = self.clock(), [], []
            for counted in self._counted.values():
                over = all_of_it or now - counted.since >= WINDOW_SECONDS
                if counted.count > counted.written and (over or not counted.written):
                    documents.append({**counted.document, "count": counted.count - counted.written})
                    done.append((counted, counted.count))
                elif over:
                    done.append((counted, counted.count))
        if documents:
            with sessions.begin() as session:
                repository.add_pending(session, documents)
        with self._lock:
            for counted, count in done:
                counted.written = count
            self._counted = {
                key: one
                for key, one in self._counted.items()
                if one.count > one.written or now - one.since < WINDOW_SECONDS
            }
        return len(documents)

    def _look_up(self, sessions: sessionmaker[Session]) -> None:
        with self._lock:
            sought, self._sought = self._sought, {}
        if not sought:
            return
        with reading(sessions) as session:
            owners = {one: repository.owner_of(session, one.kind, one.identifier) for one in sought}
        for one, (facts, status, times) in sought.items():
            owner = owners[one]
            if owner is not None and owner != one.project:
                # the platform's, for the actor's own project must not learn that the id exists
                resource = {"kind": one.kind, "id": one.identifier}
                self.count({**facts, "project": None}, status, "other_project", resource, times)


def _anybody(facts: Facts) -> Facts:
    """Return the facts of all refusals that are too many to be counted apart."""
    return {
        **facts,
        "actor": {**ANONYMOUS, "kind": "several"},
        "operation": None,
        "client": None,
        "request_id": None,
        "project": None,
    }

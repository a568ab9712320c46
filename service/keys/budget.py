"""The budget of a key: how many jobs it may create, and how many seconds of compute these may take, over its lifetime.

A job reserves its time limit when it is created, in the same transaction: the limit is cut to what is left. Each attempt
that ends turns its seconds from reserved into used, and the end of the job releases the rest. So jobs that run at the same
time cannot pass the budget together, and deleting a job gives nothing back.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy.orm import Session

from service.errors import HttpProblem, Quota
from service.keys import repository
from service.keys.tables import ApiKey
from service.roles import ProjectRole, includes

LEAST_SECONDS = 1.0
"""A job that would have less is not created."""
KEY = "key:"
HINT = "GET /v1/me shows the budget; an admin of the project can create a key with another one."


@dataclass(frozen=True, slots=True)
class Reservation:
    """What a new job takes from the budget of a key."""

    key_id: str
    seconds: float | None
    """Its time limit; None where the budget does not bound seconds."""


def key_of(actor: str) -> str | None:
    """Return the id of the key that acts; None for a user or the service."""
    return actor.removeprefix(KEY) if actor.startswith(KEY) else None


def why_no_budget(role: ProjectRole | None, *, operator: bool) -> str | None:
    """Return why a key of that role cannot have a budget; None where it can."""
    if operator or includes(role, "admin"):
        return f"a key of the role {'operator' if operator else role} can create other keys, which would have no budget"
    return None


def reserve(session: Session, key_id: str | None, seconds: float | None) -> Reservation | None:
    """Take one job and its seconds from the budget, in the transaction that creates the job; None without a budget.

    The key's row is locked until the transaction ends: two jobs that fit one by one must not both pass.

    Args:
        key_id: The key that creates the job; None: a user, or the service itself.
        seconds: The time limit that its spec names; None: none.

    Raises:
        HttpProblem: 403 when jobs or seconds are used up; 409 when running jobs hold the seconds that are left.
    """
    key = None if key_id is None else repository.key(session, key_id)
    if key is None or key.budget is None:
        return None
    key = repository.locked(session, key.id)
    if key.max_jobs is not None and key.used_jobs >= key.max_jobs:
        detail = f"The budget of this key is used up: it has created {key.used_jobs} of its {key.max_jobs} jobs. {HINT}"
        raise HttpProblem(403, "budget_used_up", detail, quota=Quota("jobs", limit=key.max_jobs, used=key.used_jobs))
    reserved = None
    if key.max_compute_seconds is not None:
        left = key.max_compute_seconds - key.used_compute_seconds - key.reserved_compute_seconds
        if left < LEAST_SECONDS:
            raise _no_seconds(key, key.max_compute_seconds)
        reserved = left if seconds is None else min(seconds, left)
        key.reserved_compute_seconds += reserved
    key.used_jobs += 1
    session.flush()
    return Reservation(key.id, reserved)


def check_payer(session: Session, key_id: str | None, payer: str | None) -> None:
    """Raise a 403 problem where a key with a budget would let a job go on that another key, or nobody, pays for."""
    key = None if key_id is None or key_id == payer else repository.key(session, key_id)
    if key is not None and key.budget is not None:
        detail = (
            "This key has a budget, and the job is not on it. Only jobs that the key created can be resumed with it."
        )
        raise HttpProblem(403, "forbidden", detail)


def spend(session: Session, key_id: str, seconds: float, released: float) -> None:
    """Count the seconds of an attempt that has ended, and give back what was reserved for them, or for the whole job."""
    key = repository.locked(session, key_id)
    key.used_compute_seconds += seconds
    # rounded, so that sums of what was added and taken again are 0 in the end
    key.reserved_compute_seconds = max(0.0, round(key.reserved_compute_seconds - released, 6))
    session.flush()


def hand_over(session: Session, old: ApiKey, key: ApiKey) -> None:
    """Give a new key what the old one has left, which keeps nothing: together they have one budget."""
    old = repository.locked(session, old.id)
    if old.max_jobs is not None:
        key.max_jobs = max(0, old.max_jobs - old.used_jobs)
        old.max_jobs = min(old.max_jobs, old.used_jobs)
    if old.max_compute_seconds is not None:
        taken = old.used_compute_seconds + old.reserved_compute_seconds
        key.max_compute_seconds = max(0.0, old.max_compute_seconds - taken)
        old.max_compute_seconds = min(old.max_compute_seconds, taken)


def _no_seconds(key: ApiKey, most: float) -> HttpProblem:
    taken = f"{key.used_compute_seconds:.1f} s of {most:g} s are used"
    used = Quota("compute_seconds", limit=most, used=round(key.used_compute_seconds + key.reserved_compute_seconds, 3))
    if key.reserved_compute_seconds < LEAST_SECONDS:
        return HttpProblem(403, "budget_used_up", f"The budget of this key is used up: {taken}. {HINT}", quota=used)
    detail = (
        f"Jobs that have not ended hold the rest of this key's budget: {taken}, and "
        f"{key.reserved_compute_seconds:.1f} s are reserved. Wait until one ends, or stop one; `resources.max_seconds` "
        "in a spec reserves less."
    )
    # not 429: clients would wait by themselves, for nobody knows how long
    return HttpProblem(409, "budget_reserved", detail, quota=used)

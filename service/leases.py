"""Columns of anything a worker claims: who has it, until when, and the fence that makes stale writes void."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import String
from sqlalchemy.orm import Mapped, mapped_column

from service.database import UtcDateTime


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to write to a leased row: every write names it, and fails with StaleFence once another claim was made.

    `id` is the row's (a job's, a dataset's ...). `fence` is a fencing token: it rises with each claim of the row, so it
    also numbers the attempts at a job.
    """

    id: str
    fence: int


class StaleFence(Exception):  # noqa: N818 - a fact, not a failure
    """The row has a newer owner: whatever the caller holds is void, and it must let go at once."""


class Leased:
    """Mixin of lease columns."""

    fence: Mapped[int] = mapped_column(default=0)
    lease_owner: Mapped[str | None] = mapped_column(String(200))
    lease_process: Mapped[str | None] = mapped_column(String(200))
    """Identity of the owner's process (`service.process_identity`), by which its host knows that it has ended."""
    lease_expires_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    not_before: Mapped[datetime | None] = mapped_column(UtcDateTime)

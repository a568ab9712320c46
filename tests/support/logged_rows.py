"""The metric log of a job, read whole: rows as objects, as tests compare them."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy.orm import Session

from service.metrics import service as metrics
from service.metrics.chunks import MetricRow


@dataclass(frozen=True, slots=True)
class LoggedRow:
    """A row with its place in the log."""

    seq: int
    attempt: int
    superseded: bool
    row: MetricRow


def logged_rows(session: Session, job_id: str) -> list[LoggedRow]:
    """Every row of the job's log in order, superseded ones as well."""
    return [
        LoggedRow(seq, piece.attempt, superseded, row)
        for piece in metrics.scan(session, job_id, 0)
        for seq, superseded, row in zip(
            piece.seq[piece.places].tolist(),
            piece.superseded[piece.places].tolist(),
            piece.columns.rows(piece.places),
            strict=True,
        )
    ]

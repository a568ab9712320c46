"""A fork and a continuation are run by a worker from the other job's checkpoint."""

from __future__ import annotations

import trainkit.fit.loop.fit  # noqa: F401 - before the forks, as a worker does
from service.jobs import repository, service
from tests.support.logged_rows import logged_rows
from tests.support.transactions import transact
from tests.support.worker_context import Place
from worker.supervisor import claim_and_supervise


def epochs_of(place: Place, job: str) -> list[int]:
    with place.context.sessions() as session:
        rows = logged_rows(session, job)
    return [row.row.epoch for row in rows if (row.row.split, row.row.name) == ("val", "loss")]


def test_they_begin_where_the_checkpoint_is(place: Place) -> None:
    train = {"epochs": 6, "checkpoint_seconds": 0, "seed": 3}
    first = place.submit(place.table(), train=train)
    assert claim_and_supervise(place.context, "train")
    longer, _ = transact(place.service, service.resume, place.service, place.who, first, 3)
    patch = {"optimizer": {"kind": "adam", "lr": 1e-4}}
    other, _ = transact(place.service, service.fork, place.service, place.who, first, patch, None)
    for job, last in ((longer.id, 9), (other.id, 6)):
        assert claim_and_supervise(place.context, "train")
        row = place.job(job)
        assert (row.state, row.error) == ("succeeded", None)
        seen = epochs_of(place, job)
        assert seen[0] > 1, "not from the beginning"
        assert seen == list(range(seen[0], last + 1))
        with place.context.sessions() as session:
            (attempt,) = repository.attempts(session, job)
        assert row.parent is not None
        assert attempt.resumed_from_step == row.parent["step"]

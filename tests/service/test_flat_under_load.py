"""A queue of a thousand jobs and thousands of ended ones make no request and no round of housekeeping slower.

The database's work is counted, not timed. `python -m benchmarks load` times the same at full size.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from itertools import count

import pytest

from service.audit import background as audit_background
from service.background import lease_watcher
from service.background.housekeeping import TASKS
from service.database import Base, reading
from service.datasets import repository as datasets
from service.inference_requests import repository as inference_requests
from service.jobs import leases
from service.jobs.routes import JOBS
from service.listing.query import Position
from service.monitoring.repository import current_counts, total_counts
from service.webhooks import repository as webhooks
from service.workers import repository as workers
from tests.support.api import Served, record_checkpoint, row
from tests.support.bulk_rows import Amounts, fill, finished_job
from tests.support.query_plans import GROWING
from tests.support.statement_work import StatementWork

pytestmark = pytest.mark.postgresql

ONCE_IN_TEN_MINUTES = {"apply_retention", "collect_garbage", "remove_orphans"}
"""Housekeeping that looks at every job or file, in pages and in transactions that only read."""


@pytest.fixture
def no_background(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the application's own tasks, which run every second, out of what is counted."""
    monkeypatch.setattr(audit_background, "SEAL_SECONDS", 3600.0)
    monkeypatch.setattr(lease_watcher, "WATCH_SECONDS", 3600.0)


def operations(service: Served, job: str, keys: Iterator[int]) -> Iterator[tuple[str, Callable[[], object]]]:
    """Whatever comes often: requests, what workers do, rounds of housekeeping."""
    dataset = service.client.get(f"/v1/jobs/{job}").json()["dataset"]["id"]

    def submit() -> None:
        spec = {"dataset": dataset, "model": {"kind": "mlp"}, "labels": {"team": "speech"}}
        service.client.post("/v1/jobs", json=spec, headers={"Idempotency-Key": f"key-{next(keys)}"}).raise_for_status()

    def get(path: str) -> Callable[[], object]:
        return lambda: service.client.get(path).raise_for_status()

    def claim() -> None:
        with service.sessions() as session:  # without a commit
            assert leases.claim(session, "train", "w", 30) is not None

    def cancel() -> None:
        queued = service.client.get("/v1/jobs?state=queued&limit=1").json()["data"][0]["id"]
        service.client.post(f"/v1/jobs/{queued}/cancel").raise_for_status()

    def read(function: Callable[..., object]) -> Callable[[], object]:
        def in_session() -> None:
            with reading(service.sessions) as session:
                function(session)

        return in_session

    def live() -> None:
        claimed = service.claim()
        service.append(claimed, row("loss", 1.0), row("accuracy", 0.5))
        service.say(claimed, "a line")
        with service.sessions.begin() as session:
            leases.renew(session, claimed.claim, 30)
        record_checkpoint(service, claimed)
        service.finish(claimed)
        service.client.delete(f"/v1/jobs/{claimed.job_id}").raise_for_status()

    def check_dataset() -> None:
        service.ready_dataset()

    due = webhooks.projects_with_due
    yield "submit", submit
    yield "life of a job", live
    yield "upload of a dataset", check_dataset
    yield "cancel", cancel
    yield "claim", claim
    yield "retry", lambda: service.client.post(f"/v1/jobs/{job}/retry").raise_for_status()
    filters = ("state=running", "state=succeeded&state=failed", "state=paused&state=stopped", f"dataset={dataset}")
    filters += ("group=g", "group=none", "label.team=vision", "label.team=nobody")
    filters += ("updated_after=2090-01-01T00:00:00Z", "updated_after=2020-01-01T00:00:00Z")
    filters += (
        f"after={JOBS.parse([]).cursor(Position(None, job))}",
        "sort=-updated_at",
        "sort=finished_at",
    )
    filters += ("created_after=2090-01-01T00:00:00Z", f"fields={','.join(JOBS.row.model_fields)}")
    filters += ("sort=name", "sort=-name", "name=none*", "started_after=2090-01-01T00:00:00Z")
    filters += ("sort=-metrics.best.val_loss", "sort=metrics.best.val_f1", "metric.val_loss>=1e9")
    for order in ("-metrics.best.val_loss", "name", "-updated_at", "finished_at"):
        for rare in ("group=none", "state=running", "label.team=nobody", "name=none*", "metric.val_f1>=0"):
            filters += (f"sort={order}&{rare}",)
    for query in ("", *filters):
        yield f"GET jobs?{query}", get(f"/v1/jobs?limit=10&{query}")
    parts = ("", "/metrics?after=5", "/metrics/series?names=val_loss", "/events", "/logs", "/decisions", "/attempts")
    for part in (*parts, "/checkpoints", "/artifacts"):
        yield f"GET job{part}", get(f"/v1/jobs/{job}{part}")
    for path in ("datasets", "datasets?state=invalid", "datasets?name=none", "models", "uploads", "experiments"):
        yield f"GET {path}", get(f"/v1/{path}{'&' if '?' in path else '?'}limit=10")
    hook = service.client.get("/v1/webhooks").json()["data"][0]["id"]
    for query in ("", "state=failed", "type=job.failed"):
        yield f"GET deliveries?{query}", get(f"/v1/webhooks/{hook}/deliveries?limit=10&{query}")
    yield "gauges", read(current_counts)
    yield "totals", read(total_counts)
    yield "workers", read(workers.alive)
    yield "has_received", read(lambda session: datasets.has_blob(session, "p", "0" * 64))
    yield "due deliveries", read(lambda session: [webhooks.due(session, one, 10, ()) for one in due(session)])
    yield "inference request", read(lambda session: inference_requests.progress(session, "inf_none"))
    for task in TASKS:
        if task.name not in ONCE_IN_TEN_MINUTES:
            yield f"housekeeping {task.name}", lambda run=task.run: run(service.context)


A_PAGE = 1000
"""Steps for a page of a list that had three entries before."""
ALLOWANCES = {
    "submit": 12,
    "retry": 12,
    "gauges": 60,
    "totals": 100,
}
"""What may grow with the queue, and how many steps or rows each queued job may add."""


def test_a_row_that_is_deleted_is_looked_for_by_index_wherever_it_is_named() -> None:
    """A foreign key without an index reads the whole table for each row deleted; no plan of a statement shows that."""
    found = []
    for table in Base.metadata.sorted_tables:
        leading = {index.columns[0].name for index in table.indexes} | {table.primary_key.columns[0].name}
        for key in table.foreign_keys:
            if key.column.table.name in GROWING and key.parent.name not in leading:
                found.append(f"{table.name}.{key.parent.name}")
    assert not found


@pytest.mark.usefixtures("no_background")  # before the application of `service` starts
def test_work_does_not_grow_with_the_queue_nor_with_what_has_ended(service: Served) -> None:
    work = StatementWork(service.context.engine)
    job = finished_job(service)
    for _ in range(3):
        service.submit()
    keys = count()
    found = {name: [work.of(run), work.of(run)][1] for name, run in operations(service, job, keys)}
    amounts = Amounts(queued=1000, ended=5000)
    fill(service.context.engine, job, amounts)
    grown = {}
    for name, run in operations(service, job, keys):
        run()  # what has piled up is done by the first round
        after = work.of(run)
        if os.environ.get("SHOW"):
            print(f"{name:50s} {found[name]:8d} {after:8d}")
        if after > 2 * found[name] + A_PAGE + ALLOWANCES.get(name, 0) * amounts.queued:
            grown[name] = f"{found[name]} -> {after}"
    assert not grown


@pytest.mark.usefixtures("no_background")
def test_a_metric_that_most_jobs_meet_is_not_collected_from_all_of_them(service: Served) -> None:
    """The page is found in the order of the list, and each of its jobs asked; the first jobs are a bounded part."""
    work = StatementWork(service.context.engine)
    job = finished_job(service)
    orders = ("-created_at", "-metrics.best.val_loss", "name", "-updated_at", "finished_at")

    def lists() -> dict[str, int]:
        paths = {order: f"/v1/jobs?limit=10&sort={order}&metric.val_loss>=0" for order in orders}
        return {
            order: work.of(lambda path=path: service.client.get(path).raise_for_status())
            for order, path in paths.items()
        }

    fill(service.context.engine, job, Amounts(queued=1, ended=1500))
    few = lists()
    fill(service.context.engine, job, Amounts(queued=1, ended=4500))
    many = lists()
    assert not {order: (few[order], many[order]) for order in orders if many[order] > 1.5 * few[order]}

"""Many rows by plain SQL: a service that has run for months, in seconds. Copies of one job with all that belongs to it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Engine, text

from service.database import ALPHABET, Base
from service.inference_requests import repository as inference_requests
from service.jobs import attempts
from service.metrics import service as metrics
from tests.support.api import Served, record_checkpoint, row

BATCH = 1000
ENDED = ("succeeded", "succeeded", "succeeded", "failed", "cancelled")
PARTS: tuple[str, ...] = (
    "job_events",
    "attempts",
    "checkpoints",
    "artifacts",
    "metric_chunks",
    "log_chunks",
    "decisions",
    "models",
)
PARTS += ("job_best_metrics",)
"""Tables whose rows of the copied job are copied with it."""


def finished_job(service: Served) -> str:
    """A job that has ended with a row in every table that belongs to it, and one of everything else; returns its id."""
    service.client.post("/v1/webhooks", json={"url": "http://127.0.0.1:9/hook", "events": ["job.*"]}).raise_for_status()
    spec = {"dataset": service.ready_dataset(), "model": {"kind": "mlp"}, "labels": {"team": "vision"}, "group": "g"}
    answer = service.client.post("/v1/jobs", json=spec, headers={"Idempotency-Key": "first"})
    job_id = str(answer.raise_for_status().json()["id"])
    claimed = service.claim()
    service.append(claimed, *(row("loss", 1 / step, step) for step in range(1, 21)))
    service.say(claimed, "one line", "another line")
    record_checkpoint(service, claimed)
    decision = {"step": 1, "epoch": 1, "rule": {"kind": "patience"}, "inputs": {"best": 0.5}, "action": "continue"}
    with service.sessions.begin() as session:
        metrics.append_decisions(session, claimed.claim, [decision])
        inference_requests.add(session, claimed.project_id, "predict", "models/x", b"[]", "application/json")
    plot = attempts.StoredFile("curves.png", f"artifacts/{job_id}/1/curves.png", "image/png", 10, sha256="0" * 64)
    service.finish(claimed, files=[plot])
    return job_id


@dataclass(frozen=True, slots=True)
class Amounts:
    """How many rows there are of each kind."""

    queued: int
    ended: int

    @property
    def others(self) -> int:
        """Rows of kinds that are fewer than jobs: datasets, uploads, deliveries, experiments."""
        return max(1, self.ended // 10)


def id_at(prefix: str, moment: datetime) -> str:
    """An id as `new_id` would have made it then."""
    number = int(moment.timestamp() * 1000) << 80 | int.from_bytes(os.urandom(10))
    return prefix + "_" + "".join(ALPHABET[number >> shift & 31] for shift in range(125, -1, -5))


def fill(engine: Engine, job_id: str, amounts: Amounts, *, parts: Sequence[str] = PARTS) -> None:
    """Copy the ended job `job_id` many times: queued ones (as just submitted), and ended ones over the last 30 days."""
    now = datetime.now(UTC)
    with engine.begin() as connection:
        queued = [
            {"id": id_at("job", at), "state": "queued", "created": _stored(connection, at), "finished": None}
            for at in (now - timedelta(seconds=60 * (1 - n / amounts.queued)) for n in range(amounts.queued))
        ]
        ended = [
            {
                "id": id_at("job", at),
                "state": ENDED[number % len(ENDED)],
                "created": _stored(connection, at),
                "finished": _stored(connection, at + timedelta(seconds=30)),
            }
            for number, at in enumerate(
                now - timedelta(days=30 * (1 - n / (amounts.ended + 1)), minutes=5) for n in range(amounts.ended)
            )
        ]
        _copy_jobs(connection, job_id, queued + ended)
        for name in parts:
            _copy_part(connection, name, job_id, [row["id"] for row in ended])
        _copy_labels(connection, job_id, [row["id"] for row in queued + ended])
        _copy_others(connection, amounts.others, now)
    if engine.dialect.name == "postgresql":
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("VACUUM ANALYZE"))


def _stored(connection: Connection, at: datetime) -> Any:
    """A time as raw SQL takes it."""
    return at if connection.dialect.name == "postgresql" else at.strftime("%Y-%m-%d %H:%M:%S.%f")


def _batches(rows: Sequence[Any]) -> Iterator[Sequence[Any]]:
    return (rows[start : start + BATCH] for start in range(0, len(rows), BATCH))


def _copy(
    connection: Connection, table: str, where: str, changes: dict[str, str], rows: Sequence[dict[str, Any]]
) -> None:
    """Insert a copy of the rows `where` for each of `rows`, with `changes` (column -> SQL) of its columns."""
    columns = [column.name for column in Base.metadata.tables[table].columns]
    taken = ", ".join(changes.get(column, column) for column in columns)
    statement = text(f"INSERT INTO {table} ({', '.join(columns)}) SELECT {taken} FROM {table} WHERE {where}")
    for batch in _batches(rows):
        connection.execute(statement, list(batch))


def _copy_jobs(connection: Connection, job_id: str, rows: list[dict[str, Any]]) -> None:
    moment = ":{}" if connection.dialect.name == "sqlite" else "CAST(:{} AS timestamptz)"
    changes = {
        "id": ":id",
        "state": ":state",
        "lease_owner": "NULL",
        "lease_expires_at": "NULL",
        "finished_at": moment.format("finished"),
        "started_at": moment.format("finished"),
        "created_at": moment.format("created"),
        "updated_at": "coalesce({}, {})".format(moment.format("finished"), moment.format("created")),
        # some logs wait for compaction, most are compacted
        "compacted_seq": "next_seq - 1",
    }
    _copy(connection, "jobs", "id = :source", changes, [{**row, "source": job_id} for row in rows])


def _copy_part(connection: Connection, table: str, job_id: str, copies: Sequence[str]) -> None:
    has_id = "id" in Base.metadata.tables[table].columns
    changes = {"job_id": ":job"}
    if has_id:
        changes["id"] = "substr(id, 1, 4) || substr(:job, 5) || substr(id, length(id) - 3)"
    if connection.dialect.name == "postgresql":
        changes = {name: sql.replace(":job", "CAST(:job AS text)") for name, sql in changes.items()}
    _copy(connection, table, "job_id = :source", changes, [{"job": copy, "source": job_id} for copy in copies])


def _copy_labels(connection: Connection, job_id: str, copies: Sequence[str]) -> None:
    if "job_labels" in Base.metadata.tables:
        job = "CAST(:job AS text)" if connection.dialect.name == "postgresql" else ":job"
        rows = [{"job": copy, "source": job_id} for copy in copies]
        _copy(connection, "job_labels", "job_id = :source", {"job_id": job}, rows)


def _copy_others(connection: Connection, count: int, now: datetime) -> None:
    """Copies of the one row that there is of each of these, as it is but for its keys."""
    numbers = [
        {
            "id": id_at("row", now - timedelta(days=20 * (1 - n / count))),
            "number": n + 100 * count,
            "name": f"copy-{n} of {count}",
        }
        for n in range(count)
    ]
    keys: dict[str, dict[str, str]] = {
        "blobs": {"sha256": ":id"},
        "datasets": {"id": ":id", "name": ":name", "blob_sha256": ":id"},
        "uploads": {"id": ":id"},
        "inference_requests": {"id": ":id", "state": "'answered'"},
        "idempotency_keys": {"key": ":id", "resource_id": ":id"},
        "webhook_deliveries": {"id": ":id", "event_seq": ":number"},
        "experiments": {"id": ":id"},
        "recommendations": {"job_id": ":id"},
    }
    for table, changes in keys.items():
        key = next(iter(changes))
        first = connection.execute(text(f"SELECT {key} FROM {table} LIMIT 1")).scalar()
        if first is None:
            continue
        if connection.dialect.name == "postgresql":
            kinds = {":number": "integer"}
            changes = {name: f"CAST({sql} AS {kinds.get(sql, 'text')})" for name, sql in changes.items()}
        _copy(connection, table, f"{key} = :source", changes, [{**row, "source": first} for row in numbers])


def settle(engine: Engine) -> None:
    """Let what bulk inserts have left behind, a long write-ahead log, be over before anything is measured."""
    if engine.dialect.name == "sqlite":
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("COMMIT")
            connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    time.sleep(0.1)

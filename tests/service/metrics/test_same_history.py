"""However a job's log is read, and whoever dies meanwhile, it is the same history; and files of it open elsewhere."""

from __future__ import annotations

import gzip
import math
import random
import socket
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import text, update

from service.jobs.tables import Job
from service.metrics import compaction
from service.metrics.chunks import MetricRow
from tests.support.api import Served, resume_elsewhere, row
from tests.support.log_readers import Reader, as_row, check_all_ways, polled, streamed
from tests.support.unreliable_network import Api

pytestmark = pytest.mark.postgresql

WAYS = ("poll", "long-poll", "stream")


def test_random_reconnects_worker_deaths_and_a_killed_api(
    service: Served, tmp_path: Path, migrated_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Readers of all three kinds lose their connections, the API dies, the job runs in three attempts."""
    monkeypatch.setattr(compaction, "ROWS_A_CHUNK", 50)
    (tmp_path / "api").mkdir()
    api, numbers = Api(migrated_url, tmp_path / "api"), random.Random(4)
    headers = {"Authorization": f"Bearer {service.key('default')}"}

    def connect() -> httpx.Client:
        # plain HTTP: reading certificates would be most of the time of a new connection
        return httpx.Client(base_url=f"http://127.0.0.1:{api.port}", headers=headers, timeout=20, verify=False)

    try:
        job = service.submit()
        claimed = service.claim()
        readers = [Reader(connect, job, way, seed) for seed, way in enumerate(WAYS * 2)]
        for reader in readers:
            reader.start()
        written = 0
        for turn in range(60):
            count = numbers.randint(1, 12)
            rows = [some_row(numbers, written + n) for n in range(count)]
            service.append(claimed, *rows)
            written += count
            if turn in (20, 40):
                claimed = resume_elsewhere(service, claimed, numbers.randint(written // 2, written))
            if turn == 30:
                api.kill()
            if turn % 10 == 9:
                compaction.compact_job(service.sessions, job)
            time.sleep(0.02)
        service.finish(claimed)
        seen = [reader.finished() for reader in readers]
        compaction.compact(service.sessions)
        with connect() as client:
            history = check_all_ways(client, job)
    finally:
        api.stop()
    assert len(history) == written
    for reader, rows in zip(readers, seen, strict=True):
        assert rows == [one[:-1] for one in history], f"what the {reader._way} reader saw"
    assert sum(reader.cuts for reader in readers) > 10
    assert {one[1] for one in history} == {1, 2, 3}
    assert any(one[-1] for one in history)
    assert not all(one[-1] for one in history)


def some_row(numbers: random.Random, step: int) -> MetricRow:
    value = numbers.choice([numbers.random(), float(numbers.randint(0, 3)), math.nan, math.inf, -math.inf])
    return MetricRow(
        numbers.choice(["train", "val"]), numbers.choice(["loss", "größe,x"]), step, step // 10, value, time.time()
    )


def test_readers_who_never_read_hold_nothing_and_nobody(service: Served, tmp_path: Path, migrated_url: str) -> None:
    """Twenty open streams and downloads whose clients take nothing in; a worker and other readers go on."""
    (tmp_path / "api").mkdir()
    api = Api(migrated_url, tmp_path / "api")
    key = service.key("default")
    try:
        job = service.submit()
        claimed = service.claim()
        for first in range(0, 60_000, 5000):
            service.append(claimed, *(row("loss", n / 8, n) for n in range(first, first + 5000)))
        stuck = []
        for number in range(20):
            connection = socket.create_connection(("127.0.0.1", api.port))
            path = ("stream", "metrics.csv", "metrics?limit=5000", "metrics.parquet")[number % 4]
            head = f"GET /v1/jobs/{job}/{path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n\r\n"
            connection.sendall(head.encode())
            connection.recv(100)
            stuck.append(connection)
        service.append(claimed, row("accuracy", 0.5, 60_000))
        service.finish(claimed)
        url, headers = f"http://127.0.0.1:{api.port}", {"Authorization": f"Bearer {key}"}
        with httpx.Client(base_url=url, headers=headers, timeout=60, verify=False) as client:
            assert len(streamed(client, job)) == 60_001
            assert polled(client, job, limit=5000)[-1]["name"] == "accuracy"
        if migrated_url.startswith("postgresql"):
            held = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in%'"
            with service.context.engine.connect() as database:
                assert database.execute(text(held)).scalar_one() == 0, "no transaction waits for a client"
        for connection in stuck:
            connection.close()
    finally:
        api.stop()


@pytest.fixture
def ended(service: Served) -> str:
    job = service.submit()
    claimed = service.claim()
    service.append(claimed, *(row("loss", n / 8, n) for n in range(400)), row("loss", math.nan, 400))
    claimed = resume_elsewhere(service, claimed, 300)
    service.append(claimed, *(row("accuracy", n / 8, n, "train") for n in range(300, 400)))
    service.finish(claimed)
    return job


def test_an_export_is_one_moments_log_and_has_an_etag(service: Served, ended: str) -> None:
    check_all_ways(service.client, ended)
    for kind in ("csv", "parquet", "tfevents"):
        first = service.client.get(f"/v1/jobs/{ended}/metrics.{kind}")
        assert first.status_code == 200
        assert service.client.get(f"/v1/jobs/{ended}/metrics.{kind}").content == first.content, "the same bytes"
        known = {"If-None-Match": first.headers["etag"]}
        assert service.client.get(f"/v1/jobs/{ended}/metrics.{kind}", headers=known).status_code == 304
        assert service.client.get(f"/v1/jobs/{ended}/metrics.{kind}?names=x", headers=known).status_code == 200
        stranger = service.client_for("other").get(f"/v1/jobs/{ended}/metrics.{kind}")
        assert stranger.status_code == 404
    with service.sessions.begin() as session:
        session.execute(update(Job).values(purged={"metrics": {"at": "2026-01-01", "reason": "old"}}))
    assert service.client.get(f"/v1/jobs/{ended}/metrics.parquet").status_code == 410


def test_tensorboard_reads_the_event_file(service: Served, ended: str, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    answer = service.client.get(f"/v1/jobs/{ended}/metrics.tfevents")
    name = answer.headers["content-disposition"].partition('filename="')[2].rstrip('"')
    assert name.startswith("events.out.tfevents.")
    assert name.endswith(ended)
    (tmp_path / name).write_bytes(answer.content)
    board = EventAccumulator(str(tmp_path))
    board.Reload()
    assert sorted(board.Tags()["scalars"]) == ["train/accuracy", "val/loss"]
    live = [one for one in polled(service.client, ended) if not one["superseded"]]
    for tag in ("train/accuracy", "val/loss"):
        split, _, name = tag.partition("/")
        rows = [one for one in live if (one["split"], one["name"]) == (split, name)]
        found = board.Scalars(tag)
        assert [(event.step, event.value) for event in found] == [(one["step"], one["value"]) for one in rows]
        assert [as_row(one, marks=False)[-1].timestamp() for one in rows] == pytest.approx(
            [event.wall_time for event in found], abs=0.002
        )


def test_answers_are_compressed_for_those_who_ask(service: Served, ended: str) -> None:
    for path in ("metrics?limit=5000", "metrics/series", "metrics.csv"):
        plain = service.client.get(f"/v1/jobs/{ended}/{path}", headers={"Accept-Encoding": "identity"})
        assert "content-encoding" not in plain.headers
        with service.client.stream("GET", f"/v1/jobs/{ended}/{path}", headers={"Accept-Encoding": "gzip"}) as answer:
            body = b"".join(answer.iter_raw())
        assert answer.headers["content-encoding"] == "gzip"
        assert answer.headers["etag"] == plain.headers["etag"]
        assert gzip.decompress(body) == plain.content
        assert len(body) < len(plain.content) / 3
    for path in ("stream", "metrics.parquet"):
        answer = service.client.get(f"/v1/jobs/{ended}/{path}", headers={"Accept-Encoding": "gzip"})
        assert "content-encoding" not in answer.headers, path


def test_a_series_of_a_range_of_steps(service: Served, ended: str) -> None:
    def series(query: str) -> dict[str, Any]:
        return dict(service.client.get(f"/v1/jobs/{ended}/metrics/series?{query}").json()["series"])

    assert series("from_step=10&to_step=12")["val_loss"]["step"] == [10, 11, 12]
    assert series("from_step=250&names=val_loss")["val_loss"]["step"] == list(range(250, 300)), "without the superseded"
    assert list(series("from_step=350")) == ["train_accuracy"]
    few = series("from_step=100&to_step=199&max_points=8")["val_loss"]
    assert (few["step"][0], few["step"][-1], len(few["step"])) == (100, 199, 6)
    bad = service.client.get(f"/v1/jobs/{ended}/metrics/series?from_step=3&to_step=2")
    assert (bad.status_code, bad.json()["code"]) == (422, "bad_range")


def test_several_jobs_side_by_side(service: Served, ended: str) -> None:
    other = service.submit(name="other")
    claimed = service.claim()
    service.append(claimed, row("loss", 0.25))
    answer = service.client.get(f"/v1/metrics/series?jobs={other},{ended}&names=val_loss&max_points=10")
    first, second = answer.json()["jobs"]
    assert (first["id"], first["name"], first["state"]) == (other, "other", "running")
    assert first["series"]["val_loss"]["value"] == [0.25]
    alone = service.client.get(f"/v1/jobs/{ended}/metrics/series?names=val_loss&max_points=10").json()["series"]
    assert second["series"] == alone
    query = f"/v1/metrics/series?jobs={other},{ended}&names=val_loss&max_points=10"
    known = {"If-None-Match": answer.headers["etag"]}
    assert service.client.get(query, headers=known).status_code == 304
    service.append(claimed, row("loss", 0.125, 2))
    assert service.client.get(query, headers=known).status_code == 200
    missing = service.client.get(f"/v1/metrics/series?jobs={other},job_nobody")
    assert missing.status_code == 404
    assert service.client_for("other").get(f"/v1/metrics/series?jobs={other}").status_code == 404
    many = service.client.get("/v1/metrics/series?jobs=" + ",".join(f"job_{n}" for n in range(51)))
    assert (many.status_code, many.json()["code"]) == (422, "bad_jobs")

"""Readers of a metric log that lose their connection at random, and the log as every way of reading it tells it."""

from __future__ import annotations

import csv
import io
import random
import threading
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

import httpx
import httpx_sse
from pyarrow import parquet

COLUMNS = ("seq", "attempt", "split", "name", "step", "epoch", "value", "at", "superseded")
Row = tuple[Any, ...]
AWAY = (httpx.HTTPError, httpx_sse.SSEError)


def as_row(wire: dict[str, Any], *, marks: bool) -> Row:
    """A row of JSON to be compared: values bit by bit, times to the millisecond."""
    value = wire.get("nonfinite") or repr(wire["value"])
    fixed = tuple(wire[name] for name in ("seq", "attempt", "split", "name", "step", "epoch"))
    row = (*fixed, str(value), datetime.fromisoformat(wire["at"]))
    return (*row, wire["superseded"]) if marks else row


def polled(client: httpx.Client, job: str, limit: int = 500) -> list[dict[str, Any]]:
    """The whole log by cursor."""
    rows: list[dict[str, Any]] = []
    after, more = 0, True
    while more:
        page = client.get(f"/v1/jobs/{job}/metrics", params={"after": after, "limit": limit}).raise_for_status().json()
        rows += page["data"]
        more, after = page["next"] != after, page["next"]
    return rows


def streamed(client: httpx.Client, job: str) -> list[dict[str, Any]]:
    """The whole log of an ended job by SSE."""
    with httpx_sse.connect_sse(client, "GET", f"/v1/jobs/{job}/stream") as source:
        return [row for message in source.iter_sse() if message.event == "metric" for row in message.json()]


def from_csv(client: httpx.Client, job: str) -> list[Row]:
    """The CSV, as rows to be compared."""
    found = csv.DictReader(io.StringIO(client.get(f"/v1/jobs/{job}/metrics.csv").raise_for_status().text))
    assert found.fieldnames == list(COLUMNS)
    numbers = ("seq", "attempt", "step", "epoch")
    return [
        (
            *(int(row[name]) if name in numbers else row[name] for name in COLUMNS[:6]),
            row["value"],
            datetime.fromisoformat(row["at"]),
            row["superseded"] == "True",
        )
        for row in found
    ]


def from_parquet(client: httpx.Client, job: str) -> list[Row]:
    """The Parquet file, as rows to be compared."""
    body = client.get(f"/v1/jobs/{job}/metrics.parquet").raise_for_status().content
    rows = parquet.read_table(io.BytesIO(body)).to_pylist()
    return [
        (
            *(row[name] for name in COLUMNS[:6]),
            repr(row["value"]),
            row["at"].replace(microsecond=row["at"].microsecond // 1000 * 1000),
            row["superseded"],
        )
        for row in rows
    ]


class Reader(threading.Thread):
    """Follows a job to its end in one of three ways, cutting its own connection at random."""

    def __init__(self, connect: Callable[[], httpx.Client], job: str, way: str, seed: int) -> None:
        super().__init__(daemon=True)
        self.rows: list[dict[str, Any]] = []
        self.cuts = 0
        self.failure: BaseException | None = None
        self._connect, self._job, self._way = connect, job, way
        self._random = random.Random(seed)
        self._after, self._last_id, self._done = 0, "0", False

    def run(self) -> None:
        follow = {"poll": self._poll, "long-poll": self._poll, "stream": self._stream}[self._way]
        try:
            while not self._done:
                try:
                    with self._connect() as client:
                        follow(client)
                except AWAY:  # the service was killed: it comes back
                    time.sleep(0.05)
        except BaseException as error:
            self.failure = error

    def finished(self, seconds: float = 180) -> list[Row]:
        """All that it has seen, once it has seen the end."""
        self.join(seconds)
        assert self.failure is None, self.failure
        assert self._done, f"the {self._way} reader waits at {self._after} {self._last_id}"
        return [as_row(row, marks=False) for row in self.rows]

    def _poll(self, client: httpx.Client) -> None:
        wait = 2 if self._way == "long-poll" else 0
        for _ in range(self._random.randint(1, 10)):
            query = {"after": self._after, "limit": self._random.choice((3, 50, 5000)), "wait": wait}
            answer = client.get(f"/v1/jobs/{self._job}/metrics", params=query, timeout=10)
            if answer.status_code >= 500:
                break
            page = answer.raise_for_status().json()
            self.rows += page["data"]
            self._after, self._done = page["next"], page["done"]
            if self._done:
                return
            time.sleep(self._random.random() * 0.1)
        self.cuts += 1

    def _stream(self, client: httpx.Client) -> None:
        left = self._random.randint(1, 12)
        headers = {"Last-Event-ID": self._last_id}
        with httpx_sse.connect_sse(client, "GET", f"/v1/jobs/{self._job}/stream", headers=headers) as source:
            if source.response.status_code >= 500:
                return
            for message in source.iter_sse():
                if message.event == "metric":
                    self.rows += message.json()
                self._last_id = message.id
                if message.event == "end":
                    self._done = True
                    return
                left -= 1
                if not left:
                    break
        self.cuts += 1


def check_all_ways(client: httpx.Client, job: str) -> list[Row]:
    """An ended job's history is the same however it is read; returns it with its marks."""
    history = [as_row(row, marks=True) for row in polled(client, job)]
    assert [row[0] for row in history] == list(range(1, len(history) + 1))
    assert [as_row(row, marks=True) for row in polled(client, job, limit=17)] == history
    assert [as_row(row, marks=True) for row in streamed(client, job)] == history
    assert from_csv(client, job) == history
    assert from_parquet(client, job) == history
    return history

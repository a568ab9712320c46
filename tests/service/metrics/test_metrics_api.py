"""Reading the log by HTTP: cursor, long-poll, ETag, series, CSV."""

from __future__ import annotations

import csv
import io
import threading
from datetime import datetime

import pytest

from tests.support.api import Served, row


@pytest.fixture
def job(service: Served) -> str:
    return service.submit()


def test_the_cursor_pages_through_every_row_once(service: Served, job: str) -> None:
    claimed = service.claim()
    service.append(claimed, *(row("loss", n, n) for n in range(25)))
    service.append(claimed, *(row("accuracy", n, n) for n in range(5)))
    seen, after = [], 0
    while True:
        page = service.client.get(f"/v1/jobs/{job}/metrics?after={after}&limit=7").json()
        if not page["data"]:
            break
        seen += [r["seq"] for r in page["data"]]
        after = page["next"]
        assert after == seen[-1]
    assert seen == list(range(1, 31))
    assert page == {"data": [], "next": 30, "done": False}


def test_done_means_that_nothing_more_will_come(service: Served, job: str) -> None:
    claimed = service.claim()
    service.append(claimed, row("loss", 1.0), row("loss", 0.5, 2))
    assert service.client.get(f"/v1/jobs/{job}/metrics").json()["done"] is False
    service.finish(claimed)
    assert service.client.get(f"/v1/jobs/{job}/metrics?limit=1").json()["done"] is False
    assert service.client.get(f"/v1/jobs/{job}/metrics").json()["done"] is True
    assert service.client.get(f"/v1/jobs/{job}/metrics?after=2").json() == {"data": [], "next": 2, "done": True}


def test_names_pick_series_and_the_cursor_still_moves_on(service: Served, job: str) -> None:
    claimed = service.claim()
    service.append(claimed, row("loss", 1.0), row("loss", 2.0, split="train"), row("accuracy", 0.5))

    def cursors(names: str) -> tuple[list[int], int]:
        page = service.client.get(f"/v1/jobs/{job}/metrics?names={names}").json()
        return [r["seq"] for r in page["data"]], page["next"]

    assert cursors("loss") == ([1, 2], 3)
    assert cursors("val_loss, accuracy") == ([1, 3], 3)
    assert cursors("nothing") == ([], 3)


def test_an_etag_saves_the_body_until_something_changes(service: Served, job: str) -> None:
    claimed = service.claim()
    service.append(claimed, row("loss", 1.0))
    for path in ("metrics", "metrics/series"):
        tag = service.client.get(f"/v1/jobs/{job}/{path}").headers["etag"]
        same = service.client.get(f"/v1/jobs/{job}/{path}", headers={"If-None-Match": tag})
        assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", tag)
    service.append(claimed, row("loss", 0.5, 2))
    assert service.client.get(f"/v1/jobs/{job}/metrics/series", headers={"If-None-Match": tag}).status_code == 200


def test_an_etag_notices_that_rows_were_run_again(service: Served, job: str) -> None:
    from service.metrics import service as metrics

    claimed = service.claim()
    service.append(claimed, row("loss", 1.0), row("loss", 0.5, 2))
    tag = service.client.get(f"/v1/jobs/{job}/metrics").headers["etag"]
    with service.sessions.begin() as session:
        metrics.supersede_after(session, claimed.claim, 1)
    answer = service.client.get(f"/v1/jobs/{job}/metrics", headers={"If-None-Match": tag})
    assert answer.status_code == 200
    assert [r["superseded"] for r in answer.json()["data"]] == [False, True]


def test_waiting_ends_as_soon_as_there_is_something(service: Served, job: str) -> None:
    claimed = service.claim()
    ships = threading.Timer(0.5, lambda: service.append(claimed, row("loss", 1.0)))
    ships.start()
    page = service.client.get(f"/v1/jobs/{job}/metrics?wait=20").json()
    ships.join()
    assert [r["seq"] for r in page["data"]] == [1]
    assert service.client.get(f"/v1/jobs/{job}/metrics?after=1&wait=0.3").json()["data"] == []


def test_waiting_for_an_ended_job_ends_at_once(service: Served, job: str) -> None:
    service.finish(service.claim())
    assert service.client.get(f"/v1/jobs/{job}/metrics?wait=20").json()["done"] is True


def test_series_hold_the_rows_that_count(service: Served, job: str) -> None:
    from service.metrics import service as metrics

    claimed = service.claim()
    service.append(claimed, row("loss", 1.0), row("loss", 0.5, 2), row("accuracy", float("nan"), 2))
    with service.sessions.begin() as session:
        metrics.supersede_after(session, claimed.claim, 1)
    service.append(claimed, row("loss", 0.6, 2))
    answer = service.client.get(f"/v1/jobs/{job}/metrics/series").json()
    assert list(answer["series"]) == ["val_loss"]
    loss = answer["series"]["val_loss"]
    elapsed = loss.pop("elapsed")
    assert loss == {"seq": [1, 4], "step": [1, 2], "epoch": [1, 2], "value": [1.0, 0.6]}
    assert answer["start"] == service.client.get(f"/v1/jobs/{job}").json()["started_at"]
    # the same moments as the rows of the log have
    rows = service.client.get(f"/v1/jobs/{job}/metrics").json()["data"]
    start = datetime.fromisoformat(answer["start"])
    moments = [(datetime.fromisoformat(rows[place]["at"]) - start).total_seconds() for place in (0, 3)]
    assert elapsed == pytest.approx(moments, abs=0.0011)


def test_the_same_query_gives_the_same_bytes(service: Served, job: str) -> None:
    claimed = service.claim()
    service.append(claimed, *(row("loss", (n * 7919) % 1000, n) for n in range(3000)))
    bodies = [service.client.get(f"/v1/jobs/{job}/metrics/series?max_points=50").content for _ in range(2)]
    assert bodies[0] == bodies[1]
    points = service.client.get(f"/v1/jobs/{job}/metrics/series?max_points=50").json()["series"]["val_loss"]["value"]
    assert len(points) <= 50
    assert (min(points), max(points)) == (0, 999)


def test_csv_has_every_row_exactly(service: Served, job: str) -> None:
    claimed = service.claim()
    service.append(claimed, row("loss", 0.1), row("loss", 1 / 3, 2))
    answer = service.client.get(f"/v1/jobs/{job}/metrics.csv")
    assert answer.headers["content-type"].startswith("text/csv")
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert [(r["seq"], r["name"], float(r["value"])) for r in rows] == [("1", "loss", 0.1), ("2", "loss", 1 / 3)]


@pytest.mark.parametrize(
    "query", ["after=-1", "after=9223372036854775808", "limit=0", "limit=5001", "wait=26", "wait=nan", "after=x"]
)
@pytest.mark.parametrize("migrated_url", ["sqlite"], indirect=True)
def test_bounds(service: Served, job: str, query: str) -> None:
    answer = service.client.get(f"/v1/jobs/{job}/metrics?{query}")
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    assert answer.json()["errors"][0]["pointer"] == f"query/{query.split('=')[0]}"

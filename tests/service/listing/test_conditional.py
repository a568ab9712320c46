"""ETags: on every GET that is polled, never wrongly the same, compared as HTTP says; long-polls."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import update

from service.conditional_requests import tag_matches
from service.jobs.tables import Job
from tests.support.api import Served, assert_problem, row

pytestmark = pytest.mark.postgresql


def tag(service: Served, path: str) -> str:
    answer = service.client.get(path)
    assert answer.status_code == 200, answer.text
    assert "etag" in answer.headers, path
    return str(answer.headers["etag"])


def ask(service: Served, path: str, known: str) -> Any:
    return service.client.get(path, headers={"If-None-Match": known})


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("*", True),
        ('"a"', True),
        ('W/"a"', True),
        ('"x", W/"a"', True),
        ('W/"x","y" , "a"', True),
        ('"x"', False),
        ("a", False),
        ('"A"', False),
        ("", False),
        (None, False),
        ('"x, a"', False),
    ],
)
def test_tags_are_compared_weakly_and_in_lists(header: str | None, expected: bool) -> None:
    assert tag_matches(header, 'W/"a"') == tag_matches(header, '"a"') == expected


def test_every_get_of_json_has_a_tag_that_saves_the_body(service: Served) -> None:
    job = service.submit()
    claimed = service.claim()
    service.append(claimed, row("loss", 1.0))
    model = service.finish(claimed)
    parts = (
        "",
        "/events",
        "/decisions",
        "/attempts",
        "/checkpoints",
        "/artifacts",
        "/evaluation",
        "/logs?format=json",
        "/metrics",
    )
    paths = [f"jobs/{job}{part}" for part in parts]
    paths += ["jobs", "datasets", "models", f"models/{model}", "experiments", "uploads", "webhooks", "keys", "projects"]
    for path in (*paths, "workers", "catalog"):
        known = tag(service, f"/v1/{path}")
        for header in (known, "*", f'"x", {known.removeprefix("W/")}'):
            answer = ask(service, f"/v1/{path}", header)
            assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", known), path
            assert "content-type" not in answer.headers
        assert ask(service, f"/v1/{path}", '"x"').status_code == 200
        head = service.client.head(f"/v1/{path}", headers={"If-None-Match": known})
        assert (head.status_code, head.headers["etag"]) == (304, known)


@pytest.mark.parametrize("query", ["", "?sort=name", "?state=queued", "?fields=id,phase,progress,labels"])
def test_no_write_changes_an_answer_and_keeps_its_tag(service: Served, query: str) -> None:
    """Every write at one and the same `updated_at`: the tag changes exactly when the answer does."""
    jobs = [service.submit(name=f"job-{number}") for number in range(3)]
    path = f"/v1/jobs{query}"
    seen: dict[str, bytes] = {}
    values: dict[str, Any] = {
        "phase": lambda n: {"phase": f"phase {n % 3}"},
        "progress": lambda n: {"progress": {"percent": float(n % 5), **dict.fromkeys(PROGRESS, n % 2)}},
        "metrics": lambda n: {"metrics_best": {"val_loss": n % 4}},
        "state": lambda n: {"state": ("queued", "running", "succeeded")[n % 3]},
        "name": lambda n: {"name": f"job-{n % 3}"},
        "labels": lambda n: {"labels": {"team": str(n % 2)}},
        "lease": lambda n: {"lease_owner": str(n)},
        "resolved": lambda n: {"resolved": None},
    }

    @settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
    @given(st.lists(st.tuples(st.sampled_from(sorted(values)), st.integers(0, 9), st.sampled_from(jobs)), max_size=3))
    def every_write(writes: list[tuple[str, int, str]]) -> None:
        before = service.client.get(path)
        with service.sessions.begin() as session:
            for name, number, job in writes:
                at = session.get_one(Job, job).updated_at
                session.execute(update(Job).where(Job.id == job).values(updated_at=at, **values[name](number)))
        after = ask(service, path, before.headers["etag"])
        now = service.client.get(path)
        assert after.status_code == (304 if now.content == before.content else 200)
        assert seen.setdefault(now.headers["etag"], now.content) == now.content

    every_write()
    assert len(seen) > 3


PROGRESS = ("epoch", "epochs", "step", "steps", "eta_seconds", "samples_per_second")


def after(seconds: float, change: Any) -> threading.Thread:
    thread = threading.Timer(seconds, change)
    thread.start()
    return thread


@pytest.mark.parametrize("path", ["jobs/{job}", "jobs", "jobs?state=queued"])
def test_a_long_poll_is_answered_by_the_next_change(service: Served, path: str) -> None:
    job = service.submit()
    path = f"/v1/{path.format(job=job)}"
    known = tag(service, path)
    separator = "&" if "?" in path else "?"
    waiting = after(0.3, lambda: service.client.post(f"/v1/jobs/{job}/cancel").raise_for_status())
    begun = time.monotonic()
    answer = ask(service, f"{path}{separator}wait=20", known)
    waiting.join()
    assert (answer.status_code, time.monotonic() - begun < 10) == (200, True)
    assert answer.headers["etag"] != known
    assert ask(service, f"{path}{separator}wait=0.2", answer.headers["etag"]).status_code == 304
    assert service.client.get(f"{path}{separator}wait=20").status_code == 200


def test_a_long_poll_of_a_job_sees_its_phase(service: Served) -> None:
    job = service.submit()
    known = tag(service, f"/v1/jobs/{job}?fields=phase")

    def change() -> None:
        with service.sessions.begin() as session:
            session.get_one(Job, job).phase = "another"
            session.get_one(Job, job).updated_at = session.get_one(Job, job).updated_at.replace(year=2090)

    waiting = after(0.3, change)
    assert ask(service, f"/v1/jobs/{job}?fields=phase&wait=20", known).json() == {"phase": "another"}
    waiting.join()


@pytest.mark.parametrize("wait", ["-1", "26", "nan", "x"])
def test_a_wait_out_of_bounds_is_refused(service: Served, wait: str) -> None:
    for path in ("/v1/jobs", f"/v1/jobs/{service.submit()}"):
        assert service.client.get(f"{path}?wait={wait}").status_code == 422


def test_a_get_of_json_is_refused_to_who_takes_none(service: Served) -> None:
    job = service.submit()
    for path in ("/v1/jobs", f"/v1/jobs/{job}", "/v1/datasets", "/v1/catalog"):
        for accept in (
            "application/json",
            "*/*",
            "application/*;q=0.1",
            "text/html, */*;q=0.5",
            "application/hal+json",
            "",
        ):
            assert service.client.get(path, headers={"Accept": accept}).status_code == 200, (path, accept)
        for accept in ("text/csv", "image/*, text/html", "application/json;q=0"):
            assert_problem(service.client.get(path, headers={"Accept": accept}), 406, "not_acceptable")

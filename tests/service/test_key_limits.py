"""Requests a minute of a key: headers, refusals, and limits of a project's own."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from sqlalchemy.exc import OperationalError

from service import key_limits
from service.settings import Settings
from tests.support.api import Served

SQLITE = pytest.mark.parametrize("migrated_url", ["sqlite"], indirect=True)


class TestRequestsAMinute:
    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        return replace(settings, max_requests_per_minute=3)

    def test_every_response_tells_what_is_left(self, service: Served) -> None:
        for left, path in ((2, "/v1/jobs"), (1, "/v1/nothing"), (0, "/v1/jobs/job_none")):
            answer = service.client.get(path)
            assert answer.headers["ratelimit-policy"] == '"requests";q=3;w=60'
            fields = re.fullmatch(r'"requests";r=(\d+);t=(\d+)', answer.headers["ratelimit"])
            assert fields is not None
            assert int(fields[1]) == left
            assert 20 * (3 - left) - 2 <= int(fields[2]) <= 20 * (3 - left)

    def test_more_are_refused_with_the_time_to_wait(self, service: Served) -> None:
        for _ in range(3):
            assert service.client.get("/v1/jobs").status_code == 200
        refused = service.client.get("/v1/jobs")
        document = refused.json()
        assert (refused.status_code, document["code"]) == (429, "rate_limited")
        assert document["quota"] == {"name": "requests_per_minute", "limit": 3, "used": 3}
        assert 18 <= int(refused.headers["retry-after"]) <= 20
        assert refused.headers["ratelimit"].startswith('"requests";r=0;t=')
        assert "3 requests a minute" in document["detail"]
        assert service.client_for("default").get("/v1/jobs").status_code == 200, "each key has its own"
        assert service.client.get("/healthz").status_code == 200, "what needs no key is not counted"

    def test_streams_and_long_polls_count_as_requests(self, service: Served) -> None:
        job = service.submit(service.client_for("default"))
        for _ in range(3):
            assert service.client.get(f"/v1/jobs/{job}/metrics?wait=0.01").status_code == 200
        assert service.client.get(f"/v1/jobs/{job}/stream").status_code == 429


@SQLITE
def test_a_project_has_limits_of_its_own(service: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_limits, "RULES_SECONDS", 0.0)
    admin, operator = service.client_for("vision", "admin"), service.client
    (project,) = admin.get("/v1/projects").json()["data"]
    path = f"/v1/projects/{project['id']}"

    def policy() -> str | None:
        return admin.get("/v1/jobs").headers.get("ratelimit-policy")

    assert operator.patch(path, json={"limits": {"max_requests_per_minute": 7000}}).status_code == 200
    assert policy() == '"requests";q=7000;w=60'
    assert operator.get("/metrics").headers["ratelimit-policy"] == '"requests";q=6000;w=60'
    assert admin.patch(path, json={"settings": {"max_requests_per_minute": 50}}).status_code == 200
    assert policy() == '"requests";q=50;w=60'
    assert operator.patch(path, json={"limits": {"max_requests_per_minute": None}}).status_code == 200
    assert admin.patch(path, json={"settings": {"max_requests_per_minute": "default"}}).status_code == 200
    assert policy() is None, "no limit"


@SQLITE
def test_what_was_known_holds_while_the_database_is_away(service: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_limits, "RULES_SECONDS", 0.0)
    assert service.client.get("/v1/catalog").status_code == 200

    def away(*_: object) -> None:
        raise OperationalError("SELECT", {}, Exception("away"))

    monkeypatch.setattr(key_limits, "rules", away)
    assert service.client.get("/v1/catalog").headers["ratelimit-policy"] == '"requests";q=6000;w=60'


@SQLITE
def test_the_database_is_not_reads_by_every_request(service: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    reads = []
    monkeypatch.setattr(key_limits, "rules", lambda *given: reads.append(given) or key_limits.service_rules(given[1]))
    for _ in range(5):
        assert service.client.get("/v1/catalog").status_code == 200
    assert len(reads) == 1

"""What a project uses of its limits, over HTTP; and limits at their edge, with several requests at once."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from httpx import ASGITransport, AsyncClient, Response

from service import quota
from service.settings import Settings
from tests.support.api import Served, record_checkpoint
from tests.support.tus_requests import begun


@pytest.fixture(autouse=True)
def counted_now() -> None:
    quota._counted.clear()


def project_of(service: Served) -> str:
    return str(service.client.get("/v1/projects").json()["data"][0]["id"])


def test_a_project_that_does_nothing_uses_nothing(service: Served) -> None:
    project = project_of(service)
    usage = service.client.get(f"/v1/projects/{project}/usage").json()
    assert usage["project"] == project
    key = usage["key"]["requests_per_minute"]
    assert (key["limit"], key["used"], key["remaining"]) == (6000, 6000 - key["remaining"], key["remaining"])
    assert 5990 <= key["remaining"] < 6000
    assert usage["key"]["requests_in_work"] == {"limit": 128, "used": 1, "remaining": 127, "resets_at": None}
    assert usage["key"]["streams"] == {"limit": 1024, "used": 0, "remaining": 1024, "resets_at": None}
    assert usage["queued_jobs"] == {"limit": 10_000, "used": 0, "remaining": 10_000, "resets_at": None}
    assert usage["running_jobs"] == {"limit": None, "used": 0, "remaining": None, "resets_at": None}
    assert usage["webhooks"] == {"limit": 50, "used": 0, "remaining": 50, "resets_at": None}
    kinds = ("datasets", "prepared_datasets", "open_uploads", "checkpoints", "artifacts", "models")
    kinds += ("metrics", "logs", "records")
    assert usage["storage_bytes"] == {**usage["running_jobs"], "by_kind": dict.fromkeys(kinds, 0)}
    hours = usage["gpu_hours"]
    assert (hours["limit"], hours["used"], hours["remaining"], usage["cpu_hours"]["used"]) == (None, 0, None, 0)
    resets_at = datetime.fromisoformat(hours["resets_at"])
    assert (resets_at.day, resets_at.hour, resets_at > datetime.now(UTC)) == (1, 0, True)


@pytest.mark.postgresql
def test_what_is_used_is_shown_by_kind(service: Served) -> None:
    project = project_of(service)
    service.submit()
    service.submit()
    claimed = service.claim()
    record_checkpoint(service, claimed)
    begun(service.client, 600)
    assert service.client.post("/v1/webhooks", json={"url": "http://127.0.0.1:9/"}).status_code == 201
    service.client.patch(f"/v1/projects/{project}", json={"settings": {"max_queued_jobs": 1, "max_running_jobs": 5}})
    usage = service.client_for("default", "viewer").get(f"/v1/projects/{project}/usage").json()
    assert usage["queued_jobs"] == {"limit": 1, "used": 1, "remaining": 0, "resets_at": None}
    assert usage["running_jobs"] == {"limit": 5, "used": 1, "remaining": 4, "resets_at": None}
    assert (usage["open_uploads"]["used"], usage["open_upload_bytes"]["used"]) == (1, 600)
    assert usage["webhooks"]["used"] == 1
    by_kind = usage["storage_bytes"]["by_kind"]
    assert (by_kind["checkpoints"], by_kind["open_uploads"]) == (11, 600)
    assert usage["storage_bytes"]["used"] == sum(by_kind.values()) == 611 + by_kind["datasets"] + by_kind["records"]
    service.finish(claimed)
    quota._counted.clear()
    again = service.client.get(f"/v1/projects/{project}/usage").json()
    assert (again["running_jobs"]["used"], again["storage_bytes"]["by_kind"]["models"]) == (0, 10)


def test_another_s_usage_is_not_there(service: Served) -> None:
    path = f"/v1/projects/{project_of(service)}/usage"
    assert service.client_for("other", "admin").get(path).status_code == 404
    assert service.client_for("other", "operator").get(path).json()["queued_jobs"]["used"] == 0


def at_once(service: Served, count: int, method: str, path: str, **request: Any) -> list[Response]:
    """Send the same request several times at once."""

    async def send() -> list[Response]:
        transport = ASGITransport(service.app)
        headers = {"Authorization": service.client.headers["authorization"], **request.pop("headers", {})}
        async with AsyncClient(transport=transport, base_url="http://test", headers=headers) as client:
            return await asyncio.gather(*(client.request(method, path, **request) for _ in range(count)))

    return asyncio.run(send())


@pytest.mark.postgresql
class TestEdge:
    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        return replace(settings, max_queued_jobs=3, max_open_uploads=3)

    def test_jobs_at_once_do_not_pass_the_limit_together(self, service: Served) -> None:
        spec = {"dataset": service.ready_dataset(), "model": {"kind": "mlp"}}
        answers = at_once(service, 8, "POST", "/v1/jobs", json=spec)
        assert sorted(answer.status_code for answer in answers) == [201] * 3 + [429] * 5
        refused = next(answer for answer in answers if answer.status_code == 429)
        assert refused.json()["quota"] == {"name": "queued_jobs", "limit": 3, "used": 3}
        usage = service.client.get(f"/v1/projects/{project_of(service)}/usage").json()
        assert usage["queued_jobs"] == {"limit": 3, "used": 3, "remaining": 0, "resets_at": None}

    def test_uploads_at_once_do_not_pass_the_limit_together(self, service: Served) -> None:
        headers = {"Tus-Resumable": "1.0.0", "Upload-Length": "10"}
        answers = at_once(service, 8, "POST", "/v1/uploads", headers=headers)
        assert sorted(answer.status_code for answer in answers) == [201] * 3 + [429] * 5
        refused = next(answer for answer in answers if answer.status_code == 429)
        assert refused.json()["quota"] == {"name": "open_uploads", "limit": 3, "used": 3}

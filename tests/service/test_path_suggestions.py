"""What an unknown address was meant to be."""

from __future__ import annotations

import time

import pytest

from service.path_suggestions import nearest_path
from tests.support.api import Served, assert_problem

TEMPLATES = [
    "/v1/jobs",
    "/v1/jobs/{job_id}",
    "/v1/jobs/{job_id}/stop",
    "/v1/jobs/{job_id}/metrics/series",
    "/v1/datasets/{dataset_id}:reread",
    "/v1/specs:validate",
    "/healthz",
    "/docs",
]
MEANT = {
    "/v1/job": "/v1/jobs",
    "/v1/Jobs": "/v1/jobs",
    "/jobs": "/v1/jobs",
    "/jobs/job_1": "/v1/jobs/job_1",
    "/api/v1/jobs": "/v1/jobs",
    "/v1/job/job_1": "/v1/jobs/job_1",
    "/v1/jobs/job_1/stopp": "/v1/jobs/job_1/stop",
    "/v1/jobs/job_1/metric/serie": "/v1/jobs/job_1/metrics/series",
    "/v1/dataset/ds_1:reread": "/v1/datasets/ds_1:reread",
    "/v1/specs:validat": "/v1/specs:validate",
    "/health": "/healthz",
    "/": None,
    "/v1": None,
    "/wp-admin/setup.php": None,
    "/v1/jobs/a/b/c/d/e/f/g/h/i/j": None,
    "/" + "x" * 5000: None,
}


@pytest.mark.parametrize("path", MEANT)
def test_nearest_path(path: str) -> None:
    assert nearest_path(path, TEMPLATES) == MEANT[path]


@pytest.mark.parametrize("migrated_url", ["sqlite"], indirect=True)
def test_an_unknown_address_is_answered_with_the_nearest(service: Served) -> None:
    for path, meant in {"/v1/job": "/v1/jobs", "/v1/jobs/x/metric": "/v1/jobs/x/metrics", "/doc": "/docs"}.items():
        document = assert_problem(service.client.get(path), 404, "not_found")
        assert f"Did you mean {meant}?" in document["detail"], document["detail"]
    detail = assert_problem(service.client.get("/elsewhere/entirely"), 404, "not_found")["detail"]
    assert "Did you mean" not in detail
    begin = time.process_time()
    for _ in range(20):
        service.client.get("/v1/" + "/".join(["jobz" * 20] * 8))
    assert time.process_time() - begin < 5

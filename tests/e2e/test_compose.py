"""docker-compose.yml without Docker: its own commands and environments are the stack of every test on PostgreSQL."""

from __future__ import annotations

import re

import pytest

from tests.support.api_steps import ROOT
from tests.support.compose import OURS, ComposeStack, compose_file
from tests.support.stack import Stack, free_port, wait_for


def test_every_service_of_ours_has_what_it_needs() -> None:
    services = compose_file()["services"]
    assert {*OURS, "postgres", "redis", "worker-gpu"} == set(services)
    assert services["worker-gpu"]["profiles"] == ["gpu"]
    (device,) = services["worker-gpu"]["deploy"]["resources"]["reservations"]["devices"]
    assert device["capabilities"] == ["gpu"]
    for name, service in services.items():
        if name != "migrate":
            assert "healthcheck" in service, name
        if name.startswith("worker"):
            assert any(volume.endswith(":/data/storage") for volume in service["volumes"]), name
    dockerfile = (ROOT / "Dockerfile").read_text()
    for service in services.values():
        if "build" in service:
            assert f"AS {service['build']['target']}" in dockerfile


def test_the_api_image_has_no_torch() -> None:
    assert "torch" not in re.findall(r"^([a-z0-9_-]+)==", (ROOT / "requirements-api.lock").read_text(), re.M)


@pytest.mark.parametrize("stack", ["postgresql"], indirect=True)
def test_health_checks_pass_while_their_services_run(stack: Stack) -> None:
    """Jobs on these services are the tests of test_upload_to_prediction.py."""
    assert isinstance(stack, ComposeStack)
    with stack.client() as client:
        wait_for(lambda: len(client.get("/v1/workers").json()["data"]) == 2, what="two workers")
    # the two workers have the same one, from one anchor
    for name in ("api", "worker-train"):
        assert stack.healthy(name), stack.logs()
    port, stack.port = stack.port, free_port()
    try:
        assert not stack.healthy("api"), "nothing listens there"
    finally:
        stack.port = port

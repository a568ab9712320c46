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


def test_no_service_has_more_rights_than_it_needs() -> None:
    """Not root, an image that cannot be written, no capabilities, no gain of rights, bounded memory and processes."""
    dockerfile = (ROOT / "Dockerfile").read_text()
    assert re.findall(r"^USER (\S+)$", dockerfile, re.M) == ["10001"] * len(re.findall(r"^FROM base", dockerfile, re.M))
    for name, service in compose_file()["services"].items():
        assert service["cap_drop"] == ["ALL"], name
        assert "cap_add" not in service, name
        assert "privileged" not in service, name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["read_only"] is True, name
        assert service["mem_limit"], name
        assert 0 < service["pids_limit"] <= 4096, name
        assert "/tmp" in [entry.split(":")[0] for entry in (*service["tmpfs"], *service.get("volumes", []))], name
        assert service.get("user", "trainkit") not in ("root", "0", 0), name
        assert "build" in service or "user" in service, f"{name}: the image's default is root"


def test_database_and_broker_are_reached_from_within_alone() -> None:
    compose = compose_file()
    assert compose["networks"]["backend"] == {"internal": True}
    for name, service in compose["services"].items():
        assert "network_mode" not in service, name
        if name in ("postgres", "redis"):
            assert service["networks"] == ["backend"], name
            assert "ports" not in service, name
        for published in service.get("ports", []):
            assert published.startswith("127.0.0.1:"), name


def test_every_password_must_be_set() -> None:
    """Compose refuses to start without them; none has a default."""
    text = (ROOT / "docker-compose.yml").read_text()
    used = re.findall(r"\$\{(\w*(?:PASSWORD|SECRET)\w*)([^}]*)\}", text)
    assert {name for name, _ in used} == {"POSTGRES_PASSWORD", "REDIS_PASSWORD", "TRAINKIT_SECRET_KEY"}
    assert all(rest.startswith(":?") for _, rest in used)
    services = compose_file()["services"]
    command = services["redis"]["command"]
    assert command[command.index("--requirepass") + 1].startswith("${REDIS_PASSWORD:?")
    for name, service in services.items():
        if "TRAINKIT_BROKER_URL" in service.get("environment", {}):
            assert "REDIS_PASSWORD" in service["environment"]["TRAINKIT_BROKER_URL"], name


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

"""docker-compose.yml without Docker: every service's own command and environment, as local processes."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from tests.support.api_steps import ROOT, example_spec, submit, upload, wait_until
from tests.support.stack import Stack, free_port, wait_for

OURS = ("migrate", "api", "worker-data", "worker-train")


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return dict(yaml.safe_load((ROOT / "docker-compose.yml").read_text()))


class ComposeStack(Stack):
    """A stack whose environment is a compose service's own, its host names and folders mapped to this machine's."""

    service_environment: dict[str, str]

    @property
    def environment(self) -> dict[str, str]:
        ours = super().environment
        kept = {name: value for name, value in ours.items() if not name.startswith("TRAINKIT_")}
        return kept | self.service_environment


def local(value: str, folder: Path, database_url: str, redis_port: int) -> str:
    """The compose file's value with names that only exist inside its network replaced."""
    value = re.sub(r"postgresql\+psycopg://trainkit:\$\{[^}]*\}@postgres:5432/trainkit", database_url, value)
    value = value.replace("redis://redis:6379", f"redis://127.0.0.1:{redis_port}")
    return value.replace("/data/", f"{folder}/data/")


def test_every_service_of_ours_has_what_it_needs(compose: dict[str, Any]) -> None:
    services = compose["services"]
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


def test_a_job_finishes_through_the_services_own_commands(
    compose: dict[str, Any], tmp_path: Path, data: Path, new_postgres_database: Callable[[], str]
) -> None:
    services, database_url = compose["services"], new_postgres_database()
    redis_port, api_port = free_port(), free_port()
    (tmp_path / "data/storage").mkdir(parents=True)
    stack = ComposeStack(tmp_path, database_url, port=api_port)

    def start(name: str) -> None:
        service = services[name]
        stack.service_environment = {
            key: local(str(value), tmp_path, database_url, redis_port) for key, value in service["environment"].items()
        }
        command = [str(api_port) if word == "8321" else word for word in service["command"]]
        command = ["127.0.0.1" if word == "0.0.0.0" else word for word in command]
        command[0] = str(Path(sys.executable).parent / command[0])
        stack.spawn(name, *command)

    def healthy(name: str) -> bool:
        test = services[name]["healthcheck"]["test"]
        assert test[0] == "CMD", shlex.join(test)
        command = [sys.executable if word == "python" else word.replace("8321", str(api_port)) for word in test[1:]]
        probe = psutil.Popen(command, env=stack.environment, stdout=-3, stderr=-3, cwd=ROOT)
        return int(probe.wait(timeout=60)) == 0

    try:
        from tests.support.stack import redis_binary

        assert services["redis"]["command"][0] == "redis-server"
        stack.service_environment = {}
        stack.spawn("redis", redis_binary(), *services["redis"]["command"][1:], "--port", str(redis_port))
        start("migrate")
        assert stack.processes.pop("migrate").wait(timeout=60) == 0, stack.logs()
        stack.service_environment = {
            key: local(str(value), tmp_path, database_url, redis_port)
            for key, value in services["api"]["environment"].items()
        }
        stack.key = stack.run("key", "create", "--name", "compose").strip().splitlines()[-1]
        for name in OURS[1:]:
            start(name)
        for name in OURS[1:]:
            wait_for(lambda name=name: healthy(name), what=f"{name} to be healthy")
        with stack.client() as client:
            job = submit(client, example_spec("cancer-table", upload(client, data / "cancer.csv", target="diagnosis")))
            assert wait_until(client, job, "succeeded")["result"]["test"]["accuracy"] > 0.9
    except BaseException:
        print(stack.logs())
        raise
    finally:
        stack.stop()

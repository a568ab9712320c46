"""A stack of docker-compose.yml's own services as local processes: their commands and environments, without Docker."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path
from typing import Any

import psutil
import yaml

from tests.support.api_steps import ROOT
from tests.support.stack import FAST, Stack, free_port, redis_binary, wait_for

DEFAULT = re.compile(r"\$\{[A-Z_]+:-([^}]*)\}")
SECRET_KEY = re.compile(r"\$\{TRAINKIT_SECRET_KEY:\?[^}]*\}")
REDIS_PASSWORD = re.compile(r"\$\{REDIS_PASSWORD:\?[^}]*\}")
OURS = ("migrate", "api", "worker-data", "worker-train")


def compose_file() -> dict[str, Any]:
    """docker-compose.yml, read."""
    return dict(yaml.safe_load((ROOT / "docker-compose.yml").read_text()))


class ComposeStack(Stack):
    """The services' environments are the compose file's, host names and folders mapped to this machine's."""

    def __init__(self, folder: Path, database_url: str) -> None:
        super().__init__(folder, database_url)
        self.services: dict[str, Any] = compose_file()["services"]
        self.redis_port = free_port()
        self.service_environment: dict[str, str] = {}

    @property
    def environment(self) -> dict[str, str]:
        ours = super().environment
        kept = {name: value for name, value in ours.items() if not name.startswith("TRAINKIT_")}
        return kept | FAST | self.service_environment

    def start(self) -> ComposeStack:
        """Migrate, make a key, start the services."""
        (self.folder / "data/storage").mkdir(parents=True)
        assert self.services["redis"]["command"][0] == "redis-server"
        options = [REDIS_PASSWORD.sub("secret", word) for word in self.services["redis"]["command"][1:]]
        self.spawn("redis", redis_binary(), *options, "--port", str(self.redis_port))
        self._start_service("migrate")
        assert self.processes.pop("migrate").wait(timeout=60) == 0, self.logs()
        self._take_environment("api")
        self.key = self.run("key", "create", "--name", "compose").strip().splitlines()[-1]
        for name in OURS[1:]:
            self._start_service(name)
        wait_for(self.ready, what="the API to be ready")
        return self

    def healthy(self, name: str) -> bool:
        """Whether the service's health check, run as the compose file has it, exits with 0."""
        test = self.services[name]["healthcheck"]["test"]
        assert test[0] == "CMD", shlex.join(test)
        command = [sys.executable if word == "python" else word.replace("8321", str(self.port)) for word in test[1:]]
        probe = psutil.Popen(command, env=self.environment, stdout=-3, stderr=-3, cwd=ROOT)
        return int(probe.wait(timeout=60)) == 0

    def _start_service(self, name: str) -> None:
        self._take_environment(name)
        mapped = {"8321": str(self.port), "0.0.0.0": "127.0.0.1"}
        program, *arguments = self.services[name]["command"]
        self.spawn(name, str(Path(sys.executable).parent / program), *(mapped.get(word, word) for word in arguments))

    def _take_environment(self, name: str) -> None:
        given = self.services[name]["environment"]
        self.service_environment = {key: self._local(str(value)) for key, value in given.items()}

    def _local(self, value: str) -> str:
        """A value of the compose file with the names replaced that only exist inside its network."""
        inside = r"postgresql\+psycopg://trainkit:\$\{[^}]*\}@postgres:5432/trainkit"
        value = re.sub(inside, lambda _: self.database_url, value)
        value = REDIS_PASSWORD.sub("secret", value)
        value = SECRET_KEY.sub("A" * 43 + "=", value)
        value = DEFAULT.sub(r"\1", value)
        value = value.replace("@redis:6379", f"@127.0.0.1:{self.redis_port}")
        return value.replace("/data/", f"{self.folder}/data/")

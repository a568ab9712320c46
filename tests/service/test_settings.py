"""The environment is read in one place."""

from __future__ import annotations

import re
from pathlib import Path

from service.settings import Settings

ROOT = Path(__file__).parents[2]


def test_defaults_are_those_of_one_machine() -> None:
    settings = Settings.from_env({"TRAINKIT_HOME": "/srv/trainkit"})
    assert settings.database_url == "sqlite:////srv/trainkit/trainkit.db"
    assert settings.storage_url == "/srv/trainkit/storage"
    assert settings.scratch == Path("/srv/trainkit/scratch")
    assert (settings.lease_seconds, settings.heartbeat_seconds, settings.max_interruptions) == (30, 5, 5)


def test_everything_can_be_said() -> None:
    settings = Settings.from_env(
        {
            "TRAINKIT_DATABASE_URL": "postgresql+psycopg://db/x",
            "TRAINKIT_BROKER_URL": "redis://broker/1",
            "TRAINKIT_STORAGE_URL": "file:///data",
            "TRAINKIT_LEASE_SECONDS": "4",
            "TRAINKIT_MAX_UPLOAD_BYTES": "10",
            "TRAINKIT_WEBHOOK_ALLOW": "hooks.internal, 10.1.0.0/16,",
        }
    )
    assert settings.database_url == "postgresql+psycopg://db/x"
    assert (settings.broker_url, settings.storage_url) == ("redis://broker/1", "file:///data")
    assert (settings.lease_seconds, settings.max_upload_bytes) == (4, 10)
    assert settings.webhook_allow == ("hooks.internal", "10.1.0.0/16")


def test_nobody_else_in_the_service_reads_the_environment() -> None:
    readers = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "service").rglob("*.py")
        if re.search(r"os\.environ|getenv", path.read_text())
    }
    # the commands pass it on to the processes that they start; failpoints are switched on and off by tests only
    readers -= {f"service/cli/{name}.py" for name in ("app", "home", "up")}
    assert readers == {"service/settings.py", "service/failpoints.py"}

"""`python -m service.migrate`: bring the database to the newest schema. Safe to run from several places at once."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, event, text

from service.database import make_engine, scrub
from service.private_files import keep_files_private
from service.secret_box import SecretBox
from service.sessions import session_factory
from service.settings import Settings
from service.stored_secrets import encrypt_all

log = logging.getLogger(__name__)
LOCK = 0x7472_6169_6E  # "train": the advisory lock that lets one migration run at a time on PostgreSQL
SCRIPTS = Path(__file__).parents[1] / "migrations"


def upgrade(url: str, revision: str = "head") -> None:
    """Run every migration up to `revision`, in one transaction."""
    if url.startswith("sqlite:///"):
        Path(url.removeprefix("sqlite:///")).absolute().parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    engine = make_engine(url)
    sqlite = engine.dialect.name == "sqlite"
    if sqlite:
        # changing a column means making its table anew; what refers to the old one is checked at the end instead
        event.listen(engine, "connect", lambda connection, record: connection.execute("PRAGMA foreign_keys=OFF"))
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            # wait for another migration as long as it takes, whatever the service's own limits are
            connection.execute(text("SET LOCAL lock_timeout = 0"))
            connection.execute(text("SET LOCAL statement_timeout = 0"))
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
        command.upgrade(_config(connection), revision)
        if sqlite and (broken := connection.execute(text("PRAGMA foreign_key_check")).all()):
            raise RuntimeError(f"rows would refer to nothing: {broken[:5]}")
    engine.dispose()


def encrypt_secrets(settings: Settings) -> None:
    """Encrypt what earlier versions stored as it was, where there is a key."""
    engine, box = make_engine(settings.database_url), SecretBox(settings)
    if not box.can_encrypt:
        log.warning("no key for secrets: set TRAINKIT_SECRET_KEY, then run `trainkit secrets rotate`")
    elif encrypt_all(session_factory(engine), box).changed:
        scrub(engine)
    engine.dispose()


def _config(connection: Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(SCRIPTS))
    config.attributes["connection"] = connection
    return config


def main() -> int:
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    settings = Settings.from_env()
    keep_files_private(settings)
    upgrade(settings.database_url)
    encrypt_secrets(settings)
    print("The database is up to date.")
    return 0


if __name__ == "__main__":
    sys.exit(main())

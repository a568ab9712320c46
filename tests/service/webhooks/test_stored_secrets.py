"""Secrets at rest: no file of the database has one in plain text, and a lost key costs one webhook and not the service."""

from __future__ import annotations

import base64
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from sqlalchemy import text

from service import secrets as command
from service.app import create_app
from service.migrate import encrypt_secrets, upgrade
from service.secret_box import PREFIX, SecretBox, SecretKeyError
from service.settings import Settings
from service.stored_secrets import encrypt_all
from service.webhooks.signing import new_secret
from tests.support.api import Served
from tests.support.webhook_receiver import sender

FIRST, SECOND = (base64.b64encode(bytes([number]) * 32).decode() for number in (1, 2))


def box(settings: Settings, *keys: str) -> SecretBox:
    return SecretBox(replace(settings, secret_keys=keys))


def stored(service: Served) -> list[tuple[Any, ...]]:
    with service.sessions.begin() as session:
        return [tuple(row) for row in session.execute(text("SELECT id, secret, previous_secret FROM webhooks"))]


def bytes_of(service: Served) -> bytes:
    """All that the database keeps: every file of SQLite, every row of PostgreSQL as text."""
    url = service.context.engine.url
    if url.get_backend_name() == "sqlite":
        return b"".join(path.read_bytes() for path in Path(url.database or "").parent.glob("migrated.db*"))
    with service.context.engine.connect() as connection:
        tables = sqlalchemy.inspect(connection).get_table_names()
        rows = [connection.execute(text(f'SELECT t::text FROM "{name}" AS t')).scalars().all() for name in tables]
    return "\n".join(row for found in rows for row in found).encode()


@pytest.mark.postgresql
def test_no_secret_is_in_the_database_as_it_is(service: Served) -> None:
    chosen = new_secret()
    webhook = service.client.post("/v1/webhooks", json={"url": "http://127.0.0.1:9/", "secret": chosen}).json()
    assert webhook["secret"] == chosen
    rotated = service.client.post(f"/v1/webhooks/{webhook['id']}/rotate").json()["secret"]
    ((_, secret, previous),) = stored(service)
    assert secret.startswith(PREFIX)
    assert previous.startswith(PREFIX)
    kept = bytes_of(service)
    assert webhook["id"].encode() in kept
    assert [one for one in (chosen, rotated) if one.encode() in kept] == []


@pytest.mark.postgresql
def test_secrets_of_earlier_versions_are_encrypted_by_the_migration(service: Served, settings: Settings) -> None:
    plain, older = new_secret(), new_secret()
    webhook = service.client.post("/v1/webhooks", json={"url": "http://127.0.0.1:9/"}).json()["id"]
    with service.sessions.begin() as session:
        session.execute(
            text("UPDATE webhooks SET secret = :plain, previous_secret = :older"), {"plain": plain, "older": older}
        )
    assert plain.encode() in bytes_of(service)
    encrypt_secrets(settings)
    kept = bytes_of(service)
    assert plain.encode() not in kept
    assert older.encode() not in kept
    answer = service.client.post(f"/v1/webhooks/{webhook}/rotate", json={"secret": plain})
    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (422, "same_secret")


@pytest.mark.postgresql
def test_the_migration_makes_room_and_keeps_what_is_there(database_url: str) -> None:
    upgrade(database_url, "0028")
    engine = sqlalchemy.create_engine(database_url)
    values = "'wh_1', 'p', 'https://x/', 'x:443', '', '[]', 'whsec_old', true, '2026-01-01', '2026-01-01'"
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO projects (id, name, created_at) VALUES ('p', 'p', '2026-01-01')"))
        columns = "id, project_id, url, host, description, events, secret, active, created_at, updated_at"
        connection.execute(text(f"INSERT INTO webhooks ({columns}) VALUES ({values})"))
    upgrade(database_url)
    with engine.begin() as connection:
        assert connection.execute(text("SELECT secret FROM webhooks")).scalar_one() == "whsec_old"
        connection.execute(text("UPDATE webhooks SET secret = :long"), {"long": "x" * 300})
    engine.dispose()


def test_a_secret_is_bound_to_its_place(settings: Settings) -> None:
    one = box(settings, FIRST)
    sealed = one.encrypt("s", "webhooks/wh_1/secret")
    assert one.decrypt(sealed, "webhooks/wh_1/secret") == "s"
    assert sealed != one.encrypt("s", "webhooks/wh_1/secret")
    for place in ("webhooks/wh_2/secret", "webhooks/wh_1/previous_secret"):
        with pytest.raises(SecretKeyError, match="belongs to another place"):
            one.decrypt(sealed, place)
    changed = sealed[:-8] + ("A" if sealed[-8] != "A" else "B") + sealed[-7:]
    with pytest.raises(SecretKeyError, match="was changed"):
        one.decrypt(changed, "webhooks/wh_1/secret")


def test_keys_rotate_without_a_moment_in_which_a_secret_cannot_be_read(service: Served, settings: Settings) -> None:
    webhook = service.client.post("/v1/webhooks", json={"url": "http://127.0.0.1:9/"}).json()
    old = settings.secret_keys[0]
    both = box(settings, FIRST, old)
    ((identifier, before, _),) = stored(service)
    place = f"webhooks/{identifier}/secret"
    assert both.decrypt(before, place) == webhook["secret"]
    assert (encrypt_all(service.sessions, both).changed, encrypt_all(service.sessions, both).current) == (1, 1)
    ((_, after, _),) = stored(service)
    assert box(settings, FIRST).decrypt(after, place) == webhook["secret"]
    with pytest.raises(SecretKeyError, match="not among TRAINKIT_SECRET_KEY"):
        box(settings, old).decrypt(after, place)


def test_the_command_rotates_and_names_what_it_cannot_read(
    service: Served, settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    webhook = service.client.post("/v1/webhooks", json={"url": "http://127.0.0.1:9/"}).json()["id"]
    monkeypatch.setattr(sys, "argv", ["secrets", "rotate"])
    monkeypatch.setenv("TRAINKIT_DATABASE_URL", settings.database_url)
    monkeypatch.setenv("TRAINKIT_SECRET_KEY", f"{FIRST},{settings.secret_keys[0]}")
    assert command.main() == 0
    assert capsys.readouterr().out == "1 secrets were encrypted with the first key, 0 were already.\n"
    monkeypatch.setenv("TRAINKIT_SECRET_KEY", SECOND)
    assert command.main() == 1
    assert f"the secret of the webhook {webhook} cannot be decrypted" in capsys.readouterr().err


@pytest.mark.postgresql
def test_a_lost_key_is_told_at_the_delivery_and_a_new_secret_helps(service: Served, settings: Settings) -> None:
    registered = service.client.post("/v1/webhooks", json={"url": "http://127.0.0.1:9/"}).json()
    delivery = service.client.post(f"/v1/webhooks/{registered['id']}/test").json()["id"]
    with service.sessions.begin() as session:
        session.execute(text("UPDATE webhooks SET secret = :lost"), {"lost": f"{PREFIX}00000000:AAAA"})
    one = sender(service)
    assert one.start_due() == 0
    path = f"/v1/webhooks/{registered['id']}"
    shown = service.client.get(f"{path}/deliveries/{delivery}").json()
    assert (shown["state"], shown["attempts"]) == ("pending", 0)
    assert "the key 00000000, which is not among TRAINKIT_SECRET_KEY" in shown["error"]
    assert shown["next_attempt_at"] > shown["created_at"]
    assert service.client.get(path).status_code == 200
    answer = service.client.post(f"{path}/rotate")
    assert (answer.status_code, answer.json()["previous_secret_until"]) == (200, None)
    ((_, secret, previous),) = stored(service)
    assert SecretBox(settings).decrypt(secret, f"webhooks/{registered['id']}/secret") == answer.json()["secret"]
    assert previous is None


@pytest.mark.postgresql
def test_without_a_key_one_is_created_beside_sqlite_and_asked_for_elsewhere(
    service: Served, settings: Settings
) -> None:
    bare = replace(settings, secret_keys=())
    file = settings.home / "secret-key"
    if settings.database_url.startswith("sqlite"):
        sealed = SecretBox(bare).encrypt("s", "place")
        assert file.stat().st_mode & 0o777 == 0o600
        assert SecretBox(bare).decrypt(sealed, "place") == "s"
        assert [path.name for path in settings.home.glob("*secret-key*")] == ["secret-key"]
        return
    app = create_app(bare)
    other = Served(app, service.client, app.state.context)
    answer = other.client_for("default").post("/v1/webhooks", json={"url": "http://127.0.0.1:9/"})
    assert (answer.status_code, answer.json()["code"]) == (503, "no_secret_key")
    assert "set TRAINKIT_SECRET_KEY" in answer.json()["detail"]
    app.state.context.engine.dispose()
    file.write_text(f"{FIRST}\n{SECOND}\n")
    assert SecretBox(bare).decrypt(box(settings, SECOND).encrypt("s", "place"), "place") == "s"


@pytest.mark.parametrize("key", ["x", base64.b64encode(bytes(31)).decode(), "a" * 64])
def test_a_malformed_key_stops_the_start(settings: Settings, key: str) -> None:
    with pytest.raises(SecretKeyError, match="base64 of 32 bytes") as error:
        create_app(replace(settings, secret_keys=(key,)))
    assert key not in str(error.value) or len(key) < 2

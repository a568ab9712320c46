"""The secrets of webhooks as the database holds them."""

from __future__ import annotations

from dataclasses import dataclass, field

from sqlalchemy.orm import Session, sessionmaker

from service.outbox.tables import Webhook
from service.secret_box import SecretBox, SecretKeyError
from service.webhooks import repository

COLUMNS = ("secret", "previous_secret")
BATCH = 100


def place_of(webhook_id: str, column: str) -> str:
    """Return where a secret is stored, which it is bound to."""
    return f"webhooks/{webhook_id}/{column}"


def secret_of(box: SecretBox, webhook: Webhook, column: str = "secret") -> str:
    """Return a secret in plain text. Raises SecretKeyError."""
    return box.decrypt(getattr(webhook, column), place_of(webhook.id, column))


def set_secret(box: SecretBox, webhook: Webhook, value: str | None, column: str = "secret") -> None:
    """Store a secret encrypted, or none. Raises SecretKeyError without a key."""
    setattr(webhook, column, None if value is None else box.encrypt(value, place_of(webhook.id, column)))


@dataclass(slots=True)
class EncryptedSecrets:
    """What became of all stored secrets."""

    changed: int = 0
    current: int = 0
    unreadable: list[str] = field(default_factory=list)


def encrypt_secrets(sessions: sessionmaker[Session], box: SecretBox) -> EncryptedSecrets:
    """Encrypt the secrets of webhooks with the first key, in short transactions. Raises SecretKeyError without a key."""
    done, after = EncryptedSecrets(), ""
    while True:
        with sessions.begin() as session:
            webhooks = repository.with_secrets(session, after, BATCH)
            for webhook in webhooks:
                _encrypt(box, webhook, done)
        if len(webhooks) < BATCH:
            return done
        after = webhooks[-1].id


def _encrypt(box: SecretBox, webhook: Webhook, done: EncryptedSecrets) -> None:
    for column in COLUMNS:
        stored = getattr(webhook, column)
        if stored is None:
            continue
        if box.is_current(stored):
            done.current += 1
            continue
        try:
            value = secret_of(box, webhook, column)
        except SecretKeyError as error:
            done.unreadable.append(f"the {column} of the webhook {webhook.id} cannot be decrypted: {error}")
            continue
        set_secret(box, webhook, value, column)
        done.changed += 1

"""The tokens of mirrors as the database holds them."""

from __future__ import annotations

from sqlalchemy.orm import Session, sessionmaker

from service.mirrors import repository
from service.outbox.tables import Mirror
from service.secret_box import SecretBox, SecretKeyError
from service.webhooks.stored_secrets import BATCH, EncryptedSecrets


def token_of(box: SecretBox, mirror: Mirror) -> str | None:
    """Return the token in plain text, None without one. Raises SecretKeyError."""
    return None if mirror.token is None else box.decrypt(mirror.token, _place_of(mirror))


def set_token(box: SecretBox, mirror: Mirror, value: str | None) -> None:
    """Store a token encrypted, or none. Raises SecretKeyError without a key."""
    mirror.token = None if value is None else box.encrypt(value, _place_of(mirror))


def encrypt_tokens(sessions: sessionmaker[Session], box: SecretBox, done: EncryptedSecrets) -> None:
    """Encrypt every token with the first key, in short transactions."""
    after = ""
    while True:
        with sessions.begin() as session:
            mirrors = repository.with_tokens(session, after, BATCH)
            for mirror in mirrors:
                _encrypt(box, mirror, done)
        if len(mirrors) < BATCH:
            return
        after = mirrors[-1].id


def _encrypt(box: SecretBox, mirror: Mirror, done: EncryptedSecrets) -> None:
    if mirror.token is None:
        return
    if box.is_current(mirror.token):
        done.current += 1
        return
    try:
        value = token_of(box, mirror)
    except SecretKeyError as error:
        done.unreadable.append(f"the token of the mirror {mirror.id} cannot be decrypted: {error}")
        return
    set_token(box, mirror, value)
    done.changed += 1


def _place_of(mirror: Mirror) -> str:
    return f"mirrors/{mirror.id}/token"

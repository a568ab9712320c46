"""All secrets that the database holds."""

from __future__ import annotations

from sqlalchemy.orm import Session, sessionmaker

from service.mirrors.stored_tokens import encrypt_tokens
from service.secret_box import SecretBox
from service.webhooks.stored_secrets import EncryptedSecrets, encrypt_secrets


def encrypt_all(sessions: sessionmaker[Session], box: SecretBox) -> EncryptedSecrets:
    """Encrypt every secret with the first key, in short transactions. Raises SecretKeyError without a key."""
    done = encrypt_secrets(sessions, box)
    encrypt_tokens(sessions, box, done)
    return done

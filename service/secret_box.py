"""Encryption of secrets that the database holds: AES-256-GCM, bound to the place where each is stored.

A stored secret is `enc1:<id of the key>:<base64 of nonce and ciphertext>`. Table, row and column are authenticated with it,
so that one cannot be moved to another place. The first key encrypts; all decrypt.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import os
from pathlib import Path

from service.settings import Settings

PREFIX = "enc1:"
KEY_BYTES, NONCE_BYTES = 32, 12
NEW_KEY = "`openssl rand -base64 32` prints a new one"


class SecretKeyError(Exception):
    """A secret cannot be encrypted or decrypted; the message says what the operator can do."""


class SecretBox:
    """Encrypts and decrypts with the keys of the settings; a file is read anew each time, for it may come later."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._file = settings.secret_key_file or settings.home / "secret-key"
        self._keys()  # a malformed key stops the start

    def encrypt(self, value: str, place: str) -> str:
        """Return the stored form of a secret. Raises SecretKeyError without a key.

        Args:
            place: where it is stored: `table/row/column`.
        """
        key = next(iter(self._keys() or [self._new_key()]))
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # several MiB, for webhooks alone

        nonce = os.urandom(NONCE_BYTES)
        sealed = nonce + AESGCM(key).encrypt(nonce, value.encode(), place.encode())
        return f"{PREFIX}{_id_of(key)}:{base64.b64encode(sealed).decode()}"

    def decrypt(self, stored: str, place: str) -> str:
        """Return the secret. Raises SecretKeyError when its key is not there, or it was not stored at that place.

        What an earlier version stored as it was is returned as it is.
        """
        if not stored.startswith(PREFIX):
            return stored
        key_id, _, text = stored.removeprefix(PREFIX).partition(":")
        key = next((one for one in self._keys() if _id_of(one) == key_id), None)
        if key is None:
            raise SecretKeyError(f"it is encrypted with the key {key_id}, which is not among TRAINKIT_SECRET_KEY")
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        try:
            sealed = base64.b64decode(text, validate=True)
            return AESGCM(key).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], place.encode()).decode()
        except (InvalidTag, binascii.Error, ValueError):
            raise SecretKeyError("it was changed in the database, or belongs to another place there") from None

    def is_current(self, stored: str) -> bool:
        """Whether it is encrypted with the first key."""
        keys = self._keys()
        return bool(keys) and stored.startswith(f"{PREFIX}{_id_of(keys[0])}:")

    @property
    def can_encrypt(self) -> bool:
        """Whether there is a key, or one may be created."""
        return bool(self._keys()) or self._may_create_key

    @property
    def _may_create_key(self) -> bool:
        # with another database other hosts would not know the key, and a container would lose it
        return self._settings.secret_key_file is None and self._settings.database_url.startswith("sqlite")

    def _keys(self) -> list[bytes]:
        texts = list(self._settings.secret_keys)
        if not texts:
            with contextlib.suppress(FileNotFoundError):
                texts = self._file.read_text(encoding="utf-8").split()
        return [_key_of(text) for text in texts]

    def _new_key(self) -> bytes:
        """Create the key file of a single machine. Raises SecretKeyError where an operator has to choose the key."""
        if not self._may_create_key:
            raise SecretKeyError(
                f"there is no key: set TRAINKIT_SECRET_KEY or TRAINKIT_SECRET_KEY_FILE, the same for all processes; {NEW_KEY}"
            )
        self._file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        key = os.urandom(KEY_BYTES)
        # written whole under another name, then linked: of two processes at once one wins, and both use its key
        part = self._file.with_name(f".{self._file.name}.{os.getpid()}.{os.urandom(4).hex()}")
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(base64.b64encode(key).decode() + "\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            with contextlib.suppress(FileExistsError):
                os.link(part, self._file)
        finally:
            part.unlink()
        _sync_folder(self._file.parent)
        return self._keys()[0]


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _id_of(key: bytes) -> str:
    return hashlib.sha256(key).hexdigest()[:8]


def _key_of(text: str) -> bytes:
    try:
        key = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != KEY_BYTES:
        raise SecretKeyError(f"a secret key is the base64 of {KEY_BYTES} bytes; one of those given is not. {NEW_KEY}")
    return key

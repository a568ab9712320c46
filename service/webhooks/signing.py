"""Standard Webhooks signatures: they prove a message's origin, integrity and time to whoever holds the secret."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
from collections.abc import Iterable

PREFIX = "whsec_"
SECRET_BYTES = (24, 64)
NEW_SECRET_BYTES = 32


def new_secret() -> str:
    """Generate `whsec_` and the base64 of random bytes."""
    return PREFIX + base64.b64encode(os.urandom(NEW_SECRET_BYTES)).decode()


def key_of(secret: str) -> bytes:
    """Decode the key of a secret. Raises ValueError with what is wrong."""
    try:
        key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    min_bytes, max_bytes = SECRET_BYTES
    if not secret.startswith(PREFIX) or not min_bytes <= len(key) <= max_bytes:
        raise ValueError(f"a secret is {PREFIX!r} and then the base64 of {min_bytes} to {max_bytes} bytes")
    return key


def sign(secrets: Iterable[str], message_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """Return the three headers, with a signature `v1,base64(HMAC-SHA256(key, id.timestamp.body))` for each secret."""
    signed = f"{message_id}.{timestamp}.".encode() + body
    digests = (hmac.new(key_of(secret), signed, hashlib.sha256).digest() for secret in secrets)
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join("v1," + base64.b64encode(digest).decode() for digest in digests),
    }

"""The wire format of protobuf messages, for the few that are written without their classes."""

from __future__ import annotations

from collections.abc import Iterable


def varint(number: int) -> bytes:
    """Seven bits a byte, the lowest first; a negative one as its 64-bit complement."""
    number &= 2**64 - 1
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def sized(body: bytes) -> bytes:
    """Bytes behind their length."""
    return varint(len(body)) + body


def number_field(field: int, value: int) -> bytes:
    """Return an integer field; nothing for 0, its default."""
    return varint(field << 3) + varint(value) if value else b""


def bytes_field(field: int, body: bytes) -> bytes:
    """Return a message that is a field."""
    return varint(field << 3 | 2) + sized(body)


def text_field(field: int, text: str | None) -> bytes:
    """Return a string field; nothing for an empty one, its default."""
    return bytes_field(field, text.encode(errors="replace")) if text else b""


def texts_field(field: int, texts: Iterable[str]) -> bytes:
    """Return a repeated string field."""
    return b"".join(text_field(field, text) for text in texts)

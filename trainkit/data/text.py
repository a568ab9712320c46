"""Cleaning of text for databases, JSON and terminals."""

from __future__ import annotations

from trainkit.spec.text import CONTROLS


def storable(text: str) -> str:
    """Replace NUL characters and unpaired surrogates, which databases refuse."""
    if "\x00" not in text and text.isprintable():
        return text
    return text.replace("\x00", "\ufffd").encode("utf-8", "replace").decode()


def printable(text: str) -> str:
    """Return a file name on one line: bytes that are not UTF-8 count as Windows-1252, control characters are replaced."""
    if text.isprintable():
        return text
    escaped = any("\ud800" <= c <= "\udfff" for c in text)
    if escaped and all("\udc80" <= c <= "\udcff" for c in text if "\ud800" <= c <= "\udfff"):
        text = text.encode("utf-8", "surrogateescape").decode("cp1252", "replace")
    return CONTROLS.sub("\ufffd", text.encode("utf-8", "backslashreplace").decode())

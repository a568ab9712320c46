"""Why bytes cannot be read, in sentences of our own: what libraries say is about their inside, and changes with them."""

from __future__ import annotations

import re
import tarfile
import zipfile

CUT_OFF = re.compile(r"\beof\b|end of|ended before|too short|truncated|empty header|cut off|footer", re.IGNORECASE)
ENCRYPTED = re.compile(r"encrypt|password", re.IGNORECASE)
UNSUPPORTED = re.compile(r"not supported|unsupported|not implemented|compression (?:method|type)|codec", re.IGNORECASE)


class RefusedArchiveError(tarfile.ReadError):
    """An archive is refused while its library reads it; the message is a sentence of our own."""


def damage_reason(error: Exception) -> str:
    """Return why a file or an entry cannot be read, from the kind of the error that a library raised."""
    if isinstance(error, RefusedArchiveError):
        return str(error)
    text = str(error)
    if isinstance(error, EOFError) or CUT_OFF.search(text):
        return "it ends too early, as if it were cut off"
    if ENCRYPTED.search(text):
        return "it is encrypted"
    if isinstance(error, NotImplementedError) or UNSUPPORTED.search(text):
        return "it is packed or encoded in a way that is not supported"
    if isinstance(error, zipfile.BadZipFile):
        return "its directory of entries is damaged"
    return "its bytes are damaged"

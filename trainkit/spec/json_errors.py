"""Why a text is no JSON, in sentences of our own."""

from __future__ import annotations

import json

JSON_REASONS = (
    ("Expecting value", "a value is missing, or is not one of JSON"),
    ("Expecting property name", "a field name in double quotes is missing"),
    ("Expecting ':'", "a colon is missing"),
    ("Expecting ','", "a comma is missing"),
    ("Illegal trailing comma", "a comma has nothing behind it"),
    ("Extra data", "something follows the end of the document"),
    ("Unterminated string", "a text that begins has no closing quote"),
    ("Invalid control character", "a text holds a control character"),
    ("Invalid \\", "a backslash in a text escapes nothing"),
)
"""Beginning of what json says -> what it means, in front of the place."""


def json_meaning(message: str) -> str:
    """Return what a message of Python's json means."""
    return next((meaning for word, meaning in JSON_REASONS if message.startswith(word)), "it cannot be read")


def json_reason(error: Exception) -> str:
    """Return why a text is no JSON: `a comma is missing in line 3, column 7`."""
    if isinstance(error, json.JSONDecodeError):
        return f"{json_meaning(error.msg)} in line {error.lineno}, column {error.colno}"
    if isinstance(error, UnicodeDecodeError):
        return f"byte {error.start} is not UTF-8"
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    return "it holds a whole number of thousands of digits"  # Python's limit against slow conversions

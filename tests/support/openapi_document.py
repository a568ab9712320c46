"""The service's OpenAPI document, described once for all tests of a process: that takes seconds."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from service.app import create_app
from service.settings import Settings


def openapi_document() -> dict[str, Any]:
    """The document, as a copy of the caller's own."""
    document: dict[str, Any] = json.loads(_text())
    return document


@cache
def _text() -> str:
    return json.dumps(create_app(Settings.from_env({})).openapi(), ensure_ascii=False)

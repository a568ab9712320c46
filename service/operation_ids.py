"""The names of operations: as the OpenAPI document has them, so the audit log does."""

from __future__ import annotations

import re
from typing import Any


def camel_case(name: str) -> str:
    """Return `create_job` as `createJob`."""
    return re.sub(r"_(.)", lambda match: match.group(1).upper(), name)


def operation_id(route: Any) -> str | None:
    """Return the operationId of a route; None where no route was matched, or a mounted folder."""
    named = getattr(route, "operation_id", None)
    name = getattr(route, "name", None)
    return named or (camel_case(name) if name else None)

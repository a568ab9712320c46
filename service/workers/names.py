"""How answers name a worker: by an alias, because its host and process are the operator's to know."""

from __future__ import annotations

import hashlib


def worker_alias(name: str) -> str:
    """Return `worker-` and eight digits for a worker's `host/pid`; other actors keep their names.

    The same worker has the same alias everywhere; its own log names both.
    """
    return f"worker-{hashlib.sha256(name.encode()).hexdigest()[:8]}" if "/" in name else name

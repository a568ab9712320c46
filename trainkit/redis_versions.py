"""Which Redis or Valkey has a known hole. The service and the command `trainkit up` name it and warn."""

from __future__ import annotations

import re

FIXED_IN: dict[str, dict[str, dict[tuple[int, int], int]]] = {
    # code by way of Lua: {CVE: {server: {series: first patch without it}}}
    "CVE-2024-31449": {"redis": {(6, 2): 16, (7, 2): 6, (7, 4): 1}, "valkey": {(7, 2): 7, (8, 0): 1}},
    "CVE-2025-49844": {
        "redis": {(6, 2): 20, (7, 2): 11, (7, 4): 6, (8, 0): 4, (8, 2): 2},
        "valkey": {(7, 2): 11, (8, 0): 6, (8, 1): 4},
    },
}
"""A series that is not listed has the hole when a later one has a fix: it is not maintained any more."""
VERSION = re.compile(r"(\d+)\.(\d+)\.(\d+)")


def known_vulnerabilities(server: str, version: str) -> list[str]:
    """Return the CVEs of a server, `redis` or `valkey`, in a version such as `6.2.14`; [] when none is known."""
    found = VERSION.match(version)
    if found is None:
        return []
    major, minor, patch = map(int, found.groups())
    vulnerable = []
    for name, servers in FIXED_IN.items():
        fixed = servers.get(server.lower(), {})
        first = fixed.get((major, minor))
        if (patch < first) if first is not None else bool(fixed) and (major, minor) < max(fixed):
            vulnerable.append(name)
    return vulnerable

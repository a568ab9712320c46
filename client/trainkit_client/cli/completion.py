"""Names for the shell's completion, asked of the service. Without an answer at once there are none."""

from __future__ import annotations

from collections.abc import Callable

SECONDS = 1.5
"""To wait for the service: somebody has pressed the tab key."""
SHOWN = 200


def names_of(kind: str, *, ids: bool = True, fields: str = "id,name") -> Callable[[str], list[str]]:
    """Return a completion of names and ids of a list."""

    def complete(incomplete: str) -> list[str]:
        found = [name for name in _ask(kind, fields, ids) if name.startswith(incomplete)]
        if ids and "@last".startswith(incomplete):
            found.append("@last")
        return list(dict.fromkeys(found))

    return complete


def _ask(kind: str, fields: str, ids: bool) -> list[str]:
    from trainkit_client import Client, TrainkitError

    try:
        client = Client(timeout=SECONDS, max_retries=0)
        rows = client.request("GET", f"/v1/{kind}", params={"fields": fields, "limit": SHOWN})["data"]
    except (TrainkitError, KeyError, TypeError):
        return []
    names = [row["name"] for row in rows if row.get("name")]
    return [*names, *(row["id"] for row in rows)] if ids else names


JOBS = names_of("jobs")
DATASETS = names_of("datasets")
MODELS = names_of("models")
EXPERIMENTS = names_of("experiments")
PROJECTS = names_of("projects")
KEYS = names_of("keys")
STATES = ["validating", "queued", "starting", "running", "pausing", "paused", "stopping", "succeeded", "stopped"]
"""Of jobs."""


def states(incomplete: str) -> list[str]:
    """Complete a state of a job."""
    return [state for state in [*STATES, "cancelled", "failed"] if state.startswith(incomplete)]

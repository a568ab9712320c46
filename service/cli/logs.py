"""`trainkit logs`: the lines of a job's attempts, and with --follow those that come until it ends."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from service.cli.home import Home, RefusedError
from trainkit.spec.text import escaped

WAIT_SECONDS = 25
PAUSE_SECONDS = 1.0
EXIT_NO_ANSWER = 7
EXIT_REFUSED = 8


def lines(url: str, key: str, job: str, *, follow: bool, **filters: Any) -> Iterator[str]:
    """Each line as it is printed. Raises RefusedError for what the service refuses, and when nobody answers."""
    query = {name: value for name, value in filters.items() if value is not None}
    after, connected = 0, False
    headers = {"Authorization": f"Bearer {key}"}
    with httpx.Client(base_url=url, headers=headers, timeout=WAIT_SECONDS + 10) as client:
        while True:
            parameters = {
                **query,
                "format": "json",
                "after": after,
                "wait": WAIT_SECONDS if follow and connected else 0,
            }
            try:
                response = client.get(f"/v1/jobs/{job}/logs", params=parameters)
            except httpx.TransportError as error:
                if not (follow and connected):
                    hint = "Start it with `trainkit up`, or say where it is with --url."
                    raise RefusedError(f"nobody answers at {url}: {error}", hint, EXIT_NO_ANSWER) from None
                time.sleep(PAUSE_SECONDS)  # it is being restarted
                continue
            if response.status_code >= 500 and follow and connected:
                time.sleep(PAUSE_SECONDS)
                continue
            page = _page(response)
            connected = True
            for line in page["data"]:
                yield escaped(f"{line['at']} {line['attempt']} {line['level']} {line['text']}")
            if page["done"] or not (follow or page["data"]) or (not follow and "tail" in query):
                return
            after = page["next"]
            query.pop("tail", None)


def key_of(home: Path | None) -> str:
    """TRAINKIT_KEY, else the key of the home folder."""
    if key := os.environ.get("TRAINKIT_KEY"):
        return key
    file = Home.at(home).key_file
    try:
        return file.read_text(encoding="utf-8").strip()
    except OSError as error:
        hint = "Set TRAINKIT_KEY, or say where the service's folder is with --home."
        raise RefusedError(f"there is no key in {file}: {error.strerror}", hint, EXIT_REFUSED) from None


def _page(response: httpx.Response) -> dict[str, Any]:
    if response.status_code == 200:
        page: dict[str, Any] = response.json()
        return page
    try:
        problem = response.json()
    except ValueError:
        problem = {}
    hint = f"The service answered {response.status_code} ({problem.get('code', 'no code')})."
    raise RefusedError(escaped(problem.get("detail") or "the service refused"), hint, EXIT_REFUSED)

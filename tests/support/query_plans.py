"""Watches how SQLite carries out what the service asks: no statement may read a whole table that grows without end.

Every statement that a test makes the service run is explained once, so a new one is checked without being named here.
Without statistics SQLite plans alike for three rows and for a million.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, event

import service.tables  # noqa: F401 - all of them
from service.database import Base

ROOT = Path(__file__).parents[2]
OURS = tuple(str(ROOT / folder) + "/" for folder in ("service", "worker"))
NOT_OURS = (str(ROOT / "tests") + "/", str(ROOT / "migrations") + "/")
FEW_ROWS = frozenset(
    {"projects", "users", "api_keys", "workers", "housekeeping", "webhooks", "mirrors", "audit_pending"}
)
"""Tables that an operator or a project's admins fill by hand, or that have a row for each person or worker;
and a queue that is emptied every second."""
GROWING = frozenset(Base.metadata.tables) - FEW_ROWS
OF_DUE_WORK = frozenset(
    {
        *(
            "jobs_to_compact",
            "jobs_by_lease",
            "datasets_by_lease",
            "datasets_unmeasured",
            "inference_requests_by_lease",
        ),
        *("artifacts_without_hash", "models_without_digests"),
    }
)
"""Indexes of the few rows with which something is to be done: to read one from end to end is what it is for."""
ALLOWED: dict[str, str] = {
    r"^SELECT blobs\.sha256 \nFROM blobs \nWHERE NOT \(EXISTS": "once in ten minutes: every blob is looked up in an index",
    r"^SELECT sum\(jobs\.next_seq - \?\) AS sum_1 \nFROM jobs \nWHERE jobs\.finished_at": "once a minute: of an index alone",
}
"""Statements that may read a table from end to end, and why."""


class PlanWatcher:
    """Explains each statement of the service when it is first run; `found` has what reads whole tables."""

    def __init__(self) -> None:
        self.found: list[str] = []
        self.seen: set[str] = set()

    def install(self) -> None:
        """Watch every engine of the process from now on."""
        event.listen(Engine, "before_cursor_execute", self._explain)

    def _explain(
        self, connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, executemany: bool
    ) -> None:
        if statement in self.seen or connection.dialect.name != "sqlite":
            return
        if not statement.startswith(("SELECT", "UPDATE", "DELETE", "WITH")) or not is_ours():
            return
        self.seen.add(statement)
        if any(re.search(pattern, statement) for pattern in ALLOWED):
            return
        one = parameters[0] if executemany else parameters
        explained = cursor.connection.execute(f"EXPLAIN QUERY PLAN {statement}", one).fetchall()
        plan = [str(row[-1]) for row in explained]
        if scans := scanned_tables(statement, plan):
            self.found.append(f"reads all of {', '.join(sorted(scans))}:\n{statement}\n" + "\n".join(plan))


def scanned_tables(statement: str, plan: list[str]) -> set[str]:
    """Return the growing tables that SQLite's plan reads from end to end, by a table or by an index."""
    aliases = dict(re.findall(r'"?(\w+)"? AS "?(\w+)"?', statement))
    named = {alias: table for table, alias in aliases.items()}
    found = [re.match(r"SCAN (\w+)(?: USING (?:COVERING )?INDEX (\w+))?", line) for line in plan]
    scans = [str(match.group(1)) for match in found if match and match.group(2) not in OF_DUE_WORK]
    return {named.get(name, name) for name in scans} & GROWING


def is_ours() -> bool:
    """Whether the service or a worker runs the statement, and not a test itself or a migration."""
    frame = sys._getframe(2)
    while frame is not None:
        name = frame.f_code.co_filename
        if name.startswith(OURS) and not name.endswith("/service/database.py"):
            return True
        if name.startswith(NOT_OURS) and name != __file__:
            return False
        frame = frame.f_back  # type: ignore[assignment]
    return False

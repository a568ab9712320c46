"""How much work the database has with what a function asks of it: counted, not timed, so any machine finds the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Engine, event

STEPS = 50


class StatementWork:
    """Counts steps of SQLite's virtual machine; on PostgreSQL the rows that the plans' nodes have met."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._steps = 0
        self._statements: list[tuple[str, Any]] | None = None
        if engine.dialect.name == "sqlite":
            event.listen(engine, "connect", self._watch_steps)
            engine.dispose()  # connections of before are not watched
        else:
            event.listen(engine, "before_cursor_execute", self._keep)

    def of(self, function: Callable[[], object]) -> int:
        """Call `function` and return the work of its statements."""
        if self._engine.dialect.name == "sqlite":
            before = self._steps
            function()
            return (self._steps - before) * STEPS
        with self._kept() as statements:
            function()
        return sum(self._rows(*statement) for statement in statements)

    def _watch_steps(self, connection: Any, record: Any) -> None:
        def count() -> None:
            self._steps += 1

        connection.set_progress_handler(count, STEPS)

    def _keep(self, connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool) -> None:
        if self._statements is not None and statement.startswith(("SELECT", "UPDATE", "DELETE", "WITH")):
            self._statements.append((statement, parameters[0] if many else parameters))

    @contextmanager
    def _kept(self) -> Iterator[list[tuple[str, Any]]]:
        kept: list[tuple[str, Any]] = []
        self._statements = kept
        yield kept
        self._statements = None

    def _rows(self, statement: str, parameters: Any) -> int:
        with self._engine.connect() as connection:
            # small tables are read from end to end where an index would do as well: here it is to be seen that one does
            connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
            explained = connection.exec_driver_sql(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", parameters)
            plan = explained.scalar_one()[0]["Plan"]
            connection.rollback()
        return met(plan)


def met(node: dict[str, Any]) -> int:
    """Return how many rows a node of a plan and those below it have met, those thrown away included."""
    loops = node.get("Actual Loops", 1)
    thrown_away = sum(value for name, value in node.items() if name.startswith("Rows Removed by"))
    return int(loops * (node["Actual Rows"] + thrown_away)) + sum(met(child) for child in node.get("Plans", ()))

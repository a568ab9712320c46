"""SQL of lists: filters, order and the place to begin at."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Select, func, literal, select, tuple_
from sqlalchemy.orm import Session

from service.database import json_number
from service.listing.filters import Condition
from service.listing.query import ListQuery, Position, RowPage

LAST_CHARACTER = chr(0x10FFFF)


def page(session: Session, query: ListQuery, *where: ColumnElement[bool]) -> RowPage[Any]:
    """Return the page that is asked for, of the list's rows that meet `where` too."""
    statement = select(query.listing.key.class_).where(*where, *expressions(query.conditions))
    rows = sorted_rows(session, query, statement)
    return cut(query, rows)


def cut(query: ListQuery, rows: Sequence[Any]) -> RowPage[Any]:
    """Return the page of up to `limit + 1` rows: the extra one tells that there is more."""
    shown = rows[: query.limit]
    return RowPage(shown, len(rows) > query.limit, position(query, shown[-1]) if shown else None)


def position(query: ListQuery, row: Any) -> Position:
    """Return the place of a row in the list."""
    identifier = getattr(row, query.listing.key.key)
    if query.sort.column is query.listing.key:
        return Position(None, identifier)
    value = getattr(row, query.sort.column.key)
    if query.sort.key is not None:
        value = (value or {}).get(query.sort.key)
        value = value if isinstance(value, int | float) else None
    return Position(value, identifier)


def sorted_rows(session: Session, query: ListQuery, statement: Select[Any]) -> list[Any]:
    """Return the rows from the place to begin at on, in order, one more than the limit.

    Rows without a sort key are read by a statement of their own: so an index gives both parts in their order.
    """
    key, after, most = query.listing.key, query.after, query.limit + 1
    if query.sort.column is key:
        if after is not None:
            statement = statement.where(_beyond(key, after.id, query.descending))
        return list(session.scalars(statement.order_by(_directed(key, query.descending)).limit(most)))
    column: Any = query.sort.column if query.sort.key is None else json_number(query.sort.column, query.sort.key)
    if not query.sort.nullable:
        return keyed_rows(session, query, (statement, column, key))
    without = (statement.where(column.is_(None)), key)
    return keyed_rows(session, query, (statement.where(column.is_not(None)), column, key), without)


def keyed_rows(
    session: Session,
    query: ListQuery,
    with_key: tuple[Select[Any], Any, Any],
    without: tuple[Select[Any], Any] | None = None,
) -> list[Any]:
    """Return the rows from the place to begin at on, one more than the limit.

    Args:
        with_key: the statement of rows with a sort key, the column of it, and that of the id.
        without: the statement of those without, and the column of the id.
    """
    after, most, descending = query.after, query.limit + 1, query.descending
    rows: list[Any] = []
    if after is None or after.value is not None:
        statement, column, key = with_key
        if after is not None:
            place = tuple_(literal(after.value, column.type), literal(after.id, key.type))
            statement = statement.where(_beyond(tuple_(column, key), place, descending))
        rows += session.scalars(
            statement.order_by(_directed(column, descending), _directed(key, descending)).limit(most)
        )
    if without is not None and len(rows) < most:
        statement, key = without
        if after is not None and after.value is None:
            statement = statement.where(_beyond(key, after.id, descending))
        rows += session.scalars(statement.order_by(_directed(key, descending)).limit(most - len(rows)))
    return rows


def _beyond(column: Any, value: Any, descending: bool) -> ColumnElement[bool]:
    found: ColumnElement[bool] = column < value if descending else column > value
    return found


def _directed(column: Any, descending: bool) -> ColumnElement[Any]:
    found: ColumnElement[Any] = column.desc() if descending else column.asc()
    return found


def expressions(conditions: Iterable[Condition]) -> list[ColumnElement[bool]]:
    """Return the conditions as SQL, for columns of the list's own table."""
    return [expression(condition) for condition in conditions]


def expression(condition: Condition) -> ColumnElement[bool]:
    """Return a condition as SQL. No character of a text is special: nothing needs to be escaped."""
    column: Any = condition.column
    value = condition.value
    if condition.key is not None:
        of_text = isinstance(value[0] if isinstance(value, tuple) else value, str)
        column = column[condition.key].as_string() if of_text else json_number(column, condition.key)
    found: ColumnElement[bool]
    match condition.operator:
        case "in":
            found = column == value[0] if len(value) == 1 else column.in_(value)
        case "prefix":
            found = (column >= value) & (column < _following(value))
        case "suffix":
            found = func.substr(column, func.length(column) - len(value) + 1) == value
        case "contains":
            found = func.replace(column, value, "") != column
        case "present":
            found = column.is_not(None) if value else column.is_(None)
        case ">":
            found = column > value
        case ">=":
            found = column >= value
        case "<":
            found = column < value
        case "<=":
            found = column <= value
    return found


def _following(text: str) -> str:
    """Return the first text beyond all that begin with `text`, in the order of code points."""
    text = text.rstrip(LAST_CHARACTER)
    if not text:
        return LAST_CHARACTER * 2
    last = ord(text[-1]) + 1
    return text[:-1] + chr(0xE000 if 0xD800 <= last < 0xE000 else last)

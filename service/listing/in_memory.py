"""Pages of short lists whose rows are all at hand: the same order, filters and cursors as `repository.py` gives by SQL."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from service.listing.filters import Condition
from service.listing.query import ListQuery, Position, RowPage

RowT = TypeVar("RowT")


def page_of(
    query: ListQuery,
    rows: Iterable[RowT],
    identify: Callable[[RowT], str],
    value_of: Callable[[RowT, str], Any] = getattr,
) -> RowPage[RowT]:
    """Return the page that is asked for.

    Args:
        identify: a row's id as cursors have it.
        value_of: the value of a column of that name; left out, the attribute.
    """
    sort = query.sort

    def place(row: RowT) -> Position:
        return Position(value_of(row, sort.column.key), identify(row))

    def order(position: Position) -> tuple[Any, ...]:
        return (position.id,) if position.value is None else (position.value, position.id)

    found = [row for row in rows if all(_meets(value_of(row, one.column.key), one) for one in query.conditions)]
    with_key = sorted((row for row in found if place(row).value is not None), key=lambda row: order(place(row)))
    without = sorted((row for row in found if place(row).value is None), key=identify)
    if query.descending:
        with_key.reverse()
        without.reverse()
    if (after := query.after) is not None:

        def is_beyond(row: RowT) -> bool:
            position = place(row)
            if (position.value is None) != (after.value is None):
                return position.value is None
            one, other = order(position), order(after)
            return one < other if query.descending else one > other

        with_key, without = (list(filter(is_beyond, part)) for part in (with_key, without))
    rest = with_key + without
    shown = rest[: query.limit]
    return RowPage(shown, len(rest) > query.limit, place(shown[-1]) if shown else None)


def _meets(value: Any, condition: Condition) -> bool:
    if condition.key is not None:
        value = (value or {}).get(condition.key)
    if condition.operator == "present":
        return (value is not None) is bool(condition.value)
    if value is None:
        return False
    expected = condition.value
    match condition.operator:
        case "in":
            return value in expected
        case "prefix":
            return bool(value.startswith(expected))
        case "suffix":
            return bool(value.endswith(expected))
        case "contains":
            return expected in value
        case ">":
            return bool(value > expected)
        case ">=":
            return bool(value >= expected)
        case "<":
            return bool(value < expected)
        case "<=":
            return bool(value <= expected)

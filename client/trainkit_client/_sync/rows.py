# Generated from `_async` by client/make_sync.py: change that file, and run it.
"""Rows that are read as they are needed: lists by pages, logs by their cursor; as objects or as a data frame."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from trainkit_client import frames
from trainkit_client.types import Response

if TYPE_CHECKING:
    import pandas
    import polars
    import pyarrow

RowT = TypeVar("RowT", bound=Response)


class Rows(Generic[RowT]):
    """Rows of the service. Nothing is read before they are iterated; each iteration reads them anew."""

    def __init__(self, row_type: type[RowT], read: Callable[[], Iterator[RowT]]) -> None:
        self._row_type = row_type
        self._read = read

    def __iter__(self) -> Iterator[RowT]:
        return self._read()

    def all(self) -> list[RowT]:
        """Return all rows. Of a log that is followed this waits until the job has ended."""
        return list(self)

    def first(self) -> RowT | None:
        """Return the first row; None where there is none."""
        for row in self:
            return row
        return None

    def to_dicts(self) -> list[dict[str, Any]]:
        """Return all rows as the service's JSON."""
        return [row.to_dict() for row in self]

    def to_pandas(self) -> pandas.DataFrame:
        """Return all rows as a pandas DataFrame: nested fields become columns such as `progress.percent`."""
        return frames.to_pandas(self._row_type, self.all())

    def to_polars(self) -> polars.DataFrame:
        """Return all rows as a polars DataFrame, with the columns of `to_pandas`."""
        return frames.to_polars(self._row_type, self.all())

    def to_arrow(self) -> pyarrow.Table:
        """Return all rows as an Arrow table, with the columns of `to_pandas`."""
        return frames.to_arrow(self._row_type, self.all())

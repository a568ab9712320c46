"""`TableFormat`: all that was decided when a table was read. It is stored with the dataset and with the model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from trainkit.data.table.column_format import ColumnFormat
from trainkit.data.table.dialect import Dialect

if TYPE_CHECKING:
    from trainkit.data.dataset import Column


class TableFormat(BaseModel):
    """The dialect of a table's file, and the format of each of its columns, in the file's order."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    dialect: Dialect
    columns: tuple[ColumnFormat, ...]

    @classmethod
    def of_columns(cls, columns: Mapping[str, Column]) -> TableFormat:
        """The format of columns that were made in memory and never read from a file."""
        formats = []
        for name, column in columns.items():
            is_number = column.categories is None
            formats.append(
                ColumnFormat(
                    name=name, type="date" if column.is_date else "number" if is_number else "category", typed=True
                )
            )
        return cls(dialect=Dialect(file="json"), columns=tuple(formats))

    def column(self, name: str) -> ColumnFormat | None:
        """Return the format of a column, None for an unknown one."""
        return next((column for column in self.columns if column.name == name), None)

    def __getitem__(self, name: str) -> ColumnFormat:
        """The format of a column. Raises KeyError for an unknown one."""
        found = self.column(name)
        if found is None:
            raise KeyError(name)
        return found

    @property
    def names(self) -> list[str]:
        """The names of all columns."""
        return [column.name for column in self.columns]


class SequenceTable(BaseModel):
    """How a table in long form became sequences: one row for each step, and a column that names the sequence."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    format: TableFormat
    id_column: str
    features: tuple[str, ...]

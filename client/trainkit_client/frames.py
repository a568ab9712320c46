"""Rows as data frames. pandas, polars and pyarrow are extras of the package, imported when they are used."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from importlib import import_module
from typing import TYPE_CHECKING, Any

from trainkit_client.errors import MissingExtra
from trainkit_client.types import Response

if TYPE_CHECKING:
    import pandas
    import polars
    import pyarrow

NONFINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


def to_pandas(row_type: type[Response], rows: Sequence[Response]) -> pandas.DataFrame:
    """Return rows as a pandas DataFrame. Raises MissingExtra."""
    library = _library("pandas", "pandas")
    frame: pandas.DataFrame = library.DataFrame(columns_of(row_type, rows))
    return frame


def to_polars(row_type: type[Response], rows: Sequence[Response]) -> polars.DataFrame:
    """Return rows as a polars DataFrame. Raises MissingExtra."""
    library = _library("polars", "polars")
    frame: polars.DataFrame = library.DataFrame(columns_of(row_type, rows), strict=False)
    return frame


def to_arrow(row_type: type[Response], rows: Sequence[Response]) -> pyarrow.Table:
    """Return rows as an Arrow table. Raises MissingExtra."""
    library = _library("pyarrow", "arrow")
    return library.table(columns_of(row_type, rows))


def columns_of(row_type: type[Response], rows: Sequence[Response]) -> dict[str, list[Any]]:
    """Return rows as columns: those of the type first, in its order, then what only some rows have.

    A nested object becomes a column for each of its fields, with dots in its name. A metric that is not finite is the
    number that it was, and not a missing value.
    """
    flat = [flattened(row) for row in rows]
    names = [field.alias or name for name, field in row_type.model_fields.items()]
    # the columns of nested objects stand where the object stands
    present = dict.fromkeys(key for row in flat for key in row)
    ordered: dict[str, None] = {}
    for name in names:
        inside = [key for key in present if key == name or key.startswith(f"{name}.")]
        ordered |= dict.fromkeys(key for key in inside if key != name or len(inside) == 1)
        if not rows:
            ordered[name] = None
    ordered |= dict.fromkeys(key for key in present if not any(other.startswith(f"{key}.") for other in present))
    ordered.pop("nonfinite", None)
    return {name: [row.get(name) for row in flat] for name in ordered}


def flattened(row: Response) -> dict[str, Any]:
    """Return a row as one level of names and values."""
    document = row.model_dump(by_alias=True, exclude_unset=True)
    if (word := document.get("nonfinite")) is not None:
        document["value"] = NONFINITE.get(word, math.nan)
    flat: dict[str, Any] = {}
    _flatten(document, "", flat)
    return flat


def _flatten(document: Mapping[str, Any], prefix: str, flat: dict[str, Any]) -> None:
    for name, value in document.items():
        if isinstance(value, Mapping):
            if value:
                _flatten(value, f"{prefix}{name}.", flat)
            continue
        flat[f"{prefix}{name}"] = value if isinstance(value, datetime) or not isinstance(value, tuple) else list(value)


def _library(module: str, extra: str) -> Any:
    try:
        return import_module(module)
    except ImportError:
        raise MissingExtra(module, extra, "A data frame") from None

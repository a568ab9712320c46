"""`ColumnFormat`: how the cells of one column are read. Decided once at intake, then used for every cell."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import cached_property, lru_cache
from typing import Any

from pydantic import BaseModel, ConfigDict

from trainkit.data.text import storable
from trainkit.spec.read_options import ColumnType, DecimalSeparator, ThousandsSeparator

NUMBER_MISSING = (
    *(
        "",
        "NA",
        "N/A",
        "n/a",
        "na",
        "Na",
        "#N/A",
        "#N/A N/A",
        "#NA",
        "<NA>",
        "n.a.",
        "N.A.",
        "NaN",
        "nan",
        "NAN",
        "-nan",
    ),
    *(
        "-NaN",
        "NaT",
        "null",
        "NULL",
        "Null",
        "(null)",
        "None",
        "none",
        "NONE",
        "nil",
        "NIL",
        "Nil",
        "missing",
        "Missing",
    ),
    *("?", "-", "--", "---", ".", "..", "\\N", "\u2013", "\u2014"),
    *("#DIV/0!", "#VALUE!", "#REF!", "#NAME?", "#NUM!", "#NULL!"),
)
"""What a column of numbers or dates in a text file reads as missing: no number or date is written like that."""
TEXT_MISSING = ("", "NA", "N/A", "n/a", "#N/A", "#N/A N/A", "#NA", "<NA>", "NaN", "nan", "null", "NULL", "?", "\\N")
"""What a column of text in a text file reads as missing. Words such as None, none and Na are values there."""
WHITESPACE_SEPARATORS = " \u00a0\u2009\u202f"
APOSTROPHES = "'\u2019"
SIGNS = "-+\u2212"
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
ISO_DATE = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}([T ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,9})?)?(Z| ?UTC|[+-][0-9]{2}(:?[0-9]{2})?)?)?"
)
UNIX_UNITS = {"unix_seconds": 1.0, "unix_milliseconds": 1000.0}
"""Date formats that are numbers, and how many of them make a second."""
FIRST_SECOND, LAST_SECOND = -62135596800.0, 253402300799.0
"""The years 1 and 9999, which Python's dates end at."""
TYPE_NOUN = {"number": "a number", "date": "a date"}


class CellError(ValueError):
    """A cell that is not of its column's type. The message does not name the place: whoever has the row adds it."""


class ColumnFormat(BaseModel):
    """How the cells of one column are read."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    type: ColumnType
    missing: tuple[str, ...] = ()
    """Words that mean that there is no value, as they are written. Empty for typed columns."""
    decimal: DecimalSeparator = "."
    thousands: ThousandsSeparator = ""
    date_format: str | None = None
    """As in Python's strptime, or a name of UNIX_UNITS; None: ISO 8601."""
    unit: str = ""
    """What stands before or after each number and is no part of it, such as $ or %; numbers without it are read, too."""
    true: str = "true"
    """How a column of booleans spells true, and so the name of that category."""
    false: str = "false"
    typed: bool = False
    """The file gave types (Parquet, JSON): its strings are never missing, and keep their blanks."""
    optional: bool = False
    """Rows of the file left this field out (JSON): a row to predict may leave it out as well."""

    def read(self, value: Any) -> float | str | None:
        """Return the number, the seconds since 1970 of a date (UTC), the category, or None for a missing value.

        Raises CellError for a value that the column cannot hold.
        """
        if value is None:
            return None
        if isinstance(value, list | dict):
            raise CellError(f"must be one value, got {shown(value)}")
        if isinstance(value, str):
            if self.read_missing(value):
                return None
            value = value if self.typed else value.strip()
        if self.type == "number":
            return self._number(value)
        if self.type == "date":
            return self._date(value)
        if self.type == "boolean":
            return self._boolean(value)
        return category_of(value)

    def read_all(self, values: Sequence[Any]) -> list[float | str | None]:
        """Return what `read` gives for each of the values. Raises CellError."""
        if self.type != "number" or self.typed or self.decimal != "." or self.thousands or self.unit:
            return [self.read(value) for value in values]
        fits = number_pattern(".", "").fullmatch  # most cells of most files, without the way through three functions
        if any(map(fits, self.missing)):
            return [self.read(value) for value in values]
        return [
            float(value) if type(value) is str and value.isascii() and fits(value) else self.read(value)
            for value in values
        ]

    def read_missing(self, text: str) -> bool:
        """Return whether a text is one of the missing words."""
        return (text if self.typed else text.strip()) in self.missing_words

    @cached_property
    def missing_words(self) -> frozenset[str]:
        """`missing`, to look words up."""
        return frozenset(self.missing)

    def _number(self, value: Any) -> float:
        if isinstance(value, str):
            number = parse_number(without_unit(value, self.unit), self.decimal, self.thousands)
            if number is None:
                raise CellError(f"must be {self.expected}, got {shown(value)}")
            return number
        if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
            raise CellError(f"must be {self.expected}, got {shown(value)}")
        try:
            return float(value)
        except OverflowError:
            return math.inf if value > 0 else -math.inf

    def _date(self, value: Any) -> float:
        if self.date_format in UNIX_UNITS and not isinstance(value, bool):
            seconds = parse_unix(value, self.date_format)
        else:
            seconds = parse_date(value, self.date_format) if isinstance(value, str | date) else None
        if seconds is None and isinstance(value, str | date):  # what every file's dates can be sent as
            seconds = parse_date(value)
        if seconds is None:
            raise CellError(f"must be {self.expected}, got {shown(value)}")
        return seconds

    def _boolean(self, value: Any) -> str:
        text = category_of(value)
        return {"true": self.true, "false": self.false}.get(text.casefold(), text)

    @property
    def expected(self) -> str:
        """What a cell must be, with an example."""
        if self.type == "number":
            whole = f"1{self.thousands}234" if self.thousands else "1234"
            if self.decimal == "." and not self.thousands:
                return f"a number, with or without {self.unit}" if self.unit else "a number"
            return f"a number such as {whole}{self.decimal}5" + (f", with or without {self.unit}" if self.unit else "")
        if self.type == "date" and self.date_format in UNIX_UNITS:
            return f"{self.date_format.replace('unix_', '')} since 1970, or a date such as 2024-01-31"
        if self.type == "date":
            example = datetime(2024, 1, 31, 12, 30)
            return f"a date such as {example.strftime(self.date_format) if self.date_format else '2024-01-31'}"
        return self.type


def shown(value: Any) -> str:
    """Return a value as a sentence shows it: as JSON writes it, and not too long."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | dict):
        return f"a {'list' if isinstance(value, list) else 'JSON object'}"
    if isinstance(value, str):
        return f'"{value[:60]}{"..." if len(value) > 60 else ""}"'
    text = str(value)
    return f"{text[:40]}..." if len(text) > 60 else text


def category_of(value: Any) -> str:
    """Return the category of a value: text as it is, true and false, whole numbers without a fraction, dates as ISO 8601."""
    if isinstance(value, str):
        return storable(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return str(int(value))
    if isinstance(value, date):
        return value.isoformat()
    return str(value)


@lru_cache(maxsize=64)
def number_pattern(decimal: str, thousands: str) -> re.Pattern[str]:
    """Return the pattern of whole cells that are numbers with these separators; grouping is by three digits."""
    point = re.escape(decimal)
    plain = rf"(?:[0-9]+(?:{point}[0-9]*)?|{point}[0-9]+)(?:[eE][+-]?[0-9]+)?"
    grouped = ""
    if thousands:
        group = f"[{re.escape(written_as(thousands))}]"
        grouped = rf"[1-9][0-9]{{0,2}}(?:{group}[0-9]{{3}})+(?:{point}[0-9]*)?|"
    return re.compile(rf"[{SIGNS}]?(?:{grouped}{plain}|inf(?:inity)?)", re.IGNORECASE)


def written_as(thousands: str) -> str:
    """Return the characters that are written for this separator."""
    return {" ": WHITESPACE_SEPARATORS, "'": APOSTROPHES}.get(thousands, thousands)


def parse_number(text: str, decimal: str = ".", thousands: str = "") -> float | None:
    """Return the number that a cell holds, None when it is none."""
    if not number_pattern(decimal, thousands).fullmatch(text):
        return None
    if thousands:
        for character in written_as(thousands):
            text = text.replace(character, "")
    return float((text.replace(decimal, ".") if decimal != "." else text).replace("\u2212", "-"))


def without_unit(text: str, unit: str) -> str:
    """Return a number without the unit before or after it: `-$ 5` and `$-5` are -5, `12 %` is 12; else the text itself."""
    if not unit:
        return text
    sign, rest = (text[0], text[1:].lstrip()) if text[:1] and text[0] in SIGNS else ("", text)
    if rest.startswith(unit):
        bare = rest[len(unit) :].lstrip()
    elif rest.endswith(unit):
        bare = rest[: -len(unit)].rstrip()
    else:
        return text
    return text if sign and bare[:1] in SIGNS else sign + bare


def parse_unix(value: Any, date_format: str) -> float | None:
    """Return the seconds since 1970 of a number, or of a text that is one; None outside the years 1 to 9999."""
    if isinstance(value, str):
        value = parse_number(value)
    if not isinstance(value, int | float | Decimal) or not math.isfinite(value):
        return None
    seconds = float(value) / UNIX_UNITS[date_format]
    return round(seconds, 6) if FIRST_SECOND <= seconds <= LAST_SECOND else None


def parse_date(value: str | date, date_format: str | None = None) -> float | None:
    """Return the seconds since 1970 (UTC; without a zone it is taken as UTC), None for what is no such date."""
    if isinstance(value, str):
        try:
            if date_format is not None:
                value = datetime.strptime(value, date_format)
            elif ISO_DATE.fullmatch(value):
                value = datetime.fromisoformat(value.replace(" UTC", "Z").replace("UTC", "Z"))
            else:
                return None
        except ValueError:
            return None
    if not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day)
    if value.tzinfo is None:
        value = value.replace(tzinfo=UTC)
    return (value - EPOCH) // timedelta(microseconds=1) / 1e6


def iso_date(seconds: float) -> str:
    """Return seconds since 1970 as an ISO 8601 date, with the time where there is one."""
    moment = EPOCH + timedelta(seconds=seconds)
    midnight = moment.hour == moment.minute == moment.second == moment.microsecond == 0
    return moment.strftime("%Y-%m-%d") if midnight else moment.replace(tzinfo=None).isoformat(" ")

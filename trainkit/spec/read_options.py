"""How an upload is to be read, where its bytes leave a choice. What is left out is found out and said in the report."""

from __future__ import annotations

import codecs
import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field

from trainkit.spec.strict_types import StrictTypes

NOT_OF_FILES = ("idna", "punycode", "unicode-escape", "raw-unicode-escape")
"""Codecs of host names and of Python's source. Some take the square of the length to decode, others make text of `\\ud800`
that no character is.
"""


def text_encoding(name: str) -> str:
    """Return the name of an encoding that files of text are written in. Raises ValueError for another."""
    try:
        if codecs.lookup(name).name in NOT_OF_FILES:
            raise LookupError
        "x".encode(name)
    except (LookupError, TypeError, ValueError, UnicodeError):
        raise ValueError(f"{name!r} is no text encoding; usual ones are utf-8, cp1252, latin-1, utf-16") from None
    return name


Delimiter = Annotated[
    str,
    Field(
        pattern=r'^([^\r\n\x00"]|tab|blanks)$',
        description="Tables: one character, or `tab`; `blanks`: any number of blanks and tabs, as in aligned columns.",
    ),
]
SkipRows = Annotated[
    int,
    Field(
        ge=0,
        le=1000,
        description="Delimited text and Excel: lines, or rows of the sheet, above the table that are not read: titles.",
    ),
]
Encoding = Annotated[
    str,
    Field(pattern=r"^[A-Za-z0-9_.:-]{1,40}$", description="Tables: such as utf-8, cp1252, utf-16."),
    AfterValidator(text_encoding),
]
Header = Annotated[bool, Field(description="Tables: whether the first row names the columns.")]
ImageSize = Annotated[
    str,
    Field(
        pattern=r"^[1-9][0-9]{0,3}(x[1-9][0-9]{0,3})?$", description="Images: WIDTHxHEIGHT, or one number for squares."
    ),
]
ColumnType = Literal["number", "category", "boolean", "date"]
DecimalSeparator = Literal[".", ","]
ThousandsSeparator = Literal["", ",", ".", " ", "'"]
Word = Annotated[str, Field(max_length=200, pattern=r"^[^\x00]*$")]


def _parsed(value: Any) -> Any:
    """Parse JSON that came as text (a query parameter, a form field, a header)."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        raise ValueError(f"must be JSON; got {value[:60]!r}") from None


def _words(value: Any) -> Any:
    """Return a JSON list as text, or one word, as a list."""
    if isinstance(value, str):
        return _parsed(value) if value.lstrip().startswith("[") else [value]
    return value


_Words = Annotated[tuple[Word, ...], Field(max_length=1000)]
Missing = Annotated[
    _Words,
    BeforeValidator(_words, json_schema_input_type=Word | _Words),
    Field(
        description='Tables: the words that mean "no value", as they are written, instead of the usual ones: '
        '`["nil", "-"]`. An empty cell of a text file is always one.',
    ),
]
Decimal = Annotated[DecimalSeparator, Field(description="Tables: the decimal separator, `.` or `,`.")]
Thousands = Annotated[
    ThousandsSeparator,
    Field(description="Tables: the thousands separator: `,`, `.`, a blank, an apostrophe, or empty for none."),
]
Sheet = Annotated[
    str,
    Field(
        min_length=1,
        max_length=100,
        description="Excel workbooks: the name of the sheet to read; left out, the first one.",
    ),
]
Quote = Annotated[Literal['"', "'"], Field(description="Tables: the quote around values.")]


class ColumnOptions(StrictTypes):
    """How one column is read, where that is not to be detected."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    type: ColumnType | None = None
    missing: Missing | None = None
    decimal: DecimalSeparator | None = None
    thousands: ThousandsSeparator | None = None
    date_format: str | None = Field(
        None,
        max_length=100,
        description="As in Python's strptime: `%d.%m.%Y`; or `unix_seconds`, `unix_milliseconds` since 1970.",
    )
    unit: str | None = Field(
        None,
        min_length=1,
        max_length=20,
        pattern=r"^[^\s\x00](.*[^\s\x00])?$",
        description="A sign or word beside the numbers of a column, which is no part of them: `$`, `%`, `kg`.",
    )


_ColumnsByName = Annotated[Mapping[Word, ColumnOptions], Field(max_length=100_000)]
Columns = Annotated[
    _ColumnsByName,
    BeforeValidator(_parsed, json_schema_input_type=str | _ColumnsByName),
    Field(
        description='Tables: how single columns are read: `{"isig": {"type": "number", "missing": ["nil"]}}`. Fields of '
        "a column: `type` (number, category, boolean, date), `missing`, `decimal`, `thousands`, `date_format`, `unit`.",
    ),
]
Channels = Annotated[
    Literal["first", "last"],
    Field(description="Images in arrays: X is (n, C, H, W), `first`, or (n, H, W, C), `last`."),
]
TargetTask = Annotated[
    Literal["classification", "regression"],
    Field(description="Arrays and sequences: whether y holds classes or numbers."),
]


class ReadOptions(StrictTypes):
    """Overrides of what the readers would find out themselves."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    delimiter: Delimiter | None = None
    quote: Quote | None = None
    encoding: Encoding | None = None
    sheet: Sheet | None = None
    skip_rows: SkipRows | None = None
    header: Header | None = None
    decimal: Decimal | None = None
    thousands: Thousands | None = None
    missing: Missing | None = None
    columns: Columns | None = None
    image_size: ImageSize | None = None
    channels: Channels | None = None
    task: TargetTask | None = None

    @property
    def size(self) -> tuple[int, int] | None:
        """(height, width) that images are brought to; None for the commonest of theirs."""
        if self.image_size is None:
            return None
        width, _, height = self.image_size.partition("x")
        return int(height or width), int(width)

    @property
    def separator(self) -> str | None:
        """The delimiter itself."""
        return "\t" if self.delimiter == "tab" else self.delimiter

    def column(self, name: str) -> ColumnOptions:
        """What was said of a column, completed by what was said of the whole table."""
        options = (self.columns or {}).get(name) or ColumnOptions()
        table = {field: getattr(self, field) for field in ("missing", "decimal", "thousands")}
        return options.model_copy(
            update={field: default for field, default in table.items() if getattr(options, field) is None}
        )


DEFAULT_READ_OPTIONS = ReadOptions()

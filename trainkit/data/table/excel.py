"""Excel workbooks (.xlsx): from a file to typed cells of one sheet."""

from __future__ import annotations

import re
import warnings
import zipfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, BinaryIO

from trainkit.data.archive import UNREADABLE, damaged_archive, files, names
from trainkit.data.errors import DataError, data_error
from trainkit.data.findings import Finding, finding
from trainkit.data.limits import check_cell_count, check_cells
from trainkit.data.reasons import damage_reason
from trainkit.data.table.column_detection import listed
from trainkit.data.table.column_format import category_of, iso_date, parse_date, shown
from trainkit.data.table.delimited import column_names
from trainkit.data.table.dialect import SNIFFED_ROWS
from trainkit.data.text import storable

WORKBOOK = "xl/workbook.xml"
STYLES = ("xl/styles.xml", "xl/workbook.xml", "xl/_rels/workbook.xml.rels", "[Content_Types].xml")
"""Parts that are read whole, each element as an object of Python."""
MOST_STYLES_BYTES = 2 * 2**20
MOST_ROW = 1_048_576
"""The last row that Excel has."""
SCANNED_BYTES = 1 << 20
LONGEST_CELL = 1 << 16
"""Bytes of a cell's XML that may lie across two blocks of a scan."""
MERGED = re.compile(rb"<(?:\w+:)?mergeCell\s[^<>]*?ref=[\"']([A-Z]{1,3}[0-9]+:[A-Z]{1,3}[0-9]+)[\"']")
ROW_NUMBER = re.compile(rb"[0-9]+")
UNCALCULATED = re.compile(
    rb"<(?:\w++:)?+c\s(?P<attributes>[^<>]*+)>\s*+"
    rb"<(?:\w++:)?+f(?:\s[^<>]*+|/)?+(?:(?<=/)>|(?<!/)>[^<]*+</(?:\w++:)?+f>)\s*+"
    rb"(?:<(?:\w++:)?+v\s*+/>|<(?:\w++:)?+v></(?:\w++:)?+v>)?+\s*+</(?:\w++:)?+c>"
)
"""A formula's cell without a stored result. Possessive, for one pass over blanks and attributes of any length."""
TEXT_RESULT = re.compile(rb"(?:^|\s)t=[\"']str[\"']")
"""The result of text may be empty."""
CELL = re.compile(rb"(?:^|\s)r=[\"']([A-Z]{1,3}[0-9]+)[\"']")
HINT = "Open the workbook in a spreadsheet program and save it again as .xlsx, or export the sheet as CSV."
TITLE_HINT = "Set `skip_rows` to the number of rows above the row with the column names, or delete them."


@dataclass(slots=True)
class SheetTable:
    """The table of one sheet: a row of names, if there is one, and typed cells below it."""

    sheet: str
    header: bool
    columns: dict[str, list[Any]]
    """None for an empty cell and for an error; a date is an ISO 8601 text or, if asked for, a date."""
    rows: list[int]
    """The sheet's own number of each row, from 1."""
    findings: list[Finding] = field(default_factory=list)
    """For the report: the sheet, where the table begins, rows left out, cells that hold errors."""


@dataclass(frozen=True, slots=True)
class ExcelError:
    """A cell that holds an error, such as #N/A."""

    word: str


def is_workbook(path: Path) -> bool:
    """Return whether the file is an .xlsx (or .xlsm) workbook."""
    return path.is_file() and zipfile.is_zipfile(path) and WORKBOOK in names(path)


def read_sheet(
    path: Path,
    *,
    sheet: str | None = None,
    header: bool | None = None,
    known: Sequence[str] | None = None,
    dates_as_text: bool = True,
    skip_rows: int = 0,
) -> SheetTable:
    """Read one sheet of a workbook: `sheet`, else the first one.

    `header`: whether the first row names the columns; None: found out. `known`: for a request, the names of the
    columns that the first row may give; and of several sheets none is then chosen silently. `skip_rows`: rows of the
    sheet above the table; of a request they are left out only if they are there. Raises DataError.
    """
    _check_entries(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of parts that hold no cells: charts, validation rules, styles
        try:
            with path.open("rb") as file, zipfile.ZipFile(file) as bundle:
                chosen, others = _open(file, path.name, sheet, alone=known is not None)
                rows, gaps = _rows(chosen)
                if known is not None and skip_rows and not _has_titles(rows, known, header, skip_rows):
                    skip_rows = 0
                rows = [row for row in rows if row[0] > skip_rows]
                gaps = [(first, last) for first, last in gaps if rows and first > rows[0][0]]
                _refuse_uncertain_cells(bundle, chosen, skip_rows)
        except (DataError, MemoryError):
            raise
        except Exception as error:  # openpyxl raises KeyError, ValueError, TypeError, ParseError ... for damaged parts
            raise data_error(
                "damaged_workbook", f"not readable as .xlsx: {damage_reason(error)}", path.name, HINT
            ) from None
    if not rows:
        hint = f"The workbook's other sheets are {_quoted(others)}: name one in `sheet`." if others else ""
        raise data_error("empty", f"the sheet {shown(chosen.title)} holds no values", path.name, hint)
    return _table(chosen.title, others, rows, gaps, header, known, dates_as_text)


def _check_entries(path: Path) -> None:
    """Hold the workbook's entries to the limits of archives: sizes, names, encryption, overlaps."""
    try:
        for file in files(path):
            if file.name in STYLES and file.size > MOST_STYLES_BYTES:
                message = f"{file.name} has {file.size:,} bytes, more than the limit of {MOST_STYLES_BYTES:,}"
                raise data_error(
                    "too_large", message, path.name, "Clear the formats of the cells, or export the sheet as CSV."
                )
    except UNREADABLE as error:
        if isinstance(error, DataError):
            raise
        raise damaged_archive(path, error) from None


def _open(file: BinaryIO, where: str, name: str | None, *, alone: bool) -> tuple[Any, list[str]]:
    """Return (the sheet to read, the names of the other sheets)."""
    import openpyxl

    book = openpyxl.load_workbook(file, read_only=True, data_only=True, keep_links=False)
    sheets = {sheet.title: sheet for sheet in book.worksheets}
    visible = [title for title, sheet in sheets.items() if sheet.sheet_state == "visible"] or list(sheets)
    if not sheets:
        raise data_error("no_sheet", "the workbook holds no sheet of cells", where, HINT)
    if name is not None and name not in sheets and not (alone and len(visible) == 1):
        hint = f"Its sheets: {_quoted(list(sheets))}."
        raise data_error("missing_sheet", f"there is no sheet {shown(name)}", "sheet", hint)
    if alone and name is None and len(visible) > 1:
        hint = "Send a workbook with one sheet."
        raise data_error("many_sheets", f"the workbook holds the sheets {_quoted(visible)}", where, hint)
    chosen = name if name is not None and name in sheets else visible[0]
    return sheets[chosen], [title for title in sheets if title != chosen]


def _quoted(titles: Sequence[str]) -> str:
    more = f" and {len(titles) - 20} others" if len(titles) > 20 else ""
    return ", ".join(shown(title) for title in titles[:20]) + more


def _has_titles(rows: list[tuple[int, list[Any]]], known: Sequence[str], header: bool | None, skip_rows: int) -> bool:
    """Whether the rows of a request that the training sheet had above its table are there as well."""
    below = [cells for number, cells in rows if number > skip_rows]
    if not below or len(below) == len(rows):
        return len(below) < len(rows)
    first, names = rows[0][1], set(known)
    if header:
        named, named_below = (
            len(names & {category_of(value) for value in cells if value is not None}) for cells in (first, below[0])
        )
        return named_below > named
    return len(first) != len(below[0])


def _refuse_uncertain_cells(bundle: zipfile.ZipFile, sheet: Any, skip_rows: int) -> None:
    """Raise DataError for merged cells, of which only the first has a value, and formulas whose result is not stored.

    Read-only sheets of openpyxl do not tell either, and would give empty cells.
    """
    before = b""
    with bundle.open(sheet._worksheet_path) as file:
        while block := file.read(SCANNED_BYTES):
            text = before + block
            for merged in MERGED.finditer(text):
                if max(int(number) for number in ROW_NUMBER.findall(merged[1])) <= skip_rows:
                    continue
                cells = merged[1].decode()
                message = f"the cells {cells} are merged, so that all but the first are empty"
                hint = "Unmerge them and fill each cell; rows of titles above the table are left out by `skip_rows`."
                raise data_error("merged_cells", message, f"sheet {shown(sheet.title)}, {cells}", hint)
            for formula in UNCALCULATED.finditer(text):
                place = CELL.search(formula["attributes"])
                if place is None or TEXT_RESULT.search(formula["attributes"]):
                    continue
                if int(ROW_NUMBER.findall(place[1])[0]) <= skip_rows:
                    continue
                cell = place[1].decode()
                hint = "Open the workbook in a spreadsheet program and save it, so that results are stored."
                where = f"sheet {shown(sheet.title)}, cell {cell}"
                raise data_error("no_result", "the cell holds a formula without its result", where, hint)
            before = text[-LONGEST_CELL:]


def _rows(sheet: Any) -> tuple[list[tuple[int, list[Any]]], list[tuple[int, int]]]:
    """Return (number and cells of each row that is not empty, first and last row of each gap between them)."""
    sheet.reset_dimensions()  # what the file says of its size is often wrong
    rows: list[tuple[int, list[Any]]] = []
    gaps: list[tuple[int, int]] = []
    held = 0
    for number, cells in enumerate(sheet.iter_rows(), 1):
        if number > MOST_ROW:
            message = f"the sheet {shown(sheet.title)} has a row beyond {MOST_ROW:,}, the last one of Excel"
            raise data_error("damaged_workbook", message, f"row {number}", HINT)
        values = [ExcelError(str(cell.value)) if cell.data_type == "e" else _value(cell.value) for cell in cells]
        while values and values[-1] is None:
            values.pop()
        if not values:
            continue
        held += len(values)
        check_cell_count(held, f"sheet {shown(sheet.title)}, row {number}", f"{held:,} cells up to this row")
        if rows and number > rows[-1][0] + 1:
            gaps.append((rows[-1][0] + 1, number - 1))
        rows.append((number, values))
    return rows, gaps


def _value(value: Any) -> Any:
    """Return numbers, text, booleans and dates; times of day and durations as text, empty text as an empty cell."""
    if isinstance(value, str):
        return value or None
    if value is None or isinstance(value, bool | int | float | date):
        return value
    return str(value)


def _table(
    sheet: str,
    others: list[str],
    rows: list[tuple[int, list[Any]]],
    gaps: list[tuple[int, int]],
    header: bool | None,
    known: Sequence[str] | None,
    dates_as_text: bool,
) -> SheetTable:
    left = min(next(index for index, value in enumerate(cells) if value is not None) for _, cells in rows)
    rows = [(number, cells[left:]) for number, cells in rows]
    first_row, first = rows[0]
    place = f"sheet {shown(sheet)}, row {first_row}"
    if header is None:
        header = _is_header([cells for _, cells in rows[:SNIFFED_ROWS]])
    if known is not None and not header:
        header = set(known) <= {category_of(value) for value in first if value is not None}
    width = len(first) if header else max(len(cells) for _, cells in rows)
    widest = max((len(cells) for _, cells in rows[1:SNIFFED_ROWS]), default=0)
    if (
        header
        and widest > 1
        and (sum(value is not None for value in first) * 2 < widest or (width == 1 and widest > 1))
    ):
        message = (
            f"the row holds only {shown(first[0] if first[0] is not None else first[-1])}, so it is no row of names"
        )
        raise data_error("title_rows", message, place, TITLE_HINT)
    check_cells(len(rows), width, place)
    body = rows[1:] if header else rows
    if not body:
        raise data_error("no_rows", "the sheet has a row of names but no rows below it", place)
    for number, cells in body:
        if len(cells) > width:
            cell = f"{_letters(left + len(cells))}{number}"
            message = f"the cell {cell} lies outside the table, whose names end in column {_letters(left + width)}"
            hint = f"Name its column in row {first_row}, or clear the cell."
            raise data_error("outside_table", message, f"sheet {shown(sheet)}, cell {cell}", hint)
    if header and (bad := next((value for value in first if isinstance(value, ExcelError)), None)):
        raise data_error("bad_name", f"a column's name is the error {bad.word}", place, "Name the column.")
    named = [_name(value) for value in first] if header else [""] * width
    try:
        columns = column_names(named, header=header)
    except DataError as error:
        one = error.problems[0]
        raise data_error(one.code, one.message, place, one.hint) from None
    errors: Counter[str] = Counter()
    table: dict[str, list[Any]] = {}
    for index, name in enumerate(columns):
        cells = [row[index] if index < len(row) else None for _, row in body]
        if header and not named[index] and all(value is None for value in cells):
            continue  # a column that only separates others
        errors.update(value.word for value in cells if isinstance(value, ExcelError))
        table[name] = [_plain(value, dates_as_text) for value in cells]
    found = SheetTable(sheet, header, table, [number for number, _ in body])
    found.findings = _findings(found, others, (first_row, left), gaps, errors)
    return found


def _name(value: Any) -> str:
    return "" if value is None else storable(category_of(_plain(value, True)).strip())


def _plain(value: Any, dates_as_text: bool) -> Any:
    if isinstance(value, ExcelError):
        return None
    if isinstance(value, date) and dates_as_text:
        seconds = parse_date(value)
        return value.isoformat() if seconds is None else iso_date(seconds)
    return value


def _is_header(rows: list[list[Any]]) -> bool:
    """Return whether the first row names the columns: it is all text, or a text stands above numbers and dates only."""
    first, below = rows[0], rows[1:]
    if all(value is None or isinstance(value, str) for value in first):
        return True
    for index, cell in enumerate(first):
        present = [row[index] for row in below if index < len(row) and row[index] is not None]
        if isinstance(cell, str) and present and not any(isinstance(value, str) for value in present):
            return True
    return False


def _findings(
    table: SheetTable, others: list[str], start: tuple[int, int], gaps: list[tuple[int, int]], errors: Counter[str]
) -> list[Finding]:
    where = f"sheet {shown(table.sheet)}"
    message = f"the sheet {shown(table.sheet)} was read"
    if others:
        message += f"; the workbook's other sheets are {_quoted(others)}: set `sheet` if one of them is meant"
    found = [finding("info", "sheet", message, where)]
    row, left = start
    if (row, left) != (1, 0):
        found.append(finding("info", "table_start", f"the table begins in cell {_letters(left + 1)}{row}", where))
    if gaps:
        count = sum(last - first + 1 for first, last in gaps)
        numbers = ", ".join(str(one) if one == last else f"{one} to {last}" for one, last in gaps[:5])
        numbers += " ..." if len(gaps) > 5 else ""
        message = f"{count:,} empty row{'s' if count > 1 else ''} between others left out ({numbers}); "
        message += "what is below them is read as rows of the table"
        found.append(finding("warning", "empty_rows", message, where))
    if errors:
        found.append(finding("warning", "error_cells", f"error cells were read as missing: {listed(errors)}", where))
    return found


def _letters(number: int) -> str:
    """Return the letters of a column, counted from 1."""
    letters = ""
    while number:
        number, place = divmod(number - 1, 26)
        letters = chr(65 + place) + letters
    return letters

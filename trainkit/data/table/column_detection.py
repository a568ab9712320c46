"""What a column is, from its cells: a number, a date, a boolean or a category; missing words, separators, date format."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from unicodedata import category

from trainkit.data.errors import DataError, data_error
from trainkit.data.table.column_format import (
    NUMBER_MISSING,
    SIGNS,
    TEXT_MISSING,
    CellError,
    ColumnFormat,
    number_pattern,
    parse_date,
    parse_number,
    shown,
    without_unit,
    written_as,
)
from trainkit.spec.read_options import ColumnOptions, ColumnType, DecimalSeparator, ThousandsSeparator

CODE = re.compile(r"0[0-9]+")
INTEGER = re.compile(r"[+-]?[0-9]+")
ONE_SEPARATOR = re.compile(r"[+-]?(?P<whole>[0-9]*)(?P<separator>[.,])(?P<fraction>[0-9]*)")
NUMBER_WORDS = frozenset(NUMBER_MISSING)
MOST_EXAMPLES = 5
MOST_EVIDENCE = 2000
"""Different cells of a column that are looked at where not all must be."""
MOSTLY = 0.5
"""A column of text with at least this share of numbers (or dates) is reported as one that some words keep from it."""
DAYS = ("%d.%m.%Y", "%d.%m.%y", "%m/%d/%Y", "%d/%m/%Y", "%m/%d/%y", "%d/%m/%y", "%Y/%m/%d", "%d-%m-%Y", "%m-%d-%Y")
MONTH_NAMES = ("%d-%b-%Y", "%d-%b-%y", "%d %b %Y", "%b %d %Y", "%b %d, %Y", "%B %d %Y", "%d %B %Y", "%B %d, %Y")
TIMES = ("", " %H:%M", " %H:%M:%S", " %I:%M %p", " %I:%M:%S %p")
DATE_FORMATS = (None, *(day + time for day in (*DAYS, *MONTH_NAMES) for time in TIMES))
"""None is ISO 8601."""

Counts = Mapping[str, int]
"""Each different cell of a column of text and how often it is there, in order of appearance."""
Cells = Collection[tuple[Any, int]]
"""The same of values of any type, of which `true` and `1` are equal as keys; of text it is the items of its Counts."""


def dict_of(cells: Cells) -> Counts:
    """Return the counts that a text column's cells are the items of."""
    counts: Counts = cells.mapping  # type: ignore[attr-defined]
    return counts


class Separators(NamedTuple):
    """How numbers are written."""

    decimal: DecimalSeparator = "."
    thousands: ThousandsSeparator = ""

    @property
    def fits(self) -> Callable[[str], object]:
        """Whether a whole cell is a number in this writing."""
        return number_pattern(self.decimal, self.thousands).fullmatch


ALL_SEPARATORS = (
    *(Separators("."), Separators(",")),
    *(Separators(".", ","), Separators(",", ".")),
    *(Separators(decimal, thousands) for thousands in (" ", "'") for decimal in (".", ",")),
)


@dataclass(slots=True)
class DetectedColumn:
    """A column's format, and what the report says about it."""

    format: ColumnFormat
    cells: Cells
    misfits: dict[str, int] = field(default_factory=dict)
    """Cells of a column of text that keep it from being a column of `misfit_type`."""
    misfit_type: ColumnType = "number"
    codes: bool = False
    """Numbers by their form, kept as text because a number would lose digits."""
    number_texts: bool = False
    """Strings of a typed file that are all numbers."""
    alternatives: tuple[str, ...] = ()
    """Other readings that fit all cells, where nothing in the file decides: separators, or date formats."""
    chosen: bool = False
    """The type was given, not detected."""

    @property
    def total(self) -> int:
        """The number of rows."""
        return sum(count for _, count in self.cells) if self.format.typed else sum(dict_of(self.cells).values())

    @property
    def missing(self) -> dict[str, int]:
        """The words that were read as missing, as the file has them, and how often; an empty cell is ""."""
        words = self.format.missing_words
        if not self.format.typed:
            counts = dict_of(self.cells)
            return {word: counts[word] for word in words if word in counts}
        found: dict[str, int] = {}
        for value, count in self.cells:
            if value is None or (isinstance(value, str) and value in words):
                word = "" if value is None else value
                found[word] = found.get(word, 0) + count
        return found


@dataclass(frozen=True, slots=True)
class FileEvidence:
    """What the other columns of a file tell about the writing of numbers."""

    delimiter: str = ","
    decimal: DecimalSeparator | None = None
    thousands: ThousandsSeparator = ""


def is_number_text(text: str) -> bool:
    """Return whether a cell is a number in any writing."""
    return any(separators.fits(text) for separators in ALL_SEPARATORS)


def is_quantity(text: str) -> bool:
    """Return whether a cell is a number, or one beside a currency or percent sign."""
    return is_number_text(text) or (text != "" and _unit([text]) != "")


def file_evidence(columns: Iterable[Counts], delimiter: str) -> FileEvidence:
    """Collect how the columns of numbers write them, from the cells that can be read in one way only."""
    decimals: dict[str, int] = {".": 0, ",": 0}
    groups: dict[str, int] = {}
    for counts in columns:
        present = _spread([text for text in counts if text not in NUMBER_WORDS], MOST_EVIDENCE)
        if present and (unit := _unit(present)):
            present = [without_unit(text, unit) for text in present]
        numbers = [text for text in present if is_number_text(text)]
        if not numbers or len(numbers) < MOSTLY * len(present):
            continue
        for text in numbers:
            fitting = [one for one in ALL_SEPARATORS if one.fits(text)]
            for_decimal = {one.decimal for one in fitting}
            if len(for_decimal) == 1:
                decimals[fitting[0].decimal] += 1
            if all(one.thousands for one in fitting):
                groups[fitting[0].thousands] = groups.get(fitting[0].thousands, 0) + 1
    decimal: DecimalSeparator | None = None  # columns that contradict each other tell nothing
    if bool(decimals["."]) != bool(decimals[","]):
        decimal = "." if decimals["."] else ","
    thousands: Any = max(groups, key=lambda one: groups[one]) if groups else ""
    return FileEvidence(delimiter, decimal, "" if thousands == (decimal or ".") else thousands)


def detect_text(name: str, counts: Counts, options: ColumnOptions, evidence: FileEvidence) -> DetectedColumn:
    """Decide how the cells of a text column are read. Raises DataError when they are not of the type that was given."""
    cells, number_words = counts.items(), _words(options, NUMBER_MISSING)
    if options.type is not None:
        return _given_text(name, counts, options, evidence)
    present = _without(counts, number_words)
    misfits: Counts = {}
    unit = options.unit or (_unit(present) if present else "")
    if present and (unit or not _is_prose(present)):
        separators, alternatives, all_fit = _separators(_bare(present, unit), options, evidence)
        fits = separators.fits
        misfits = {} if all_fit else {text: n for text, n in present.items() if not fits(without_unit(text, unit))}
        if not misfits and _loses_digits(present):
            return DetectedColumn(ColumnFormat(name=name, type="category", missing=number_words), cells, codes=True)
        if not misfits:
            number = ColumnFormat(name=name, type="number", missing=number_words, unit=unit, **separators._asdict())
            return DetectedColumn(number, cells, alternatives=alternatives)
    elif present:
        misfits = present
    text_words = _words(options, TEXT_MISSING)
    words = list(_without(counts, text_words))
    if words and all(text.casefold() in ("true", "false") for text in words):
        return DetectedColumn(_boolean(name, text_words, words), cells)
    dates = _date_formats(present, options) if misfits else []
    if len(dates) == 1:
        date = ColumnFormat(name=name, type="date", missing=number_words, date_format=dates[0])
        return DetectedColumn(date, cells)
    text = DetectedColumn(ColumnFormat(name=name, type="category", missing=text_words), cells)
    if dates:
        text.alternatives = tuple(str(one) for one in dates)
    elif misfits:
        text.misfits, text.misfit_type = _misfits(present, misfits)
    return text


def _given_text(name: str, counts: Counts, options: ColumnOptions, evidence: FileEvidence) -> DetectedColumn:
    missing = _words(options, TEXT_MISSING if options.type in ("category", "boolean") else NUMBER_MISSING)
    present = _without(counts, missing)
    alternatives: tuple[str, ...] = ()
    if options.type == "boolean":
        column = _boolean(name, missing, list(present))
    else:
        column = ColumnFormat(name=name, type=options.type or "category", missing=missing)
    if options.type == "number":
        unit = options.unit or (_unit(present) if present else "")
        separators, alternatives, _ = _separators(_bare(present, unit), options, evidence)
        column = column.model_copy(update={"unit": unit, **separators._asdict()})
    if options.type == "date":
        fitting = _date_formats(present, options) or _date_formats(dict(list(present.items())[:1]), options)
        if len(fitting) > 1:
            raise _ambiguous_date(name, present, fitting)
        column = column.model_copy(update={"date_format": fitting[0] if fitting else None})
    detected = DetectedColumn(column, counts.items(), alternatives=alternatives, chosen=True)
    _check(detected)
    return detected


def detect_values(name: str, cells: Cells, options: ColumnOptions, *, optional: bool = False) -> DetectedColumn:
    """Decide how the values of a typed column (JSON) are read. None is the only missing value unless words were given.

    Raises DataError for lists and objects, and when the values are not of the type that was given.
    """
    missing = options.missing or ()
    present = [(value, count) for value, count in cells if value is not None and value not in missing]
    numbers = sum(count for value, count in present if _is_number(value))
    total = sum(count for _, count in present)
    detected_type: ColumnType = "category"
    codes, dates = False, list[str | None]()
    if options.type is not None:
        detected_type = options.type
    elif numbers == total:
        codes = all(isinstance(value, int) for value, _ in present) and any(_inexact(value) for value, _ in present)
        detected_type = "category" if codes else "number"
    elif all(isinstance(value, bool) for value, _ in present):
        detected_type = "boolean"
    elif all(isinstance(value, str) for value, _ in present):
        dates = _date_formats(dict(present), options)
        detected_type = "date" if len(dates) == 1 else "category"
    column = ColumnFormat(
        name=name,
        type=detected_type,
        missing=missing,
        decimal=options.decimal or ".",
        thousands=options.thousands or "",
        unit=options.unit or "",
        date_format=options.date_format or (dates[0] if len(dates) == 1 else None),
        typed=True,
        optional=optional,
    )
    detected = DetectedColumn(column, cells, codes=codes, chosen=options.type is not None)
    if len(dates) > 1:
        detected.alternatives = tuple(str(one) for one in dates)
    if detected_type == "category" and not detected.chosen and present:
        detected.number_texts = all(isinstance(value, str) and is_number_text(value) for value, _ in present)
    if detected_type == "category" and not codes and not detected.chosen and numbers >= MOSTLY * total > 0:
        detected.misfits = {shown(value): count for value, count in present if not _is_number(value)}
    if detected.chosen:
        _check(detected)
    return detected


def _check(detected: DetectedColumn) -> None:
    """Raise DataError when cells do not fit the type that was given."""
    column, bad = detected.format, dict[str, int]()
    for value, count in detected.cells:
        try:
            read = column.read(value)
            fits = column.type != "boolean" or read in (None, column.true, column.false)
        except CellError:
            fits = False
        if not fits:
            bad[shown(value)] = count
    if bad:
        total = detected.total
        message = f"{sum(bad.values())} of {total} values are no {column.type}s: {listed(bad)}"
        words = ", ".join(word if word.startswith('"') else f'"{word}"' for word in list(bad)[:3])
        hint = f'If they mean "no value", list them in the column\'s `missing` ([{words}]); else read it as a category.'
        raise data_error("wrong_type", message, f'column "{column.name}"', hint)


def listed(counts: Mapping[str, int]) -> str:
    """Return the commonest words with their counts: `nil (1061 times), - (once)`."""
    common = sorted(counts.items(), key=lambda item: -item[1])
    words = [f"{word} ({'once' if count == 1 else f'{count} times'})" for word, count in common[:MOST_EXAMPLES]]
    return ", ".join(words) + (f" and {len(common) - MOST_EXAMPLES} others" if len(common) > MOST_EXAMPLES else "")


def _words(options: ColumnOptions, usual: tuple[str, ...]) -> tuple[str, ...]:
    """Return the missing words; an empty cell of text is always one."""
    return usual if options.missing is None else tuple(dict.fromkeys(("", *(word.strip() for word in options.missing))))


def _separators(
    present: Counts, options: ColumnOptions, evidence: FileEvidence
) -> tuple[Separators, tuple[str, ...], bool]:
    """Return (the separators, other readings that fit as well, whether all cells fit).

    Of those that fit all cells, or else most of them; where several do, by the other columns, by the form of the
    cells, and by the delimiter, in this order.
    """
    allowed = [
        one
        for one in ALL_SEPARATORS
        if options.decimal in (None, one.decimal) and options.thousands in (None, one.thousands)
    ] or [Separators(options.decimal or ".", options.thousands or "")]
    characters = set("".join(present))
    best, all_fit = _best(allowed, present, characters)
    used = characters & {".", ","}
    usual = Separators(evidence.decimal or ".", evidence.thousands)
    if len(used) != 1:
        # none: a later row may well have a fraction, as the other columns have; both: they tell which is which
        same = [one for one in best if one.decimal == usual.decimal]
        return (usual if usual in best else (same or best)[0]), (), all_fit
    (character,) = used
    as_decimal = [one for one in best if one.decimal == character]
    as_thousands = [one for one in best if one.thousands == character]
    if not as_decimal or not as_thousands:
        fitting = as_decimal or as_thousands or best
        return (usual if usual in fitting else fitting[0]), (), all_fit
    decimal, thousands = as_decimal[0], as_thousands[0]
    whole = [int(text.lstrip("+-")) for text in present if INTEGER.fullmatch(text)]
    if evidence.decimal is not None:
        chosen = decimal if evidence.decimal == character else thousands
    elif character == ",":
        chosen = thousands if evidence.delimiter == "," or (whole and max(whole) < 1000) else decimal
    else:
        chosen = decimal
    if chosen.decimal == "." == character and evidence.delimiter != ";":
        return chosen, (), all_fit
    other = _described(decimal if chosen is thousands else thousands, present, character)
    return chosen, (other,), all_fit


def _unit(present: Collection[str]) -> str:
    """Return the sign that stands before or after the number in all cells: `$` in $1,200, `%` in 12 %; else ""."""
    first = next(iter(present)).lstrip(SIGNS).strip()
    signs = [sign for sign in (first[:1], first[-1:]) if sign == "%" or (sign and category(sign) == "Sc")]
    if not signs or not is_number_text(without_unit(first, signs[0])):
        return ""
    return (
        signs[0] if all(signs[0] in text and is_number_text(without_unit(text, signs[0])) for text in present) else ""
    )


def _bare(present: Counts, unit: str) -> Counts:
    """Return the cells without their unit."""
    if not unit:
        return present
    bare: dict[str, int] = {}
    for text, count in present.items():
        number = without_unit(text, unit)
        bare[number] = bare.get(number, 0) + count
    return bare


def _best(allowed: Sequence[Separators], present: Counts, characters: set[str]) -> tuple[list[Separators], bool]:
    """Return (those that fit all cells, else those that fit most; whether all fit).

    Separators that differ in characters that no cell has fit alike.
    """
    alike: dict[tuple[bool, str, str], list[Separators]] = {}
    for one in allowed:
        decimal = one.decimal if one.decimal in characters else ""
        thousands = one.thousands if characters & set(written_as(one.thousands)) else ""
        alike.setdefault((decimal == thousands, decimal, thousands), []).append(one)
    groups = list(alike.values())
    fitting = [group for group in groups if all(map(group[0].fits, present))]
    all_fit = bool(fitting)
    if not fitting:
        counted = [sum(n for text, n in present.items() if group[0].fits(text)) for group in groups]
        fitting = [group for group, count in zip(groups, counted, strict=True) if count == max(counted)]
    return sorted((one for group in fitting for one in group), key=allowed.index), all_fit


def _is_prose(present: Counts) -> bool:
    """Return whether a column of text is so far from numbers and dates that not every cell must be tried."""
    sample = _spread(list(present), MOST_EVIDENCE)
    return not any(is_number_text(text) or text[:1].isdigit() for text in sample)


def _spread(texts: Sequence[str], most: int) -> Sequence[str]:
    """Return up to `most` of the texts, evenly spread."""
    return texts[:: max(1, -(-len(texts) // most))]


def _without(counts: Counts, words: Iterable[str]) -> dict[str, int]:
    """Return the cells that are none of the words."""
    left = dict(counts)
    for word in words:
        left.pop(word, None)
    return left


def _described(other: Separators, present: Counts, character: str) -> str:
    example = next((text for text in present if character in text), "")
    value = parse_number(example, other.decimal, other.thousands)
    name = f'thousands "{other.thousands}"' if other.thousands else f'decimal "{other.decimal}"'
    return f"{example} is {value:g} with {name}" if value is not None else name


def _loses_digits(present: Counts) -> bool:
    """Return whether numbers would not keep the cells apart or their zeros: 00501, or whole numbers beyond 2^53."""
    if not all(INTEGER.fullmatch(text) for text in present):
        return False
    return any(CODE.fullmatch(text) or (len(text) > 15 and _inexact(int(text[:400]))) for text in present)


def _inexact(value: int) -> bool:
    """Return whether float64 holds another number."""
    try:
        return int(float(value)) != value
    except OverflowError:
        return True


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _boolean(name: str, missing: tuple[str, ...], words: Iterable[str]) -> ColumnFormat:
    spelt: dict[str, str] = {}
    for text in words:
        spelt.setdefault(text.casefold(), text)
    true = spelt.get("true") or {"FALSE": "TRUE", "False": "True"}.get(spelt.get("false", ""), "true")
    false = spelt.get("false") or {"TRUE": "FALSE", "True": "False"}.get(true, "false")
    return ColumnFormat(name=name, type="boolean", missing=missing, true=true, false=false)


def _date_formats(present: Counts, options: ColumnOptions) -> list[str | None]:
    """Return the date formats that fit all cells."""
    if options.date_format is not None:
        return [options.date_format]
    if not present or not any(character.isdigit() for character in next(iter(present))):
        return []
    return [one for one in DATE_FORMATS if all(parse_date(text, one) is not None for text in present)]


def _ambiguous_date(name: str, present: Counts, found: list[str | None]) -> DataError:
    message = f"{next(iter(present))} may be {' or '.join(str(one) for one in found)}"
    return data_error("ambiguous_date", message, f'column "{name}"', "Say which: set its `date_format`.")


def _misfits(present: Counts, misfits: Counts) -> tuple[dict[str, int], ColumnType]:
    """Return (the cells that keep a column of text from being numbers or dates, which of both); ({}, ...) for real text."""
    total = sum(present.values())
    if total - sum(misfits.values()) >= MOSTLY * total:
        return dict(misfits), "number"
    no_dates = {text: count for text, count in present.items() if parse_date(text) is None}
    if total - sum(no_dates.values()) >= MOSTLY * total:
        return no_dates, "date"
    return {}, "number"

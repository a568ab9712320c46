"""What a list can be filtered by: how each filter is written in a query string, and which column it is about.

| filter | query string |
|---|---|
| `ExactFilter` | `group=rates`, `group=rates&group=depths`: one of these |
| `ChoiceFilter` | `state=running`, `state=queued,running`, `state=queued&state=running` |
| `FlagFilter` | `active=true` |
| `TextFilter` | `name=digits` the whole name, `name=digits*` its beginning, `name=*digits` its end, `*digits*` any part |
| `TimeFilter` | `created_after=2026-01-31T12:00:00Z`, `created_before=...` |
| `NumberFilter` | `bytes>=1000`, `bytes>1000`, `bytes<=1000`, `bytes<1000`, `bytes=1000` |
| `LabelFilter` | `label.team=vision` |
| `MetricFilter` | `metric.val_accuracy>=0.9`, with the operators of `NumberFilter` |

Filters of different names are joined by "and". This module reads; `repository.py` beside it makes SQL of what was read.
"""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from sqlalchemy.orm import InstrumentedAttribute

from service.database import first_id
from trainkit.spec.synonyms import nearest

Operator = Literal["in", "prefix", "suffix", "contains", "present", ">", ">=", "<", "<="]
Pair = tuple[str, str]
MAX_VALUES = 100
CLOCK_SKEW = timedelta(days=1)
MAX_TEXT = 500
MAX_KEYS = 32
"""Labels, and metrics, that one request may name."""
KEY = r"[A-Za-z0-9_.-]{1,64}"
METRIC_KEY = r"[A-Za-z0-9_./@-]{1,120}"
COMPARED = re.compile(r"(?P<name>[^<>=\s]*)\s*(?P<operator>>=|<=|>|<|)\s*(?P<rest>.*)", re.DOTALL)
LONGEST_TIME = 64
SPACE_FOR_PLUS = re.compile(r"(T.*) (\d\d:?\d\d)$")
"""`+02:00` that was not percent-encoded: a query string says a space with it."""


@dataclass(frozen=True, slots=True)
class Condition:
    """What rows must meet: `column operator value`; with `key` of that member of a JSON column."""

    filter: str
    column: InstrumentedAttribute[Any]
    operator: Operator
    value: Any
    key: str | None = None


@dataclass(frozen=True, slots=True)
class QueryParameter:
    """A query parameter as OpenAPI describes it."""

    name: str
    schema: dict[str, Any]
    description: str
    repeatable: bool = False


class BadFilterError(Exception):
    """A value that a filter does not take."""

    def __init__(self, name: str, code: str, message: str, hint: str) -> None:
        super().__init__(message)
        self.error = {"pointer": f"query/{name}", "code": code, "message": message, "hint": hint}


@dataclass(frozen=True)
class ListFilter(ABC):
    """A field that the list can be filtered by; `name` as it is shown in a row."""

    name: str
    column: InstrumentedAttribute[Any]
    description: str = ""

    @abstractmethod
    def parameters(self) -> Iterator[QueryParameter]:
        """Yield its description for OpenAPI; a filter with free keys (`label.team`) has no parameter of a fixed name."""

    def accepts(self, name: str) -> bool:
        """Whether a query parameter of that name is this filter's."""
        return any(parameter.name == name for parameter in self.parameters())

    @abstractmethod
    def read(self, given: Sequence[Pair]) -> Iterator[Condition]:
        """Yield the conditions of the parameters that it accepts. Raises BadFilterError."""


@dataclass(frozen=True)
class ExactFilter(ListFilter):
    """One of the values that are given."""

    max_length: int = 200

    def parameters(self) -> Iterator[QueryParameter]:
        schema = {"type": "string", "minLength": 1, "maxLength": self.max_length}
        yield QueryParameter(self.name, schema, self.description or f"Only this {self.name}.", repeatable=True)

    def read(self, given: Sequence[Pair]) -> Iterator[Condition]:
        values = [value for _, value in given]
        for value in values:
            check_text(self.name, value, self.max_length)
        yield Condition(self.name, self.column, "in", _distinct(self.name, values))


@dataclass(frozen=True)
class ChoiceFilter(ListFilter):
    """One of a closed set."""

    choices: tuple[str, ...] = ()

    def parameters(self) -> Iterator[QueryParameter]:
        description = self.description or f"One or more of {', '.join(self.choices)}: repeated, or with commas between."
        yield QueryParameter(self.name, {"type": "string", "enum": list(self.choices)}, description, repeatable=True)

    def read(self, given: Sequence[Pair]) -> Iterator[Condition]:
        values = [part.strip() for _, value in given for part in value.split(",")]
        for value in values:
            if value not in self.choices:
                hint = nearest(value, self.choices) or f"One of {', '.join(self.choices)}."
                raise BadFilterError(self.name, "unknown_value", f"{self.name} is never {_shown(value)}", hint)
        yield Condition(self.name, self.column, "in", _distinct(self.name, values))


@dataclass(frozen=True)
class FlagFilter(ListFilter):
    """True or false; with `present`, whether the column has a value."""

    present: bool = False

    def parameters(self) -> Iterator[QueryParameter]:
        yield QueryParameter(self.name, {"type": "boolean"}, self.description or f"Only those with this {self.name}.")

    def read(self, given: Sequence[Pair]) -> Iterator[Condition]:
        value = single(self.name, given)
        if value not in ("true", "false"):
            message = f"{self.name} is true or false, not {_shown(value)}"
            raise BadFilterError(self.name, "not_boolean", message, f"Send {self.name}=true or {self.name}=false.")
        if self.present:
            yield Condition(self.name, self.column, "present", value == "true")
        else:
            yield Condition(self.name, self.column, "in", (value == "true",))


@dataclass(frozen=True)
class TextFilter(ListFilter):
    """A name, or a part of it between `*`."""

    max_length: int = 200

    def parameters(self) -> Iterator[QueryParameter]:
        described = "the whole, `digits*` its beginning, `*digits` its end, `*digits*` any part; case counts."
        schema = {"type": "string", "minLength": 1, "maxLength": self.max_length + 2}
        yield QueryParameter(self.name, schema, self.description or f"`digits` is {described}")

    def read(self, given: Sequence[Pair]) -> Iterator[Condition]:
        value = single(self.name, given)
        check_text(self.name, value, self.max_length + 2)
        begins, ends = value.startswith("*"), value.endswith("*") and len(value) > 1
        text = value[begins : len(value) - ends]
        if "*" in text:
            message = f"{_shown(value)} has a `*` between other characters"
            hint = f"`*` stands at the beginning, at the end or at both: {self.name}=*{text.partition('*')[0]}*."
            raise BadFilterError(self.name, "bad_pattern", message, hint)
        operators: dict[tuple[bool, bool], Operator] = {(True, True): "contains", (True, False): "suffix"}
        if text and not (begins or ends):
            yield Condition(self.name, self.column, "in", (text,))
        elif text:
            yield Condition(self.name, self.column, operators.get((begins, ends), "prefix"), text)


@dataclass(frozen=True)
class TimeFilter(ListFilter):
    """`created_after` and `created_before` of the field `created_at`."""

    @property
    def stem(self) -> str:
        """The field's name without `_at`."""
        return self.name.removesuffix("_at")

    def parameters(self) -> Iterator[QueryParameter]:
        for side, meaning in (("after", "later"), ("before", "earlier")):
            description = f"Only with a `{self.name}` {meaning} than this time (RFC 3339)."
            yield QueryParameter(f"{self.stem}_{side}", {"type": "string", "format": "date-time"}, description)

    def read(self, given: Sequence[Pair]) -> Iterator[Condition]:
        sides: tuple[tuple[str, Operator], ...] = ((f"{self.stem}_after", ">"), (f"{self.stem}_before", "<"))
        for name, operator in sides:
            values = [pair for pair in given if pair[0] == name]
            if values:
                yield Condition(self.name, self.column, operator, parse_time(name, single(name, values)))


@dataclass(frozen=True)
class CreatedFilter(TimeFilter):
    """`created_after` and `created_before`, led by the ids, which begin with the time of creation: no index is needed.

    Ids have the clock of the process that made them, `created_at` the database's: they may differ by `CLOCK_SKEW`.
    """

    name: str = "created_at"
    column: InstrumentedAttribute[Any] = field(kw_only=True)
    ids: InstrumentedAttribute[Any] = field(kw_only=True)
    prefix: str = field(kw_only=True)

    def read(self, given: Sequence[Pair]) -> Iterator[Condition]:
        for condition in super().read(given):
            yield condition
            skew = -CLOCK_SKEW if condition.operator == ">" else CLOCK_SKEW
            try:
                bound = first_id(self.prefix, condition.value + skew)
            except OverflowError:
                continue
            yield Condition(self.name, self.ids, condition.operator, bound)


@dataclass(frozen=True)
class NumberFilter(ListFilter):
    """Compared by an operator that stands in the query string."""

    def parameters(self) -> Iterator[QueryParameter]:
        description = self.description or f"Also `{self.name}>=1`, `{self.name}>1`, `{self.name}<=1`, `{self.name}<1`."
        yield QueryParameter(self.name, {"type": "number"}, description)

    def accepts(self, name: str) -> bool:
        return _compared(name)["name"] == self.name

    def read(self, given: Sequence[Pair]) -> Iterator[Condition]:
        for pair in given:
            operator, number = parse_comparison(self.name, pair)
            yield Condition(self.name, self.column, operator, (number,) if operator == "in" else number)


@dataclass(frozen=True)
class KeyedFilter(ListFilter):
    """One member of an object: `label.team`, `metric.val_accuracy`. The parameter's name has the member's."""

    def parameters(self) -> Iterator[QueryParameter]:
        return iter(())

    def accepts(self, name: str) -> bool:
        return name.startswith(f"{self.name}.")

    def _key(self, name: str, pattern: str) -> str:
        key = name.removeprefix(f"{self.name}.")
        if not re.fullmatch(pattern, key, re.ASCII):
            message = f"{_shown(name)} does not name a {self.name}"
            hint = f"Write {self.name}.NAME; a name has letters, digits, and _ . - only."
            raise BadFilterError(name[:80], f"bad_{self.name}", message, hint)
        return key

    def _check_count(self, given: Sequence[Pair]) -> None:
        if len(given) > MAX_KEYS:
            message, hint = f"{len(given)} filters by {self.name}", f"Send at most {MAX_KEYS}."
            raise BadFilterError(self.name, f"too_many_{self.name}s", message, hint)


@dataclass(frozen=True)
class LabelFilter(KeyedFilter):
    """`label.team=vision`: the label `team` is `vision`."""

    name: str = "label"
    column: InstrumentedAttribute[Any] = field(kw_only=True)

    def read(self, given: Sequence[Pair]) -> Iterator[Condition]:
        self._check_count(given)
        for name, value in given:
            check_text(name[:80], value, MAX_TEXT, empty=True)
            yield Condition(self.name, self.column, "in", (value,), self._key(name, KEY))


@dataclass(frozen=True)
class MetricFilter(KeyedFilter):
    """`metric.val_accuracy>=0.9`: a figure of the row is that large."""

    name: str = "metric"
    column: InstrumentedAttribute[Any] = field(kw_only=True)
    known: tuple[str, ...] = field(kw_only=True)
    """Metrics that a row can have: no row has a misspelt one, which would look like an answer."""

    def read(self, given: Sequence[Pair]) -> Iterator[Condition]:
        self._check_count(given)
        for pair in given:
            name = _compared(pair[0])["name"]
            key = self._key(name, METRIC_KEY)
            check_metric(name, key, self.known)
            operator, number = parse_comparison(name, pair)
            yield Condition(self.name, self.column, operator, (number,) if operator == "in" else number, key)


def check_metric(name: str, key: str, known: tuple[str, ...]) -> None:
    """Raise BadFilterError for a metric that no row can have."""
    if key not in known:
        hint = nearest(key, known) or f"Known ones: {', '.join(known)}."
        raise BadFilterError(name[:80], "unknown_metric", f"there is no metric {key[:80]!r}", hint)


def _compared(name: str) -> re.Match[str]:
    match = COMPARED.fullmatch(name)
    assert match is not None
    return match


def parse_comparison(name: str, pair: Pair) -> tuple[Operator, float]:
    """Return operator and number of `name>=0.9` and the like. Raises BadFilterError.

    A query string is cut at its first `=`: `x>=0.9` arrives as `x>` and `0.9`, `x>0.9` as `x>0.9` and nothing, and the
    same with the signs percent-encoded. A client that takes pairs may also send `x` and `>=0.9`.
    """
    match = _compared(pair[0])
    operator, text = match["operator"], match["rest"].strip()
    if not operator:
        operator, text = re.findall(r"^\s*(>=|<=|>|<|)\s*(.*)$", pair[1], re.DOTALL)[0]
    elif not text:
        operator, text = operator[0] + "=", pair[1]
    elif pair[1]:
        text = f"{text}={pair[1]}"
    try:
        number = float(text.strip().replace("e ", "e+").replace("E ", "E+"))
    except ValueError:
        number = math.nan
    if not math.isfinite(number) or "_" in text:
        message = f"{_shown(text)} is not a number"
        hint = f"Write {name}>=0.9; the operators are >=, >, <=, < and =."
        raise BadFilterError(name, "not_a_number", message, hint)
    operators: dict[str, Operator] = {">=": ">=", ">": ">", "<=": "<=", "<": "<"}
    return operators.get(operator, "in"), number


def parse_time(name: str, text: str) -> datetime:
    """Return a time in UTC; without a zone it is UTC. Raises BadFilterError."""
    try:
        if len(text) > LONGEST_TIME or not re.match(r"\d{4}-\d\d-\d\d", text, re.ASCII):
            raise ValueError
        at = datetime.fromisoformat(SPACE_FOR_PLUS.sub(r"\1+\2", text.strip()))
        return at.replace(tzinfo=at.tzinfo or UTC).astimezone(UTC)
    except (ValueError, OverflowError):
        message = f"{_shown(text)} is not a time in UTC"
        raise BadFilterError(name, "bad_time", message, "Write it as 2026-01-31T12:00:00Z (RFC 3339).") from None


def check_text(name: str, value: str, max_length: int, *, empty: bool = False) -> None:
    """Raise BadFilterError for text that no row can have."""
    if not value and not empty:
        raise BadFilterError(name, "empty", f"{name} is empty", "Leave it out, or give it a value.")
    if len(value) > max_length:
        message = f"{name} has {len(value)} characters"
        raise BadFilterError(name, "string_too_long", message, f"Send at most {max_length} characters.")
    if "\x00" in value or any("\ud800" <= letter <= "\udfff" for letter in value):
        raise BadFilterError(name, "not_text", f"{name} has a character that is none", "Leave it out.")


def single(name: str, given: Sequence[Pair]) -> str:
    """Return the value of a parameter that may be given once. Raises BadFilterError."""
    if len(given) != 1:
        raise BadFilterError(name, "given_twice", f"{name} is given {len(given)} times", "Give it once.")
    return given[0][1]


def _distinct(name: str, values: Iterable[str]) -> tuple[str, ...]:
    found = tuple(dict.fromkeys(values))
    if len(found) > MAX_VALUES:
        raise BadFilterError(name, "too_many_values", f"{name} has {len(found)} values", f"Send at most {MAX_VALUES}.")
    return found


def _shown(value: str) -> str:
    return repr(value if len(value) <= 80 else value[:77] + "...")

"""One form for every list: `limit`, `after`, `sort`, `fields` and filters in, `{data, has_more, next}` out.

A resource declares its list once, beside its route, and the route depends on it:

    WEBHOOKS = ListOf(
        Webhook.id, WebhookOut, sorts=[SortField("created_at", Webhook.id)], filters=[FlagFilter("active", Webhook.active)]
    )

    @router.get("", response_model=Page[WebhookOut])
    def list_webhooks(who: Reader, session: ReadSession, query: Annotated[ListQuery, Depends(WEBHOOKS.query)]) -> Response:
        return query.respond(page(session, query, Webhook.project_id == who.project_id), webhook_out)

Pages are cut by keys and not by counting: `next` carries the sort key and the id of the last row, so that rows which come
or go meanwhile move nothing.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from inspect import Parameter, Signature
from typing import Annotated, Any, Generic, Literal, TypeVar

from fastapi import Depends, Query, Request, Response
from pydantic import BaseModel, WithJsonSchema
from pydantic_core import to_json
from sqlalchemy.orm import InstrumentedAttribute

from service.errors import HttpProblem
from service.listing.field_selection import FieldTree, field_tree, selected
from service.listing.filters import (
    METRIC_KEY,
    BadFilterError,
    Condition,
    ListFilter,
    Pair,
    QueryParameter,
    check_metric,
    single,
)
from trainkit.spec.synonyms import nearest

MAX_LIMIT = 1000
DEFAULT_LIMIT = 50
MAX_CURSOR = 2000
KeyKind = Literal["text", "number", "time"]
KeyValue = str | float | datetime | None
RowT = TypeVar("RowT")


@dataclass(frozen=True, slots=True)
class SortField:
    """A field that the list can be sorted by; rows without a value come last in both directions."""

    field: str
    """As `sort=` names it. One that ends with a dot is followed by the name of a member: `metrics.best.`"""
    column: InstrumentedAttribute[Any]
    """The id where ids rise with the field, as they do with the time of creation."""
    kind: KeyKind = "text"
    nullable: bool = False
    key: str | None = None
    """The member of a JSON column."""
    known: tuple[str, ...] = ()
    """Of a field that ends with a dot: the members that a row can have."""


@dataclass(frozen=True, slots=True)
class Position:
    """Where a page ends: the last row's sort key and id."""

    value: KeyValue
    id: str | int


@dataclass(frozen=True, slots=True)
class RowPage(Generic[RowT]):
    """Rows of one page, whether more follow, and where it ends."""

    rows: Sequence[RowT]
    has_more: bool
    last: Position | None


@dataclass(frozen=True)
class ListQuery:
    """What a request asks of a list."""

    listing: ListOf
    limit: int
    sort: SortField
    descending: bool
    after: Position | None = None
    conditions: tuple[Condition, ...] = ()
    fields: FieldTree | None = None
    """The fields to answer with; None for the list's own."""

    @property
    def sort_name(self) -> str:
        """The sort as a query string says it."""
        return f"{'-' if self.descending else ''}{self.sort.field}"

    @property
    def shown_fields(self) -> list[str]:
        """The outermost fields that a row is answered with."""
        tree = self.fields or self.listing.default_tree
        names = self.listing.row.model_fields
        if tree is None:
            return list(names)
        return [one for one in names if any(_covers(name, one) for name in tree)]

    def cursor(self, position: Position) -> str:
        """Return the `after` of the next page."""
        value = position.value.isoformat() if isinstance(position.value, datetime) else position.value
        text = json.dumps([self.sort_name, value, position.id], ensure_ascii=False, separators=(",", ":"))
        return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")

    def respond(self, page: RowPage[RowT], out: Callable[[RowT], BaseModel | Mapping[str, Any]]) -> Response:
        """Answer with a page: each row as `out` shows it, or the fields of it that are asked for."""
        tree = self.fields or self.listing.default_tree
        data: list[Any] = [out(row) for row in page.rows]
        if tree is not None:
            data = [selected(_as_dict(row), tree) for row in data]
        following = self.cursor(page.last) if page.has_more and page.last is not None else None
        body = to_json({"data": data, "has_more": page.has_more, "next": following}, by_alias=True)
        return Response(body, media_type="application/json")


def _covers(pattern: str, name: str) -> bool:
    return name.startswith(pattern[:-1]) if pattern.endswith("*") else pattern == name


def _as_dict(row: BaseModel | Mapping[str, Any]) -> Mapping[str, Any]:
    return row.model_dump(mode="json", by_alias=True) if isinstance(row, BaseModel) else row


def _fields_parameter(
    fields: Annotated[
        str | None,
        Query(
            min_length=1,
            max_length=2000,
            description="Only these fields, with commas between: `id,name`; `a.b` for a member of an object.",
        ),
    ] = None,
) -> str | None:
    return fields


Fields = Annotated[str | None, Depends(_fields_parameter)]
"""The parameter `fields` of a single resource: see `json_response`."""


def json_response(body: BaseModel, fields: str | None = None) -> Response:
    """Answer with a resource, or with those fields of it. Raises a 422 problem for a field that it does not have."""
    if fields is None:
        return Response(body.model_dump_json(by_alias=True), media_type="application/json")
    try:
        tree = field_tree(fields, type(body))
    except BadFilterError as error:
        message = error.error["message"]
        raise HttpProblem(
            422, "invalid_request", f"{message[:1].upper()}{message[1:]}.", errors=[error.error]
        ) from None
    return Response(to_json(selected(_as_dict(body), tree)), media_type="application/json")


class ListOf:
    """A list: the column that identifies a row, the form of a row, and what it can be sorted and filtered by.

    `default_fields`: what a row has when `fields` does not ask for others, in the form of `fields`; None: all.
    """

    def __init__(
        self,
        key: InstrumentedAttribute[Any],
        row: type[BaseModel],
        *,
        sorts: Sequence[SortField],
        filters: Sequence[ListFilter] = (),
        default_sort: str = "-created_at",
        default_fields: str | None = None,
        default_limit: int = DEFAULT_LIMIT,
    ) -> None:
        self.key, self.row = key, row
        self.sorts = {sort.field: sort for sort in sorts}
        self.filters = tuple(filters)
        self.default_sort, self.default_limit = default_sort, default_limit
        self.default_tree = field_tree(default_fields, row) if default_fields else None
        self.query = self._dependency()

    def with_limit(self, limit: int) -> ListOf:
        """Return the same list with another default of `limit`."""
        other = copy(self)
        other.default_limit = limit
        other.__dict__.pop("parameters", None)
        other.query = other._dependency()
        return other

    @cached_property
    def parameters(self) -> tuple[QueryParameter, ...]:
        """The query parameters that have a name of their own."""
        limit = {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": self.default_limit}
        members = [name for name in self.sorts if name.endswith(".")]
        names = "|".join(re.escape(name) + (METRIC_KEY if name in members else "") for name in self.sorts)
        shown = ", ".join(f"`{name}NAME`" if name in members else f"`{name}`" for name in self.sorts)
        sort = {"type": "string", "pattern": f"^-?({names})$", "default": self.default_sort}
        cursor = {"type": "string", "minLength": 1, "maxLength": MAX_CURSOR}
        common = (
            QueryParameter("limit", limit, f"How many, at most {MAX_LIMIT}."),
            QueryParameter("after", cursor, "Continue after a page: its `next`, with the same `sort`."),
            QueryParameter("sort", sort, f"One of {shown}; with `-` before it the largest or latest first."),
            QueryParameter(
                "fields",
                {"type": "string", "minLength": 1, "maxLength": 2000},
                "Only these fields of each row, with commas between: `id,name`; `a.b` for a member of an object.",
            ),
        )
        return (*common, *(parameter for one in self.filters for parameter in one.parameters()))

    def accepts(self, name: str) -> bool:
        """Whether the list has a query parameter of that name, such as `label.team`."""
        return any(parameter.name == name for parameter in self.parameters) or self._filter(name) is not None

    def _filter(self, name: str) -> ListFilter | None:
        return next((one for one in self.filters if one.accepts(name)), None)

    def _dependency(self) -> Callable[..., Awaitable[ListQuery]]:
        """Return the dependency of a route. FastAPI reads the signature for OpenAPI; `parse` reads the values."""

        async def query(request: Request, **_: Any) -> ListQuery:
            return self.parse(request.query_params.multi_items())

        described: list[Parameter] = [Parameter("request", Parameter.KEYWORD_ONLY, annotation=Request)]
        for parameter in self.parameters:
            kind: Any = list[str] | None if parameter.repeatable else str | None
            schema = {"type": "array", "items": parameter.schema} if parameter.repeatable else parameter.schema
            annotation = Annotated[kind, WithJsonSchema(schema), Query(description=parameter.description)]
            described.append(Parameter(parameter.name, Parameter.KEYWORD_ONLY, annotation=annotation, default=None))
        query.__signature__ = Signature(described, return_annotation=ListQuery)  # type: ignore[attr-defined]
        query.listing = self  # type: ignore[attr-defined]
        return query

    def parse(self, given: Sequence[Pair]) -> ListQuery:
        """Return what a query string asks for. Raises a 422 problem with everything that is wrong.

        Parameters that the list does not know are left to `request_checks.py`.
        """
        errors: list[dict[str, str]] = []

        def read(parse: Callable[..., Any], *arguments: Any, default: Any = None) -> Any:
            try:
                return parse(*arguments)
            except BadFilterError as error:
                errors.append(error.error)
                return default

        values = {
            name: read(single, name, found)
            for name in ("limit", "after", "sort", "fields")
            if (found := [pair for pair in given if pair[0] == name])
        }
        limit = read(self._limit, values.get("limit"), default=self.default_limit)
        sort, descending = read(self._sort, values.get("sort"), default=self._sort(None))
        fields = read(self._fields, values.get("fields"))
        conditions: list[Condition] = []
        for one in self.filters:
            if of_filter := [pair for pair in given if one.accepts(pair[0])]:
                conditions += read(lambda of, pairs: list(of.read(pairs)), one, of_filter, default=[])
        query = ListQuery(self, limit, sort, descending, None, tuple(conditions), fields)
        if not errors and values.get("after") is not None:
            after = read(_position, query, values["after"])
            query = ListQuery(self, limit, sort, descending, after, tuple(conditions), fields)
        if errors:
            detail = "; ".join(error["message"] for error in errors[:3])
            raise HttpProblem(422, "invalid_request", f"{detail[:1].upper()}{detail[1:]}.", errors=errors)
        return query

    def _limit(self, text: str | None) -> int:
        if text is None:
            return self.default_limit
        if not re.fullmatch(r"\+?0{0,10}\d{1,6}", text.strip(), re.ASCII) or not 1 <= int(text) <= MAX_LIMIT:
            message = f"limit is a whole number from 1 to {MAX_LIMIT}, not {text[:40]!r}"
            raise BadFilterError("limit", "bad_limit", message, f"Send at most {MAX_LIMIT}, and go on with `next`.")
        return int(text)

    def _sort(self, text: str | None) -> tuple[SortField, bool]:
        text = self.default_sort if text is None else text
        name, descending = text.removeprefix("-"), text.startswith("-")
        if (sort := self.sorts.get(name)) is not None and not name.endswith("."):
            return sort, descending
        for prefix, sort in self.sorts.items():
            key = name.removeprefix(prefix)
            if prefix.endswith(".") and key != name and re.fullmatch(METRIC_KEY, key, re.ASCII):
                check_metric("sort", key, sort.known)
                return SortField(name, sort.column, sort.kind, sort.nullable, key), descending
        known = [f"{one}NAME" if one.endswith(".") else one for one in self.sorts]
        hint = nearest(name, known) or f"Sort by one of {', '.join(known)}; with `-` before it, descending."
        raise BadFilterError("sort", "unknown_sort", f"the list cannot be sorted by {name[:80]!r}", hint)

    def _fields(self, text: str | None) -> FieldTree | None:
        return None if text is None else field_tree(text, self.row)


def _position(query: ListQuery, text: str) -> Position:
    """Return the place that a cursor names. Raises BadFilterError for one that is none, or of another sort."""
    hint = "Send the `next` of the page before, with the same `sort`; without `after` the list begins anew."
    malformed = BadFilterError("after", "bad_cursor", f"{text[:80]!r} is not a cursor of this list", hint)
    if not text or len(text) > MAX_CURSOR or not re.fullmatch(r"[A-Za-z0-9_-]+", text, re.ASCII):
        raise malformed
    try:
        sort_name, value, identifier = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        position = Position(_key_value(query.sort, value), identifier)
    except (ValueError, TypeError, OverflowError, RecursionError):
        raise malformed from None
    if sort_name != query.sort_name:
        message = f"the cursor is of a list sorted by {str(sort_name)[:80]}, and this one is by {query.sort_name}"
        raise BadFilterError("after", "cursor_of_another_sort", message, hint)
    if not isinstance(identifier, str if query.listing.key.type.python_type is str else int) or _is_unstorable(
        identifier
    ):
        raise malformed
    return position


def _key_value(sort: SortField, value: Any) -> KeyValue:
    """Return the sort key as the column has it. Raises ValueError, TypeError or OverflowError for another."""
    if value is None:
        return None
    if sort.kind == "time":
        return datetime.fromisoformat(value).astimezone(UTC)
    if sort.kind == "number" and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if sort.kind == "text" and isinstance(value, str) and not _is_unstorable(value):
        return value
    raise TypeError


def _is_unstorable(value: str | int) -> bool:
    if isinstance(value, int):
        return not -(2**31) <= value < 2**31
    return "\x00" in value or any("\ud800" <= letter <= "\udfff" for letter in value)

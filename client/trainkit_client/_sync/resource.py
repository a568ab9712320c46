# Generated from `_async` by client/make_sync.py: change that file, and run it.
"""What jobs, datasets, models and experiments have in common: fields of a response, and the client that acts on them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Self, TypeVar

from pydantic import PrivateAttr, ValidationError

from trainkit_client._sync.rows import Rows
from trainkit_client.errors import AmbiguousReference, BadResponse, NotFound
from trainkit_client.queries import segment
from trainkit_client.references import ReferenceForm, reference_form
from trainkit_client.types import Response

if TYPE_CHECKING:
    from trainkit_client._sync.client import Client

ResponseT = TypeVar("ResponseT", bound=Response)
ResourceT = TypeVar("ResourceT", bound="Resource")
PAGE = 200
SCANNED_PAGE = 1000


def parsed(response_type: type[ResponseT], document: Any) -> ResponseT:
    """Return a document as its type. Raises BadResponse when it is something else."""
    try:
        return response_type.model_validate(document)
    except ValidationError as error:
        what = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in what["loc"])
        raise BadResponse(
            f"The service answered no {response_type.__name__}: {place or 'it'}: {what['msg']}."
        ) from None


class Resource(Response):
    """An object of the service: its fields as they were last read, and methods that act on it."""

    id: str
    _client: Client = PrivateAttr()

    @classmethod
    def bind(cls, client: Client, document: Any) -> Self:
        """Return the object of a document."""
        resource = parsed(cls, document)
        resource._client = client
        return resource

    def _replace_fields(self, document: Any) -> Self:
        """Take the fields of a newer document."""
        fresh = parsed(type(self), document)
        self.__dict__.update(fresh.__dict__)
        object.__setattr__(self, "__pydantic_extra__", fresh.__pydantic_extra__)
        object.__setattr__(self, "__pydantic_fields_set__", fresh.__pydantic_fields_set__)
        return self


def listed(client: Client, row_type: type[ResourceT], path: str, filters: Mapping[str, Any]) -> Rows[ResourceT]:
    """Return the rows of a list, page after page, as objects that act."""
    return Rows(row_type, lambda: _bound(client, row_type, path, filters))


def _bound(client: Client, row_type: type[ResourceT], path: str, filters: Mapping[str, Any]) -> Iterator[ResourceT]:
    for row in page_rows(client, path, filters):
        yield row_type.bind(client, row)


def plain_rows(client: Client, row_type: type[ResponseT], path: str, filters: Mapping[str, Any]) -> Rows[ResponseT]:
    """Return the rows of a list, page after page, as plain responses."""
    return Rows(row_type, lambda: _parsed(client, row_type, path, filters))


def _parsed(client: Client, row_type: type[ResponseT], path: str, filters: Mapping[str, Any]) -> Iterator[ResponseT]:
    for row in page_rows(client, path, filters):
        yield parsed(row_type, row)


def page_rows(client: Client, path: str, filters: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the rows of all pages. `limit` of the filters bounds their number, and not the size of a page."""
    query = {name: value for name, value in filters.items() if value is not None}
    left = query.pop("limit", None)
    while left is None or left > 0:
        size = PAGE if left is None else min(left, SCANNED_PAGE)
        page = client.request("GET", path, params={**query, "limit": size})
        if not isinstance(page, dict) or not isinstance(page.get("data"), list):
            raise BadResponse(f"{path} answered no list.")
        yield from page["data"]
        if left is not None:
            left -= len(page["data"])
        if not page.get("has_more") or not page["data"]:
            return
        query["after"] = page["next"]


def find(client: Client, path: str, prefix: str, reference: str, *, by_name: bool) -> Any:
    """Return the document that a reference means: an id, a unique beginning of one, a name, or `@last`.

    Args:
        by_name: whether names are looked up here; names of datasets and models are read by the service.

    Raises NotFound and AmbiguousReference.
    """
    form = reference_form(reference, prefix)
    identity: str | None = None
    if form is ReferenceForm.LAST:
        newest = [row["id"] for row in page_rows(client, path, {"limit": 1, "fields": "id"})]
        identity = newest[0] if newest else None
    elif form is not ReferenceForm.ID:
        if by_name:
            identity = _only(path, reference, _ids_of_name(client, path, reference))
        elif form is ReferenceForm.BEGINNING:
            with contextlib.suppress(NotFound):
                return client.request("GET", f"{path}/{segment(reference)}")
        if identity is None and form is ReferenceForm.BEGINNING:
            identity = _only(path, reference, _ids_beginning_with(client, path, reference))
    return client.request("GET", f"{path}/{segment(identity or reference)}")


def _only(path: str, reference: str, identities: list[str]) -> str | None:
    if len(identities) > 1:
        raise AmbiguousReference(path.rpartition("/")[2], reference, identities)
    return identities[0] if identities else None


def _ids_of_name(client: Client, path: str, name: str) -> list[str]:
    filters = {"name": name, "fields": "id,name", "limit": SCANNED_PAGE}
    # a name with `*` in it is a pattern for the list: only what is called exactly so counts
    return [row["id"] for row in page_rows(client, path, filters) if row["name"] == name]


def _ids_beginning_with(client: Client, path: str, beginning: str) -> list[str]:
    found: list[str] = []
    for row in page_rows(client, path, {"fields": "id"}):
        if row["id"].startswith(beginning):
            found.append(row["id"])
        elif row["id"] < beginning:
            break  # ids rise with time, and the newest come first
    return found

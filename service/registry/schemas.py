"""Wire format of aliases."""

from __future__ import annotations

from service.listing.filters import ExactFilter, FlagFilter, NumberFilter, TimeFilter
from service.listing.query import ListOf, SortField
from service.registry.tables import AliasAssignment
from service.response_model import ResponseModel
from service.timestamps import Timestamp


class AliasOut(ResponseModel):
    """What an alias of a name means, or meant until `ended_at`."""

    alias: str
    name: str
    version: int
    target: str
    """Id of the dataset or model."""
    created_at: Timestamp
    created_by: str
    """Who set it: `key:` and the id of an API key."""
    ended_at: Timestamp | None
    """When it was moved or removed; null: it is in force."""
    ended_by: str | None


ALIASES = ListOf(
    AliasAssignment.id,
    AliasOut,
    sorts=[SortField("created_at", AliasAssignment.id)],
    filters=[
        ExactFilter("alias", AliasAssignment.alias, max_length=64),
        NumberFilter("version", AliasAssignment.version),
        ExactFilter("target", AliasAssignment.target_id),
        FlagFilter("ended", AliasAssignment.ended_at, present=True),
        TimeFilter("created_at", AliasAssignment.created_at),
        TimeFilter("ended_at", AliasAssignment.ended_at),
    ],
)


def alias_out(row: AliasAssignment) -> AliasOut:
    """A row as scripts read it."""
    return AliasOut(
        alias=row.alias,
        name=row.name,
        version=row.version,
        target=row.target_id,
        created_at=row.created_at,
        created_by=row.created_by,
        ended_at=row.ended_at,
        ended_by=row.ended_by,
    )

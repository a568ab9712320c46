"""Wire format of aliases."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel

from service.registry.tables import AliasAssignment


class AliasOut(BaseModel):
    """What an alias of a name means, or meant until `ended_at`."""

    alias: str
    name: str
    version: int
    target: str
    """Id of the dataset or model."""
    created_at: datetime
    created_by: str
    """Who set it: `key:` and the id of an API key."""
    ended_at: datetime | None
    """When it was moved or removed; null: it is in force."""
    ended_by: str | None


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

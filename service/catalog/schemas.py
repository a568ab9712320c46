"""Wire format of the catalog."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from service.response_model import JsonObject, ResponseModel
from trainkit.spec.failures import Layer


class CatalogEntryOut(ResponseModel):
    """One kind of a section."""

    kind: str
    description: str
    default: Any
    """What a spec has where it says only the kind; null where a field is required."""
    schema_: JsonObject = Field(alias="schema")
    """JSON schema (2020-12)."""
    better: Literal["min", "max"] | None = None
    """Metrics: which values are better."""
    layer: Layer | None = None
    """Failures: where the cause lies."""
    retryable: bool | None = None
    """Failures: whether the service tries again by itself."""
    hint: str | None = None
    """Failures: what to do."""


CatalogOut = dict[str, list[CatalogEntryOut]]
"""Section of a job spec, or what else is counted up (`metric`, `failure`), to its kinds."""

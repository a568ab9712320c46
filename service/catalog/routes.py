"""HTTP of the catalogue: every kind of everything."""

from __future__ import annotations

from functools import cache
from typing import Any

from fastapi import APIRouter

from service.auth import Reader
from service.catalog.schemas import CatalogOut
from trainkit.spec.catalog import catalog

router = APIRouter(prefix="/v1", tags=["catalog"])
_catalog = cache(catalog)


@router.get(
    "/catalog",
    response_model=CatalogOut,
    response_model_exclude_unset=True,
    summary="Every model, optimizer, augmentation, rule ... with schema, default, description",
)
def get_catalog(who: Reader) -> dict[str, Any]:
    """Everything that a spec can name, each with its JSON Schema, default and a line of description. It is the same for
    every project of this version.
    """
    return _catalog()

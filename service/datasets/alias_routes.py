"""HTTP of aliases of datasets: set, move, remove, and what they have meant."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from service.auth import Reader, Writer
from service.datasets.references import DATASETS
from service.pagination import After, Limit, Page, page
from service.registry import repository, service
from service.registry.addresses import AliasOfAddress, DatasetReference
from service.registry.schemas import AliasOut, alias_out
from service.request_sessions import ReadSession, SessionRoute, WriteSession

router = APIRouter(prefix="/v1/datasets/{dataset}/aliases", tags=["datasets"], route_class=SessionRoute)


@router.get(
    "",
    response_model=Page[AliasOut],
    summary="What the aliases of the dataset's name mean and have meant, newest first",
)
def list_dataset_aliases(
    reference: DatasetReference, who: Reader, session: ReadSession, limit: Limit = 50, after: After = None
) -> dict[str, Any]:
    name = service.find(session, who.project_id, DATASETS, reference).name
    return page(repository.alias_history(session, who.project_id, DATASETS, name, limit, after), limit, alias_out)


@router.put("/{alias}", response_model=AliasOut, summary="Let `name@alias` mean this version from now on")
def set_dataset_alias(
    reference: DatasetReference, alias: AliasOfAddress, who: Writer, session: WriteSession
) -> AliasOut:
    """An alias means one version of its name. It moves at once: no request finds it missing in between."""
    return alias_out(service.set_alias(session, who.project_id, DATASETS, reference, alias, who.actor))


@router.delete("/{alias}", status_code=204, summary="Remove an alias of the dataset's name")
def remove_dataset_alias(
    reference: DatasetReference, alias: AliasOfAddress, who: Writer, session: WriteSession
) -> None:
    service.remove_alias(session, who.project_id, DATASETS, reference, alias, who.actor)

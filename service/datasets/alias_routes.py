"""HTTP of aliases of datasets: set, move, remove, and what they have meant."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Response

from service.auth import Reader, Writer
from service.datasets.references import DATASETS
from service.listing.query import ListQuery
from service.listing.repository import page
from service.pagination import Page
from service.registry import repository, service
from service.registry.addresses import AliasOfAddress, DatasetReference
from service.registry.schemas import ALIASES, AliasOut, alias_out
from service.request_sessions import ReadSession, SessionRoute, WriteSession

router = APIRouter(prefix="/v1/datasets/{dataset}/aliases", tags=["datasets"], route_class=SessionRoute)


@router.get(
    "",
    response_model=Page[AliasOut],
    summary="What the aliases of the dataset's name mean and have meant, newest first",
)
def list_dataset_aliases(
    reference: DatasetReference, who: Reader, session: ReadSession, query: Annotated[ListQuery, Depends(ALIASES.query)]
) -> Response:
    """A row for each version that an alias of the name has meant, with the time from and until. `dataset` names any
    version of the name.
    """
    name = service.find(session, who.project_id, DATASETS, reference).name
    return query.respond(page(session, query, repository.in_alias_history(who.project_id, DATASETS, name)), alias_out)


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
    """The alias means nothing from now on, whichever version it meant; the version stays. 404 where the name has no
    such alias.
    """
    service.remove_alias(session, who.project_id, DATASETS, reference, alias, who.actor)

"""HTTP of aliases of models: set, move, remove, and what they have meant."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Response

from service.auth import Reader, Writer
from service.listing.query import ListQuery
from service.listing.repository import page
from service.models.references import MODELS
from service.pagination import Page
from service.registry import repository, service
from service.registry.addresses import AliasOfAddress, ModelReference
from service.registry.schemas import ALIASES, AliasOut, alias_out
from service.request_sessions import ReadSession, SessionRoute, WriteSession

router = APIRouter(prefix="/v1/models/{model}/aliases", tags=["models"], route_class=SessionRoute)


@router.get(
    "",
    response_model=Page[AliasOut],
    summary="What the aliases of the model's name mean and have meant, newest first",
)
def list_model_aliases(
    reference: ModelReference, who: Reader, session: ReadSession, query: Annotated[ListQuery, Depends(ALIASES.query)]
) -> Response:
    """A row for each version that an alias of the name has meant, with the time from and until. `model` names any
    version of the name.
    """
    name = service.find(session, who.project_id, MODELS, reference).name
    return query.respond(page(session, query, repository.in_alias_history(who.project_id, MODELS, name)), alias_out)


@router.put("/{alias}", response_model=AliasOut, summary="Let `name@alias` mean this version from now on")
def set_model_alias(reference: ModelReference, alias: AliasOfAddress, who: Writer, session: WriteSession) -> AliasOut:
    """An alias means one version of its name. It moves at once: no request finds it missing in between."""
    return alias_out(service.set_alias(session, who.project_id, MODELS, reference, alias, who.actor))


@router.delete("/{alias}", status_code=204, summary="Remove an alias of the model's name")
def remove_model_alias(reference: ModelReference, alias: AliasOfAddress, who: Writer, session: WriteSession) -> None:
    """The alias means nothing from now on, whichever version it meant; the version stays. 404 where the name has no
    such alias.
    """
    service.remove_alias(session, who.project_id, MODELS, reference, alias, who.actor)

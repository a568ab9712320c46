"""HTTP of aliases of models: set, move, remove, and what they have meant."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from service.auth import Reader, Writer
from service.models.references import MODELS
from service.pagination import After, Limit, Page, page
from service.registry import repository, service
from service.registry.addresses import AliasOfAddress, ModelReference
from service.registry.schemas import AliasOut, alias_out
from service.request_sessions import ReadSession, SessionRoute, WriteSession

router = APIRouter(prefix="/v1/models/{model}/aliases", tags=["models"], route_class=SessionRoute)


@router.get(
    "",
    response_model=Page[AliasOut],
    summary="What the aliases of the model's name mean and have meant, newest first",
)
def list_model_aliases(
    reference: ModelReference, who: Reader, session: ReadSession, limit: Limit = 50, after: After = None
) -> dict[str, Any]:
    name = service.find(session, who.project_id, MODELS, reference).name
    return page(repository.alias_history(session, who.project_id, MODELS, name, limit, after), limit, alias_out)


@router.put("/{alias}", response_model=AliasOut, summary="Let `name@alias` mean this version from now on")
def set_model_alias(reference: ModelReference, alias: AliasOfAddress, who: Writer, session: WriteSession) -> AliasOut:
    """An alias means one version of its name. It moves at once: no request finds it missing in between."""
    return alias_out(service.set_alias(session, who.project_id, MODELS, reference, alias, who.actor))


@router.delete("/{alias}", status_code=204, summary="Remove an alias of the model's name")
def remove_model_alias(reference: ModelReference, alias: AliasOfAddress, who: Writer, session: WriteSession) -> None:
    service.remove_alias(session, who.project_id, MODELS, reference, alias, who.actor)

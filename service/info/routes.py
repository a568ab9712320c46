"""HTTP of the installation's description."""

from __future__ import annotations

from fastapi import APIRouter

from service.auth import Authenticated
from service.context import Service
from service.info import service
from service.info.schemas import InfoOut
from service.request_sessions import ReadSession, SessionRoute

router = APIRouter(prefix="/v1", tags=["info"], route_class=SessionRoute)


@router.get("/info", response_model=InfoOut, summary="Version, capabilities and limits of this installation")
def get_info(who: Authenticated, session: ReadSession, context: Service) -> InfoOut:
    """A client reads it once to know what it may ask for. It names no host, address or secret."""
    return service.info(session, context.settings)

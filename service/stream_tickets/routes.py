"""HTTP of stream tickets."""

from __future__ import annotations

from fastapi import APIRouter, Request

from service.auth import Reader
from service.proxy_headers import root_path_of
from service.request_sessions import ReadSession, SessionRoute
from service.stream_tickets import service
from service.stream_tickets.schemas import StreamTicketIn, StreamTicketOut

router = APIRouter(prefix="/v1/stream-tickets", tags=["metrics"], route_class=SessionRoute)


@router.post("", status_code=201, response_model=StreamTicketOut, summary="A ticket that opens one stream in a browser")
def create_stream_ticket(who: Reader, session: ReadSession, request: Request, body: StreamTicketIn) -> StreamTicketOut:
    """A browser's `EventSource` sends no `Authorization`. A ticket stands for the key: to read this stream, within a
    minute. A stream that was opened in time goes on; to open it again later takes a new ticket.
    """
    ticket, end = service.issue(session, who, body.path)
    url = f"{root_path_of(request.scope)}{body.path}?{service.PARAMETER}={ticket}"
    return StreamTicketOut(ticket=ticket, url=url, expires_at=end)

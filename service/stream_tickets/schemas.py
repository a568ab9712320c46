"""The wire format of stream tickets."""

from __future__ import annotations

from pydantic import Field

from service.request_model import RequestModel
from service.response_model import ResponseModel
from service.timestamps import Timestamp


class StreamTicketIn(RequestModel):
    """A stream to open without a header."""

    path: str = Field(max_length=300)
    """Path of the stream without a query, as in this document: `/v1/jobs/job_.../stream`."""


class StreamTicketOut(ResponseModel):
    """A ticket for one stream."""

    ticket: str
    """Opens the stream as the query parameter `ticket`, for GET and nothing else."""
    url: str
    """Address of the stream with the ticket, for `new EventSource(url)`; relative to the host."""
    expires_at: Timestamp
    """Until when the stream can be opened, and opened again; an open one goes on."""

"""The wire format of stream tickets."""

from __future__ import annotations

from pydantic import BaseModel, Field

from service.request_model import RequestModel
from service.timestamps import Timestamp


class StreamTicketIn(RequestModel):
    """A stream to open without a header."""

    path: str = Field(
        max_length=300,
        description="Path of the stream without a query, as in this document: `/v1/jobs/job_.../stream`.",
        examples=["/v1/jobs/job_01JAB2C3D4E5F6G7H8J9K0M1N2/stream"],
    )


class StreamTicket(BaseModel):
    """A ticket for one stream."""

    ticket: str = Field(description="Opens the stream as the query parameter `ticket`, for GET and nothing else.")
    url: str = Field(
        description="Address of the stream with the ticket, for `new EventSource(url)`; relative to the host."
    )
    expires_at: Timestamp = Field(
        description="Until when the stream can be opened, and opened again; it may last longer."
    )

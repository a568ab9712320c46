"""Wire format of the log."""

from __future__ import annotations

from service.logs.chunks import Level, Source
from service.response_model import ResponseModel
from service.timestamps import Timestamp


class LogLineOut(ResponseModel):
    """One line of an attempt. `source`: the training process, or the supervisor that watches it."""

    seq: int
    at: Timestamp
    attempt: int
    level: Level
    source: Source
    text: str


class StreamedLineOut(LogLineOut):
    """A line as the stream of a job tells it."""

    message: str
    """The same as `text`, by its former name."""


class LogsOut(ResponseModel):
    """Lines after the cursor; `next` is the cursor to go on from, `done` says that nothing more will come."""

    data: list[LogLineOut]
    next: int
    done: bool
